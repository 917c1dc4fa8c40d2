makers.basis = (node) => {
  mount(node, (width) => {
    const columns = width < 560 ? 3 : core.leading, size = Math.min(72, width / columns - 10);
    const limit = Math.max(...core.sections.basis.components.flat().map(Math.abs));
    let sum = 0;
    node.replaceChildren(el("ol", { class: "basis", style: { "grid-template-columns": `repeat(${columns}, 1fr)` } }, ...core.sections.basis.components.map((weights, c) => {
      const [board, context] = canvas(...tileSize(size), `component ${c}: ${weights.map((weight) => digits(weight, 2)).join(", ")}`);
      tile(context, weights, limit, 0, 0, size);
      sum += core.sections.basis.ratios[c];
      const cumulative = sum;
      hinted(board, () => [`c${c}`, ...range(core.kernel[0]).map((row) => weights.slice(row * core.kernel[1], (row + 1) * core.kernel[1]).map((weight) => digits(weight, 2)).join("  "))]);
      return el("li", {}, el("span", {}, `c${c}`), board, el("b", {}, percent(core.sections.basis.ratios[c])), el("span", { class: "soft" }, `Σ ${percent(cumulative)}`),
        el("span", { class: "meter", "aria-hidden": "true" }, el("i", { style: { width: `${100 * cumulative}%` } }), el("u", { style: { width: `${100 * core.sections.basis.ratios[c]}%` } })));
    })));
  });
};
