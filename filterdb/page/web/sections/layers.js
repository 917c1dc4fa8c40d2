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
  const fromAddress = () => {
    const model = models.find((candidate) => core.models[candidate] === chosenState("tiles")) ?? models[0];
    bar.replaceChildren(select("Model", models.map((candidate) => [candidate, core.models[candidate]]), model, (value) => {
      keep(node, { tiles: Number(value) === models[0] ? "" : core.models[value] });
      show(value);
    }));
    show(model);
  };
  onState(["tiles"], fromAddress);
  node.replaceChildren(bar, body);
  fromAddress();
};

// Rules from the least to the most severe. A layer that breaks more of them comes first; layers that break equally many
// and none more severe are in the order of p, because noise has the largest.
const SEVERITY = ["sparse", "random", "collapsed", "dead"];
const severity = (kinds, p) => 10 * kinds.length + Math.max(0, ...kinds.map((kind) => 1 + SEVERITY.indexOf(kind))) + (p >= 0 ? 0.9 * p : 0);
const small = (value) => (value > 0 && value < 1e-3 ? "< 0.001" : digits(value));
const probability = (p) => (p < 1e-4 ? "< 0.0001" : digits(p, 2));

makers.layers = async (node) => {
  const data = await layers();
  const rows = range(data.n).map((i) => ({ i, kinds: data.kinds(i) }));
  for (const row of rows) row.severity = severity(row.kinds, data.p[row.i]);
  const name = (i) => core.models[data.model[i]];
  const texts = rows.map(({ i, kinds }) => `${name(i)} ${data.names[i]} ${kinds.join(" ")}`.toLowerCase());
  const number = (key, title, width, hint, show = digits) => ({ key, title, width, hint, kind: "number", value: ({ i }) => data[key][i], show });
  const table = bigTable(node, {
    name: "layers",
    first: "severity",
    rows,
    search: ({ i }) => texts[i],
    label: { search: "Search models, layers, verdicts", table: "Layers with their verdicts", rows: "layers" },
    filters: core.rules.map((rule) => [rule, rule, rows.filter((row) => row.kinds.includes(rule)).length]),
    columns: [
      { key: "model", title: "model", kind: "text", width: "minmax(96px, 1fr)", hint: "Sort by model", value: ({ i }) => name(i), show: (_, { i }) => modelLink(data.model[i], inRow) },
      { key: "layer", title: "layer", kind: "text", width: "minmax(96px, 1.2fr)", hint: "Sort by layer", value: ({ i }) => data.names[i] },
      { key: "severity", title: "verdict", kind: "verdict", width: "minmax(200px, 1fr)", hint: "Sort by severity: number and kind of verdicts, then p", value: (row) => row.severity, show: (_, row) => verdictCell(row.kinds) },
      number("filters", "filters", "76px", `${core.kernel.join("×")} filters`, count),
      number("depth", "depth", "58px", "0 for the first layer, 1 for the last"),
      number("sparsity", "S", "64px", "Sparsity: share of filters that are nearly zero", percent),
      number("entropy", "H", "64px", `Variance entropy: 0 for one component, ${digits(Math.log10(core.weights.length))} for all`, small),
      number("ratio", "H/T", "64px", "Entropy divided by the randomness threshold; empty for too few filters", small),
      number("p", "p", "76px", "Probability that isotropic noise departs from sphericity as far; empty for too few filters", probability),
    ],
  });
  node.table = table;
};
