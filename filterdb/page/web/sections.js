// The page's figures, each by the name that stands in its data-figure.

// One grouping for all figures that show one: pressed in any of them, changed in all.
const grouping = { key: core.groupings[0]?.key, listeners: [] };
function group(key) {
  grouping.key = key;
  for (const listener of grouping.listeners) listener(key);
}
function grouped(node, draw) {
  const bar = el("div", { class: "bar" }), body = el("div");
  const show = async (key) => {
    bar.replaceChildren(choices("Group by", core.groupings.map((one) => [one.key, `${words(one.key)} ${count(one.groups)}`]), key, group));
    body.classList.add("busy");
    try {
      const data = decoded(await load(`drift_${key}`));
      if (grouping.key === key) await draw(body, data, bar);
    } catch (error) {
      body.replaceChildren(el("p", { class: "none" }, `Not shown: ${error.message}`));
    }
    body.classList.remove("busy");
    const figure = node.closest("figure");
    for (const link of $$("a[data-of]", figure)) link.href = link.dataset.of.replace("*", key);
  };
  grouping.listeners.push(show);
  node.replaceChildren(bar, body);
  return show(grouping.key);
}

makers.basis = (node) => {
  mount(node, (width) => {
    const columns = width < 560 ? 3 : 9, size = Math.min(72, width / columns - 10);
    const limit = Math.max(...core.basis.components.flat().map(Math.abs));
    let sum = 0;
    node.replaceChildren(el("ol", { class: "basis", style: { "grid-template-columns": `repeat(${columns}, 1fr)` } }, ...core.basis.components.map((weights, c) => {
      const [board, context] = canvas(size, size, `component ${c}: ${weights.map((one) => digits(one, 2)).join(", ")}`);
      tile(context, weights, limit, 0, 0, size);
      sum += core.basis.ratios[c];
      const so = sum;
      hinted(board, () => [`c${c}`, ...[0, 3, 6].map((k) => weights.slice(k, k + 3).map((one) => digits(one, 2)).join("  "))]);
      return el("li", {}, el("span", {}, `c${c}`), board, el("b", {}, percent(core.basis.ratios[c])), el("span", { class: "soft" }, `Σ ${percent(so)}`),
        el("span", { class: "meter", "aria-hidden": "true" }, el("i", { style: { width: `${100 * so}%` } }), el("u", { style: { width: `${100 * core.basis.ratios[c]}%` } })));
    })));
  });
};

makers.heatmap = (node) => {
  const wish = { order: "mean", search: "" };
  return grouped(node, (body, data, bar) => {
    if (!orders(data).some(([key]) => key === wish.order)) wish.order = "mean";
    const board = el("div", { class: "board" }), side = el("section", { class: "pair", "aria-label": "Two groups against each other" });
    const pick = (i, j, isByUser = true) => {
      compare(side, data, i, j);
      if (!isByUser) return;
      hideTip();
      $("h4", side).focus({ preventScroll: true });
      side.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    };
    let map = null;
    const show = () => {
      map = el("div");
      board.replaceChildren(map);
      heatmap(map, data, { ...wish, pick });
    };
    bar.append(select("Order", orders(data), wish.order, (value) => { wish.order = value; show(); }));
    if (data.n > 12) bar.append(el("input", { type: "search", placeholder: "Only groups named …", "aria-label": "Only groups named", value: wish.search, oninput: (event) => { wish.search = event.target.value; show(); } }));
    else wish.search = "";
    body.replaceChildren(el("div", { class: data.n > 14 ? "drift" : "drift beside" }, board, side));
    show();
    const [i, j] = data.farthest ?? [0, 1];
    pick(i, j, false);
  });
};

makers.ridges = (node) => {
  const wish = { all: false };
  return grouped(node, (body, data, bar) => {
    const most = 12;
    const largest = new Set(range(data.n).sort((a, b) => data.counts[b] - data.counts[a]).slice(0, wish.all ? 80 : most));
    const places = range(data.n).filter((i) => largest.has(i));
    if (data.n > most) bar.append(select("Show", [["", `the ${most} largest`], ["all", `the ${Math.min(80, data.n)} largest`]], wish.all ? "all" : "", (value) => { wish.all = value === "all"; group(data.by); }));
    const grid = el("div", { class: "ridges" });
    body.replaceChildren(grid);
    mount(grid, (whole) => {
      const columns = whole > 860 ? 3 : whole > 560 ? 2 : 1, width = (whole - 18 * (columns - 1)) / columns;
      const step = 21, height = step * places.length + 46, left = Math.min(132, width * 0.34);
      const [low, high] = extent(places.flatMap((i) => range(9).map((c) => data.histogram(i, c))));
      const x = linear(low, high, left, width - 4), value = linear(core.edges[low], core.edges[high], left, width - 4, 4);
      grid.style.setProperty("grid-template-columns", `repeat(${columns}, 1fr)`);
      grid.replaceChildren(...range(9).map((c) => {
        const top = Math.max(...places.map((i) => Math.max(...data.histogram(i, c))));
        const plot = picture(width, height, `Distributions of coefficient ${c} for ${places.length} groups by ${words(data.by)}`,
          svg("text", { x: 0, y: 12, class: "strong" }, `c${c}`), svg("text", { x: 24, y: 12, class: "soft" }, `${percent(core.weights[c])} of the variance`));
        for (const tick of value.ticks) plot.append(svg("line", { x1: value(tick), x2: value(tick), y1: 20, y2: height - 16, class: "grid" }), svg("text", { x: value(tick), y: height - 3, class: "middle tick" }, digits(tick, 2)));
        places.forEach((i, row) => {
          const base = 20 + step * (row + 1), p = data.histogram(i, c);
          const y = (one) => base - (1.5 * step * one) / top;
          plot.append(hinted(svg("g", { class: "ridge" }, svg("path", { d: outline(p, low, high, x, y, base, true) }), svg("text", { x: left - 6, y: base - 2, class: "end" }, shown(data.groups[i], Math.floor((left - 6) / 6.2)))), () => [data.groups[i], `c${c}, ${count(data.counts[i])} filters`]));
        });
        return plot;
      }));
    });
  });
};

makers.components = (node) => grouped(node, (body, data) => {
  const chart = el("div");
  body.replaceChildren(chart);
  if (!data.components.length) chart.append(el("p", { class: "none" }, "Too many groups for a drift of each component; filterdb drift gives them."));
  else boxes(chart, data.components, { label: "Drift of each component", unit: "symmetric KL of one component, all pairs of groups" });
});

makers.groupings = (node) => boxes(node, core.boxes.groupings.map((row) => ({ ...row, label: words(row.label) })), { label: "Drift by grouping", unit: "drift D, all pairs of groups" });
makers.deciles = (node) => boxes(node, core.boxes.deciles, { label: "Drift between models by depth", unit: "drift D, all pairs of models" });
makers.scale = (node) => boxes(node, core.boxes.scale, { label: "Filter scale by depth", unit: "mean of (largest − smallest weight), all models" });

makers.planes = async (node) => {
  const data = await load("planes");
  const shades = unpack(data.shades), wish = [0, 1], bar = el("div", { class: "bar" }), body = el("div");
  const inks = range(256).map((one) => colour(CIVIDIS, one / 255));
  const draw = () => {
    const [first, second] = wish[0] < wish[1] ? wish : [wish[1], wish[0]];
    const pair = data.pairs.findIndex(([a, b]) => a === first && b === second), bins = data.bins;
    body.replaceChildren();
    const grid = el("div", { class: "planes" });
    body.append(grid);
    mount(grid, (width) => {
      const columns = Math.max(2, Math.min(5, Math.floor(width / 165))), size = Math.floor((width - 16 * (columns - 1)) / columns);
      grid.style.setProperty("grid-template-columns", `repeat(${columns}, minmax(0, 1fr))`);
      grid.replaceChildren(...data.groups.map((label, g) => {
        const image = new ImageData(bins, bins), start = (g * data.pairs.length + pair) * bins * bins;
        // The first component to the right, the second up: shades are [first][second], or the other way round.
        for (let a = 0; a < bins; a++) {
          for (let b = 0; b < bins; b++) {
            const [x, y] = wish[0] < wish[1] ? [a, b] : [b, a];
            image.data.set([...inks[shades[start + a * bins + b]], 255], 4 * ((bins - 1 - y) * bins + x));
          }
        }
        const small = document.createElement("canvas");
        small.width = small.height = bins;
        small.getContext("2d").putImageData(image, 0, 0);
        const [board, context] = canvas(size, size, `${label}: c${wish[0]} against c${wish[1]}, ${data.kinds[g][pair]}`);
        context.imageSmoothingEnabled = false;
        context.drawImage(small, 0, 0, size, size);
        const value = (t) => data.edges[0] + t * (data.edges[1] - data.edges[0]);
        board.addEventListener("pointermove", (event) => {
          const box = board.getBoundingClientRect();
          showTip([label, `c${wish[0]} ${digits(value((event.clientX - box.left) / size), 2)}`, `c${wish[1]} ${digits(value(1 - (event.clientY - box.top) / size), 2)}`], event.clientX, event.clientY);
        });
        board.addEventListener("pointerleave", hideTip);
        return el("div", {}, el("h4", { title: label }, shown(label, Math.floor(size / 8))), board, el("p", { class: "kind" }, data.kinds[g][pair]));
      }));
    });
  };
  const choose = (place) => select(place ? "up" : "to the right", range(9).map((c) => [c, `c${c}`]), wish[place], (value) => {
    if (Number(value) === wish[1 - place]) wish[1 - place] = wish[place];
    wish[place] = Number(value);
    controls();
    draw();
  });
  const controls = () => bar.replaceChildren(choose(0), choose(1));
  controls();
  node.replaceChildren(bar, body);
  draw();
};

makers.series = (node) => {
  const { trainings, retrainings } = core.series, chart = el("div"), parts = [];
  const shownTrainings = [...trainings].sort((a, b) => b.xs.length - a.xs.length).slice(0, 7);
  const missing = (values) => values.map((value) => value ?? NaN);
  if (trainings.length) parts.push(chart);
  if (retrainings.length) {
    const heads = ["trained again", "seeds", "mean drift among them", "largest", "to the nearest other", "which is"];
    parts.push(el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map((one, i) => el("th", { scope: "col", class: i % 5 ? "number" : null }, one)))),
      el("tbody", {}, ...retrainings.map((row) => el("tr", {}, el("th", { scope: "row" }, row.retraining), ...[count(row.seeds), digits(row.mean_drift), digits(row.largest_drift), digits(row.to_nearest)].map((one) => el("td", { class: "number" }, one)), el("td", {}, row.nearest)))))));
  }
  node.replaceChildren(...parts);
  if (trainings.length) lines(chart, shownTrainings.map((one) => ({ ...one, values: missing(one.values), floor: missing(one.floor) })), { xlabel: "epoch", ylabel: "drift to the last", label: "Checkpoints" });
};

// Layers, as rows of objects over shared columns.
let layersOnce = null;
function layers() {
  layersOnce ??= load("layers").then((data) => {
    for (const name of ["model", "filters", "conv_depth", "depth", "sparsity", "entropy", "ratio", "orthogonality", "verdict"]) data[name] = unpack(data[name]);
    data.n = data.names.length;
    data.kinds = (i) => core.rules.filter((_, k) => data.verdict[i] & (1 << k));
    return data;
  });
  return layersOnce;
}

makers.depth = async (node) => {
  const data = await layers();
  const keys = Object.keys(core.labels), wish = { by: keys[0], label: "" };
  const bar = el("div", { class: "bar" }), charts = el("div", { class: "two" });
  const controls = () => {
    const labels = core.labels[wish.by]?.values ?? [];
    bar.replaceChildren(
      select("Highlight", keys.map((key) => [key, words(key)]), wish.by, (value) => { wish.by = value; wish.label = ""; controls(); draw(); }),
      select("which", [["", "none"], ...labels.map((text, i) => [i, text])], wish.label, (value) => { wish.label = value; draw(); }));
  };
  const draw = () => {
    const chosen = wish.label === "" ? null : Number(wish.label), codes = chosen === null ? null : core.labels[wish.by].codes;
    highlighted.hidden = chosen === null;
    const isIn = (i) => chosen !== null && codes[data.model[i]] === chosen;
    charts.replaceChildren(...[["entropy", "variance entropy H", Math.log10(9)], ["sparsity", "sparsity S", Math.max(0.2, 1.05 * data.sparsity.reduce((most, one) => (one > most ? one : most), 0))]].map(([name, title, most]) => {
      const chart = el("div");
      mount(chart, (width) => {
        const height = 270, left = 40, bottom = height - 34;
        const x = linear(0, 1, left + 4, width - 8), y = linear(0, most, bottom, 22, 4);
        const plot = picture(width, height, `${title} of ${count(data.n)} layers over their depth`);
        axis(plot, x, 22, bottom, bottom + 18, "depth of the layer");
        upright(plot, y, left, width - 8, title);
        const [board, context] = canvas(width, height, "");
        board.setAttribute("aria-hidden", "true");
        const few = data.n < 2500;
        for (const wanted of [0, 1, 2]) {
          for (let i = 0; i < data.n; i++) {
            const place = isIn(i) ? 2 : data.verdict[i] ? 1 : 0;
            if (place !== wanted || Number.isNaN(data[name][i])) continue;
            context.fillStyle = ["rgba(118,128,140,.5)", "rgba(213,94,0,.75)", "rgba(0,130,200,.85)"][place];
            context.globalAlpha = few || place ? 1 : 0.45;
            const a = x(data.depth[i]), b = y(data[name][i]), r = few ? 3 : 1.6;
            if (data.verdict[i]) context.fillRect(a - r, b - r, 2 * r, 2 * r);
            else { context.beginPath(); context.arc(a, b, r, 0, 7); context.fill(); }
          }
        }
        for (const [kind, test] of [["all", () => true], ["chosen", isIn]]) {
          const mean = means(data, name, test);
          const d = mean.map((value, k) => (Number.isFinite(value) ? `${x((k + 0.5) / 10).toFixed(1)} ${y(value).toFixed(1)}` : null)).filter(Boolean).join("L");
          if (d) plot.append(svg("path", { d: `M${d}`, class: `line ${kind}` }));
          mean.forEach((value, k) => { if (Number.isFinite(value)) plot.append(hinted(svg("circle", { cx: x((k + 0.5) / 10), cy: y(value), r: 4, class: `dot ${kind}` }), () => [kind === "all" ? "all layers" : core.labels[wish.by].values[chosen], `depth ${k / 10} to ${(k + 1) / 10}`, `mean ${title} ${digits(value)}`])); });
        }
        chart.replaceChildren(el("div", { class: "stack" }, board, plot));
      });
      return chart;
    }));
  };
  const highlighted = el("li", { class: "chosen", hidden: true }, "mean of the highlighted");
  const keysList = el("ul", { class: "keys" }, el("li", { class: "k-layer" }, "a layer"), el("li", { class: "k-verdict" }, "with a verdict"), el("li", { class: "all" }, "mean of a tenth"), highlighted);
  node.replaceChildren(bar, charts, keysList);
  controls();
  draw();
};

// Means of a measure in each tenth of the depth, as the deciles are cut: (low, high], the first with its low end.
function means(data, name, test) {
  const sums = new Float64Array(10), numbers = new Float64Array(10);
  for (let i = 0; i < data.n; i++) {
    if (!test(i) || Number.isNaN(data[name][i])) continue;
    const k = Math.min(9, Math.max(0, Math.ceil(data.depth[i] * 10 - 1e-6) - 1));
    sums[k] += data[name][i];
    numbers[k] += 1;
  }
  return range(10).map((k) => (numbers[k] ? sums[k] / numbers[k] : NaN));
}

makers.layers = async (node) => {
  const data = await layers();
  const rows = range(data.n).map((i) => ({ i, kinds: data.kinds(i) }));
  const name = (i) => core.models[data.model[i]];
  const texts = rows.map(({ i, kinds }) => `${name(i)} ${data.names[i]} ${kinds.join(" ")}`.toLowerCase());
  const number = (key, title, width, hint, show = digits) => ({ key, title, width, hint, kind: "number", value: ({ i }) => data[key][i], show });
  const table = bigTable(node, {
    rows,
    search: ({ i }) => texts[i],
    label: { search: "Search models, layers, verdicts", table: "Layers with their verdicts", rows: "layers" },
    filters: core.rules.map((rule) => [rule, rule, rows.filter((row) => row.kinds.includes(rule)).length]),
    columns: [
      { title: "model", kind: "text", width: "minmax(120px, 1.1fr)", hint: "Sort by model", value: ({ i }) => name(i) },
      { title: "layer", kind: "text", width: "minmax(130px, 1.5fr)", hint: "Sort by layer", value: ({ i }) => data.names[i] },
      number("filters", "filters", "76px", "3×3 filters", count),
      number("depth", "depth", "58px", "0 first, 1 last"),
      number("sparsity", "S", "64px", "Sparsity: share of filters near zero", percent),
      number("entropy", "H", "58px", "Variance entropy: 0 one picture, 0.954 all nine"),
      number("ratio", "H/T", "58px", "Entropy over the threshold of randomness; empty where too few filters"),
      { title: "verdict", kind: "verdict", width: "minmax(130px, .9fr)", hint: "Sort by verdict", value: (row) => row.kinds.join(" ") || "\uffff", show: (_, row) => verdictCell(row.kinds) },
    ],
  });
  node.table = table;
};

makers.models = async (node) => {
  const data = await load("models");
  const n = data.model.length;
  const rows = range(n).map((i) => ({ i }));
  const texts = rows.map(({ i }) => data.columns.filter((column) => column.text).map((column) => data[column.key][i]).join(" ").toLowerCase());
  bigTable(node, {
    rows,
    height: 360,
    search: ({ i }) => texts[i],
    label: { search: "Search models, tasks, training sets", table: "Models", rows: "models with 3×3 filters" },
    columns: data.columns.map(({ key, text }) => (text
      ? { title: words(key), kind: "text", width: "minmax(110px, 1fr)", hint: `Sort by ${words(key)}`, value: ({ i }) => data[key][i] }
      : { title: words(key), kind: "number", width: "80px", hint: `Sort by ${words(key)}`, value: ({ i }) => data[key][i] ?? NaN, show: count })),
  });
};

makers.contents = (node) => {
  node.replaceChildren(el("div", { class: "contents" }, ...core.contents.map((part) => {
    const most = Math.max(...part.rows.map((row) => row.filters)), list = el("tbody");
    const draw = (all) => list.replaceChildren(...part.rows.slice(0, all ? undefined : 8).map((row) => el("tr", {},
      el("th", { scope: "row", title: row.label }, row.label),
      el("td", { class: "number" }, count(row.models)), el("td", { class: "number" }, count(row.layers)), el("td", { class: "number" }, count(row.filters)),
      el("td", { class: "share", "aria-hidden": "true" }, el("i", { style: { width: `${(100 * row.filters) / most}%` } })))));
    draw(false);
    addEventListener("beforeprint", () => draw(true));
    const more = part.rows.length > 8 ? el("button", { type: "button", class: "more", onclick: () => { draw(true); more.remove(); } }, `All ${part.rows.length}`) : null;
    return el("div", {}, el("h4", {}, `${words(part.column)} `, el("span", { class: "soft" }, count(part.rows.length))),
      el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "unseen" }, words(part.column))), ...["models", "layers", "filters", ""].map((one) => el("th", { class: "number", scope: one ? "col" : null }, one)))), list), more);
  })));
};

makers.tiles = async (node) => {
  const data = await load("tiles");
  const weights = unpack(data.weights), bar = el("div", { class: "bar" }), body = el("div");
  const models = [...new Set(data.model)];
  const show = (model) => {
    const places = range(data.model.length).filter((i) => data.model[i] === Number(model));
    body.replaceChildren(el("ol", { class: "tiles" }, ...places.map((i) => {
      const size = 26, gap = 4, number = data.number[i];
      const [board, context] = canvas(number * (size + gap), size, `The first ${number} filters of ${data.layer[i]}`);
      for (let k = 0; k < number; k++) tile(context, [...weights.subarray((i * data.most + k) * 9, (i * data.most + k + 1) * 9)].map((one) => one / 127), 1, k * (size + gap), 0, size);
      return el("li", {}, el("span", { title: data.layer[i] }, shown(data.layer[i], 40)), board);
    })));
  };
  bar.append(select("Model", models.map((one) => [one, core.models[one]]), models[0], show));
  node.replaceChildren(bar, body);
  show(models[0]);
};
