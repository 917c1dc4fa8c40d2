makers.codebook = (node) => {
  const { codes, shares } = core.sections.codebook;
  mount(node, (width) => {
    const columns = width < 560 ? 4 : 8, size = Math.min(72, width / columns - 10);
    const limit = Math.max(...codes.flat().map(Math.abs));
    node.replaceChildren(el("ol", { class: "basis", style: { "grid-template-columns": `repeat(${columns}, 1fr)` } }, ...codes.map((weights, c) => {
      const [board, context] = canvas(size, size, `code ${c}: ${weights.map((weight) => digits(weight, 2)).join(", ")}`);
      tile(context, weights, limit, 0, 0, size);
      hinted(board, () => [`code ${c}`, ...range(core.kernel[0]).map((row) => weights.slice(row * core.kernel[1], (row + 1) * core.kernel[1]).map((weight) => digits(weight, 2)).join("  "))]);
      return el("li", {}, board, el("b", {}, percent(shares[c])));
    })));
  });
};
