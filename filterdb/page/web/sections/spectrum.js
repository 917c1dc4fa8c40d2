makers.spectrum = (node) => {
  const { deciles, terms, shares, low, aliasing, count: filters } = core.sections.spectrum;
  mount(node, (width) => {
    const columns = Math.min(5, deciles.length), size = Math.min(72, width / columns - 10);
    const some = (value) => (value === null || Number.isNaN(value) ? "–" : percent(value));
    node.replaceChildren(el("ol", { class: "basis narrow", style: { "grid-template-columns": `repeat(${columns}, 1fr)` } }, ...deciles.map((label, k) => {
      const values = shares[k].map((value) => value ?? 0);
      const [board, context] = canvas(...tileSize(size), `depth ${label}: ${terms.map((term, i) => `${term} ${some(shares[k][i])}`).join("; ")}`);
      tile(context, values, Math.max(...values), 0, 0, size);
      hinted(board, () => [`depth ${label}`, `${count(filters[k])} filters`, ...terms.map((term, i) => `term ${term}: ${some(shares[k][i])}`)]);
      const aliased = some(aliasing[k]) === "–" ? [] : [el("span", { class: "soft" }, `aliased ${some(aliasing[k])}`)];
      return el("li", {}, el("span", {}, label), board, el("span", { class: "soft" }, `low ${some(low[k])}`), ...aliased);
    })));
  });
};
