// Two groups against each other: nine overlaid histograms, and what makes their drift.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The weighted KL_sym of each component, and of each bin of it: Σ_b â (p − q) ln(p/q).
function shares(data, i, j) {
  const parts = range(9).map((c) => {
    const p = data.histogram(i, c), q = data.histogram(j, c);
    let sum = 0;
    for (let b = 0; b < 70; b++) if (p[b] > 0 && q[b] > 0) sum += (p[b] - q[b]) * Math.log(p[b] / q[b]);
    return core.weights[c] * sum;
  });
  const all = total(parts) || 1;
  return parts.map((one) => one / all);
}

function compare(node, data, i, j) {
  const share = shares(data, i, j), [first, ...more] = facts(data, i, j);
  const order = range(9).sort((a, b) => share[b] - share[a]);
  const main = order.filter((_, k) => total(order.slice(0, k).map((c) => share[c])) < 0.6);
  const verdict = data.verdictOf(i, j);
  const head = el("div", { class: "versus" },
    el("h4", { tabindex: -1 }, el("span", { class: "a" }, data.groups[i]), el("span", { class: "soft" }, " against "), el("span", { class: "b" }, data.groups[j])),
    el("p", { class: "lead" }, el("b", {}, `D = ${digits(data.matrix("drift", i, j))}`), verdict ? el("span", { class: `verdict v-${verdict}` }, data.said(i, j)) : null),
    el("p", { class: "soft" }, [...more.slice(1).filter((line) => !verdict || line !== data.said(i, j)), `${count(data.counts[i])} and ${count(data.counts[j])} filters`].join(" · ")),
    el("p", {}, `${main.map((c) => `c${c} (${percent(share[c])})`).join(", ")} ${main.length > 1 ? "make" : "makes"} most of it.`));
  const grid = el("div", { class: "nine" });
  mount(grid, () => {
    const width = Math.floor(grid.clientWidth / 3) - 8, height = 78;
    const every = range(9).flatMap((c) => [data.histogram(i, c), data.histogram(j, c)]);
    const [low, high] = extent(every);
    const x = linear(low, high, 1, width - 1);
    grid.replaceChildren(...range(9).map((c) => {
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
  // A name that is not shown as it is cannot be typed; nor is it said how a selection is.
  const typed = core.options !== null && ![core.url, data.groups[i], data.groups[j]].some((name) => name.includes("\ufffd"));
  const command = `filterdb explain ${shell(core.url)} --by ${data.by}${core.options} -- ${shell(data.groups[i])} ${shell(data.groups[j])}`;
  node.replaceChildren(head, grid, ...(without ? [without] : []), ...(typed ? [el("details", {}, el("summary", {}, "The same on the command line"), el("pre", {}, el("code", {}, command)))] : []));
}

// Models of the two groups, by what the drift would be without each.
function removed(data, i, j) {
  const found = data.without?.[`${Math.min(i, j)},${Math.max(i, j)}`];
  if (!found?.length) return null;
  const now = data.matrix("drift", i, j);
  const rows = found.map(([model, value]) => {
    const change = value / now - 1;
    return el("tr", {}, el("th", { scope: "row" }, core.models[model]), el("td", { class: "number" }, digits(value)), el("td", { class: "number" }, `${change > 0 ? "+" : "−"}${percent(Math.abs(change))}`));
  });
  return el("div", {}, el("h5", {}, "Without one model the drift would be"), el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...rows))));
}
