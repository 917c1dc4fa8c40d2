// Two groups compared: overlaid histograms of the leading components, and the components that contribute to their drift.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// Return each component's share of the weighted KL_sym, Σ_b â (p − q) ln(p/q).
function shares(data, i, j) {
  const parts = core.weights.map((weight, c) => {
    const p = data.histogram(i, c), q = data.histogram(j, c);
    let sum = 0;
    for (let b = 0; b < 70; b++) if (p[b] > 0 && q[b] > 0) sum += (p[b] - q[b]) * Math.log(p[b] / q[b]);
    return weight * sum;
  });
  const all = total(parts) || 1;
  return parts.map((part) => part / all);
}

// Return the name of a group, with a link if it is a model.
function groupName(data, i, kind) {
  return el("span", { class: kind }, data.by === "model" ? modelNamed(data.groups[i]) : data.groups[i]);
}

function compare(node, data, i, j) {
  const share = shares(data, i, j), [first, ...more] = facts(data, i, j);
  const order = range(core.weights.length).sort((a, b) => share[b] - share[a]);
  const main = order.filter((_, k) => total(order.slice(0, k).map((c) => share[c])) < 0.6);
  const verdict = data.verdictOf(i, j);
  const scale = el("div", { class: "ruler-of" });
  const { value: floor, how } = data.floorOf(i, j);
  ruler(scale, { drift: data.matrix("drift", i, j), floor, how });
  const head = el("div", { class: "versus" },
    el("h4", { tabindex: -1 }, groupName(data, i, "a"), el("span", { class: "soft" }, " against "), groupName(data, j, "b")),
    el("p", { class: "lead" }, el("b", {}, `D = ${digits(data.matrix("drift", i, j))}`), verdict ? verdictMark(verdict) : null),
    el("p", { class: "soft" }, [...more.slice(1, verdict ? -1 : undefined), `${count(data.counts[i])} and ${count(data.counts[j])} filters`].join(" · ")),
    verdict ? el("p", {}, verdict.sentence) : null,
    scale,
    el("p", {}, `Most of the drift comes from ${main.map((c) => `c${c} (${percent(share[c])})`).join(", ")}.`));
  const grid = el("div", { class: "nine" });
  mount(grid, () => {
    const width = Math.floor(grid.clientWidth / 3) - 8, height = 78;
    const histograms = range(core.leading).flatMap((c) => [data.histogram(i, c), data.histogram(j, c)]);
    const [low, high] = extent(histograms);
    const x = linear(low, high, 1, width - 1);
    grid.replaceChildren(...range(core.leading).map((c) => {
      const p = data.histogram(i, c), q = data.histogram(j, c), most = Math.max(...p, ...q);
      const y = linear(0, most, height - 16, 16);
      const plot = picture(width, height, `component ${c}, ${percent(share[c])} of the drift`,
        svg("text", { x: 1, y: 11, class: main.includes(c) ? "strong" : "" }, `c${c}`),
        svg("text", { x: width - 1, y: 11, class: main.includes(c) ? "end strong" : "end" }, percent(share[c])),
        svg("path", { d: outline(p, low, high, x, y, height - 16, true), class: "fill-a" }),
        svg("path", { d: outline(q, low, high, x, y, height - 16, false), class: "line-b" }),
        svg("line", { x1: 1, x2: width - 1, y1: height - 16, y2: height - 16, class: "base" }),
        svg("rect", { x: 1, y: height - 9, width: Math.max(0, (width - 2) * share[c]), height: 4, class: "share" }));
      return hinted(plot, () => [`c${c}: ${percent(share[c])} of the drift`, `${percent(core.weights[c])} of the variance`, `coefficients ${digits(core.edges[low])} … ${digits(core.edges[high])}`]);
    }));
  });
  const without = removed(data, i, j);
  // Show the command only if it can be typed: names must be shown unchanged, and a selection must be known.
  const canBeTyped = core.options !== null && ![core.url, data.groups[i], data.groups[j]].some((name) => name.includes("\ufffd"));
  const command = `filterdb explain ${shell(core.url)} --by ${data.by}${core.options} -- ${shell(data.groups[i])} ${shell(data.groups[j])}`;
  node.replaceChildren(head, grid, ...(without ? [without] : []), ...(canBeTyped ? [el("details", {}, el("summary", {}, "The same on the command line"), el("pre", { tabindex: 0 }, el("code", {}, command)))] : []));
}

// Return a table of models of the two groups, with the drift without each of them.
function removed(data, i, j) {
  const drifts = data.without?.[`${Math.min(i, j)},${Math.max(i, j)}`];
  if (!drifts?.length) return null;
  const now = data.matrix("drift", i, j);
  const rows = drifts.map(([model, value]) => {
    const change = value / now - 1;
    return el("tr", {}, el("th", { scope: "row" }, modelLink(model)), el("td", { class: "number" }, digits(value)), el("td", { class: "number" }, `${Math.abs(change) < 0.0005 ? "" : change > 0 ? "+" : "−"}${percent(Math.abs(change))}`));
  });
  return el("div", {}, el("h5", {}, "Without one model the drift would be"), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Drift without one model" }, el("table", {}, el("tbody", {}, ...rows))));
}
