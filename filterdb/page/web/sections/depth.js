makers.depth = async (node) => {
  const data = await layers();
  const keys = Object.keys(core.labels), wish = { by: keys[0], label: "" };
  const bar = el("div", { class: "bar" }), charts = el("div", { class: "two" });
  const chosen = (place) => {
    const value = wish.label === "" ? "" : core.labels[wish.by].values[wish.label];
    keep(node, { label: wish.by === keys[0] && !value ? "" : wish.by, value });
    controls();
    $$("select", bar)[place].focus();
    draw();
  };
  const controls = () => {
    const labels = core.labels[wish.by]?.values ?? [];
    bar.replaceChildren(
      select("Highlight", keys.map((key) => [key, words(key)]), wish.by, (value) => { wish.by = value; wish.label = ""; chosen(0); }),
      select("value", [["", "none"], ...labels.map((text, i) => [i, text])], wish.label, (value) => { wish.label = value; chosen(1); }));
  };
  const fromAddress = () => {
    wish.by = keys.find((key) => key === chosenState("label")) ?? keys[0];
    const place = core.labels[wish.by]?.values.indexOf(chosenState("value")) ?? -1;
    wish.label = place < 0 ? "" : String(place);
    controls();
    draw();
  };
  const draw = () => {
    const wanted = wish.label === "" ? null : Number(wish.label), codes = wanted === null ? null : core.labels[wish.by].codes;
    highlighted.hidden = wanted === null;
    const isIn = (i) => wanted !== null && codes[data.model[i]] === wanted;
    charts.replaceChildren(...[["entropy", "variance entropy H", Math.log10(core.weights.length)], ["sparsity", "sparsity S", Math.max(0.2, 1.05 * data.sparsity.reduce((most, value) => (value > most ? value : most), 0))]].map(([name, title, most]) => {
      const chart = el("div");
      mount(chart, (width) => {
        const height = 270, left = 40, bottom = height - 34;
        const x = linear(0, 1, left + 4, width - 8), y = linear(0, most, bottom, 22, 4);
        const plot = picture(width, height, `${title} of ${count(data.n)} layers over their depth`);
        axis(plot, x, 22, bottom, bottom + 18, "depth of the layer");
        upright(plot, y, left, width - 8, title);
        const [board, context] = canvas(width, height, "");
        const few = data.n < 2500;
        for (const layer of [0, 1, 2]) {
          for (let i = 0; i < data.n; i++) {
            const place = isIn(i) ? 2 : data.verdict[i] ? 1 : 0;
            if (place !== layer || Number.isNaN(data[name][i])) continue;
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
          mean.forEach((value, k) => { if (Number.isFinite(value)) plot.append(hinted(svg("circle", { cx: x((k + 0.5) / 10), cy: y(value), r: 4, class: `dot ${kind}` }), () => [kind === "all" ? "all layers" : core.labels[wish.by].values[wanted], `depth ${k / 10} to ${(k + 1) / 10}`, `mean ${title} ${digits(value)}`])); });
        }
        chart.replaceChildren(el("div", { class: "stack" }, board, plot));
      });
      return chart;
    }));
  };
  const highlighted = el("li", { class: "chosen", hidden: true }, "mean of the highlighted layers");
  const keysList = el("ul", { class: "keys" }, el("li", { class: "k-layer" }, "layer"), el("li", { class: "k-verdict" }, "layer with a verdict"), el("li", { class: "all" }, "mean of each tenth of the depth"), highlighted);
  node.replaceChildren(bar, charts, keysList);
  onState(["label", "value"], fromAddress);
  fromAddress();
};

// Return the mean of a measure in each tenth of the depth. Tenths are (low, high]; the first includes its lower end.
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

makers.deciles = (node) => boxes(node, core.sections.depth.deciles, { label: "Drift between models by depth", unit: "drift D, all pairs of models" });
makers.scale = (node) => boxes(node, core.sections.depth.scale, { label: "Filter scale by depth", unit: "mean of (largest − smallest weight), all models" });
