makers.tiles = async (node) => {
  const data = await load("tiles");
  const weights = unpack(data.weights), bar = el("div", { class: "bar" }), body = el("div");
  const models = [...new Set(data.model)];
  const show = (model) => {
    const places = range(data.model.length).filter((i) => data.model[i] === Number(model));
    body.replaceChildren(el("ol", { class: "tiles" }, ...places.map((i) => {
      const size = 26, gap = 4, number = data.number[i], [width, height] = tileSize(size);
      const [board, context] = canvas(number * (width + gap), height, `The first ${number} filters of ${data.layer[i]}`);
      for (let k = 0; k < number; k++) tile(context, [...weights.subarray((i * data.most + k) * core.weights.length, (i * data.most + k + 1) * core.weights.length)].map((weight) => weight / 127), 1, k * (width + gap), 0, size);
      return el("li", {}, el("span", { title: data.layer[i] }, shown(data.layer[i], 40)), board);
    })));
  };
  bar.append(select("Model", models.map((model) => [model, core.models[model]]), models[0], show));
  node.replaceChildren(bar, body);
  show(models[0]);
};

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
      { title: "model", kind: "text", width: "minmax(120px, 1.1fr)", hint: "Sort by model", value: ({ i }) => name(i), show: (_, { i }) => modelLink(data.model[i], inRow) },
      { title: "layer", kind: "text", width: "minmax(130px, 1.5fr)", hint: "Sort by layer", value: ({ i }) => data.names[i] },
      number("filters", "filters", "76px", `${core.kernel.join("×")} filters`, count),
      number("depth", "depth", "58px", "0 for the first layer, 1 for the last"),
      number("sparsity", "S", "64px", "Sparsity: share of filters that are nearly zero", percent),
      number("entropy", "H", "58px", `Variance entropy: 0 for one component, ${digits(Math.log10(core.weights.length))} for all`),
      number("ratio", "H/T", "58px", "Entropy divided by the randomness threshold; empty for too few filters"),
      number("p", "p", "64px", "Probability that isotropic noise departs from sphericity as far; empty for too few filters"),
      { title: "verdict", kind: "verdict", width: "minmax(130px, .9fr)", hint: "Sort by verdict", value: (row) => row.kinds.join(" ") || "\uffff", show: (_, row) => verdictCell(row.kinds) },
    ],
  });
  node.table = table;
};
