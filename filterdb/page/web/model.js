// The page of one model: its findings, its nearest models, its layers over the depth and in order.
// The part after # chooses the model, and after a slash the section: model.html#12/layers.

const SIGNS_OF = { good: "✓", warn: "!", bad: "✗", grey: "–" };
const body = $("#page");
let visit = new AbortController(); // of what is shown, or is loaded to be shown: the next visit ends it
const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
const nan = (value) => value ?? NaN;
const atLeast = (least) => (value) => (value > 0 && value < least ? `<${least}` : digits(value));

// Return the data of a model. A column of the layers that has one value for all of them is that value alone.
async function dataOf(place) {
  const data = core.pages?.[place] ?? await load(`models/${core.ids[place]}`), { layers } = data;
  for (const [key, values] of Object.entries(layers)) if (!Array.isArray(values)) layers[key] = layers.name.map(() => values);
  return data;
}

// Return a text whose parts between backticks are code.
const coded = (text) => text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));

// Return a table cell's content that shows the rules a layer breaks.
const flagCell = (kinds) => el("span", {}, ...(kinds.length ? kinds.flatMap((kind) => [el("span", { class: `mark m-${kind}`, "aria-hidden": "true" }), `${kind} `]) : ["–"]));

// Return a section with a heading, which the list of contents names.
const section = (id, title, ...children) => el("section", { id, "data-title": title }, el("h2", {}, title), ...children);
const card = (title, reading, ...children) => el("figure", {}, el("div", { class: "head" }, el("h3", {}, title)), reading ? el("p", {}, reading) : null, ...children);

// Show the first rows of a long list, and a button for all of them. Printing shows all.
function partly(list, items, most) {
  const draw = (all) => list.replaceChildren(...(all ? items : items.slice(0, most)).map((make) => make()));
  draw(false);
  if (items.length <= most) return null;
  const more = el("button", { type: "button", class: "more", onclick: () => { draw(true); more.remove(); } }, `All ${count(items.length)}`);
  addEventListener("beforeprint", () => draw(true), { signal: visit.signal });
  return more;
}

function health(data, find) {
  const cards = data.findings.map((finding) => {
    const list = el("ul", { class: "hits" }, ...finding.hits.map(([layer, message]) => el("li", {}, ...(layer === null ? [message] : [el("button", { type: "button", onclick: () => find(data.layers.name[layer] ?? "") }, data.layers.name[layer] ?? ""), ` ${message}`]))));
    const { layers } = finding, rest = layers - finding.hits.filter(([layer]) => layer !== null).length;
    return el("li", { class: `rule ${finding.tone}` },
      el("h3", {}, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS_OF[finding.tone]), finding.rule, layers ? el("span", { class: "soft" }, plural(layers, "layer")) : null),
      el("p", {}, finding.meaning), list, rest > 0 ? el("p", { class: "soft" }, `${plural(rest, "more layer")}: the table of layers has all.`) : null, el("p", {}, el("b", {}, "What to do: "), ...coded(finding.remedy)));
  });
  const { tone, text } = data.status;
  return section("findings", "Findings", el("ul", { class: "health" }, el("li", { class: `rule ${tone}` }, el("h3", {}, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS_OF[tone]), data.status.word), el("p", {}, text)), ...cards));
}

function nearest(data) {
  if (!data.nearest) return null;
  const { rows, note } = data.nearest;
  if (!rows.length) return section("nearest", "Nearest models", el("p", { class: "soft" }, note));
  const most = Math.max(...rows.flatMap((row) => [row.drift, row.noise ?? 0]), 1e-12);
  const heads = ["model", "verdict", "", "drift D", "noise", "excess"];
  const table = el("table", { class: "nearest" },
    el("thead", {}, el("tr", {}, ...heads.map((title, i) => (title ? el("th", { class: i > 2 ? "number" : null, scope: "col" }, title) : el("td", { class: "bar-of" }))))),
    el("tbody", {}, ...rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, row.id === null ? row.name : el("a", { href: row.id }, row.name), row.labels ? el("div", { class: "soft" }, row.labels) : null),
      el("td", {}, el("span", { title: verdictAt(...row.verdict).sentence }, verdictMark(verdictAt(...row.verdict)))),
      el("td", { class: "bar-of", "aria-hidden": "true" }, el("span", { class: "drift-bar" }, el("i", { style: { width: `${(100 * row.drift) / most}%` } }), row.noise === null ? null : el("u", { style: { left: `${Math.min(99.5, (100 * row.noise) / most)}%` } }))),
      ...[row.drift, row.noise, row.excess].map((value) => el("td", { class: "number" }, digits(value)))))));
  return section("nearest", "Nearest models", card("The models with the least drift beyond chance", `${note} The bar is the drift; the vertical line is the drift that chance alone explains in 95 % of cases. Excess is the drift minus its mean under chance.`, el("div", { class: "scroll" }, table)));
}

// Draw a measure of the layers over the depth, before the quantiles of the layers that they are compared with.
function depthChart(node, data, places, kernel, [key, title, most]) {
  const band = core.bands?.[kernel]?.[key];
  mount(node, (width) => {
    const height = 250, left = 40, bottom = height - 34;
    const x = linear(0, 1, left + 4, width - 8), y = linear(0, most, bottom, 22, 4);
    const plot = picture(width, height, `${title} of ${plural(places.length, "layer")} over the depth`);
    const areas = [];
    if (band) {
      const known = range(10).filter((k) => band[k]);
      const edge = (k, q) => [`${x(k / 10).toFixed(1)} ${y(Math.min(most, band[k][q])).toFixed(1)}`, `${x((k + 1) / 10).toFixed(1)} ${y(Math.min(most, band[k][q])).toFixed(1)}`];
      for (const [low, high, kind] of [[0, 4, "band"], [1, 3, "band inner"]]) for (const k of known) areas.push(svg("path", { d: `M${[...edge(k, low), ...edge(k, high).reverse()].join("L")}Z`, class: kind }));
      for (const k of known) areas.push(hinted(svg("path", { d: `M${edge(k, 2).join("L")}`, class: "median-line" }), () => [`depth ${k / 10} to ${(k + 1) / 10}`, `median ${title} ${digits(band[k][2])}`, `90 % of the layers: ${digits(band[k][0])} to ${digits(band[k][4])}`]));
    }
    axis(plot, x, 22, bottom, bottom + 18, "depth of the layer");
    upright(plot, y, left, width - 8, title);
    plot.append(...areas);
    for (const i of places) {
      const value = data.layers[key][i], depth = data.layers.depth[i];
      if (value === null || depth === null) continue;
      plot.append(hinted(svg("circle", { cx: x(depth), cy: y(Math.min(most, value)), r: data.layers.flags[i].length ? 5 : 3.5, class: `dot ${data.layers.flags[i].length ? "flagged" : "layer"}` }), () => [data.layers.name[i], `${title} ${digits(value)}`, `depth ${digits(depth)}`, ...(data.layers.flags[i].length ? [data.layers.flags[i].join(", ")] : [])]));
    }
    node.replaceChildren(plot);
  });
}

function overDepth(data) {
  const kernels = new Map();
  data.layers.kernel.forEach((kernel, i) => { if (kernel && data.layers.entropy[i] !== null) kernels.set(kernel, [...(kernels.get(kernel) ?? []), i]); });
  if (!kernels.size) return null;
  const sorted = [...kernels].sort((a, b) => (b[0] === "3×3") - (a[0] === "3×3") || b[1].length - a[1].length);
  const bar = el("div", { class: "bar" }), charts = el("div", { class: "two" }), note = el("p", { class: "soft" });
  const draw = (kernel) => {
    const places = kernels.get(kernel), sides = kernel.split("×").map(Number), nodes = [el("div"), el("div")];
    const most = Math.max(0.2, ...places.map((i) => 1.05 * (data.layers.sparsity[i] ?? 0)), ...(core.bands?.[kernel]?.sparsity ?? []).map((band) => 1.05 * (band?.[4] ?? 0)));
    charts.replaceChildren(...nodes);
    depthChart(nodes[0], data, places, kernel, ["entropy", "variance entropy H", Math.log10(sides[0] * sides[1])]);
    depthChart(nodes[1], data, places, kernel, ["sparsity", "sparsity S", Math.min(1, most)]);
    const unknown = places.filter((i) => data.layers.depth[i] === null).length;
    note.textContent = [core.bands?.[kernel] ? "" : `There are no ${kernel} layers to compare with in ${core.corpus}.`, unknown ? `Not drawn: ${plural(unknown, "layer")} of unknown depth, because the file has no graph.` : ""].filter(Boolean).join(" ");
    note.hidden = !note.textContent;
    for (const key of bandKeys) key.hidden = !core.bands?.[kernel];
  };
  if (sorted.length > 1) bar.append(choices("Kernel", sorted.map(([kernel, places]) => [kernel, `${kernel} ${count(places.length)}`]), sorted[0][0], draw)); else bar.hidden = true;
  const bandKeys = [el("li", { class: "k-median" }, "median of the others’ layers"), el("li", { class: "k-inner" }, "their middle half"), el("li", { class: "k-band" }, "90 % of them")];
  const keys = el("ul", { class: "keys" }, el("li", { class: "k-own" }, "layer of this model"), el("li", { class: "k-flagged" }, "with a verdict"), ...bandKeys);
  draw(sorted[0][0]);
  return section("depth", "Over the depth", card("Entropy and sparsity against other models", `High entropy: the layer uses all directions, as untrained weights do; near 0: it uses only one. Sparsity is the share of filters that are nearly zero. The bands are the layers of ${core.corpus} in the same tenth of the depth.`, bar, charts, keys, note));
}

// Draw the first filters of a layer side by side.
function strip(data, i) {
  const place = data.tiles?.at.indexOf(i) ?? -1;
  if (place < 0) return "–";
  data.tiles.unpacked ??= unpack(data.tiles.weights);
  const kernel = data.layers.kernel[i].split("×").map(Number), weights = kernel[0] * kernel[1], size = 24, gap = 3;
  const start = total(data.tiles.at.slice(0, place).map((at, k) => data.tiles.number[k] * weightsOf(data, at)));
  const [width, height] = tileSize(size, kernel), shownFilters = Math.min(data.tiles.number[place], Math.max(1, Math.floor(111 / (width + gap))));
  const [board, context] = canvas(shownFilters * (width + gap), height, `The first ${shownFilters} filters of ${data.layers.name[i]}`);
  for (const k of range(shownFilters)) tile(context, [...data.tiles.unpacked.subarray(start + k * weights, start + (k + 1) * weights)].map((weight) => weight / 127), 1, k * (width + gap), 0, size, kernel);
  return board;
}
const weightsOf = (data, i) => { const [rows, columns] = data.layers.kernel[i].split("×").map(Number); return rows * columns; };

function layerTable(data) {
  const { layers } = data;
  const n = layers.name.length, node = el("div");
  if (!n) return [null, () => {}];
  const rows = range(n).map((i) => ({ i, kinds: layers.flags[i] }));
  const texts = rows.map(({ i, kinds }) => `${layers.name[i]} ${layers.kernel[i]} ${kinds.join(" ")}`.toLowerCase());
  const numeric = (key, title, width, hint, show = digits) => (layers[key].every((value) => value === null) ? null : { title, kind: "number", width, hint, value: ({ i }) => nan(layers[key][i]), show: (value) => (Number.isNaN(value) ? "–" : show(value)) });
  const textual = (title, width, hint, value) => ({ title, kind: "text", width, hint, value });
  const kinds = [...new Set(rows.flatMap((row) => row.kinds))];
  const channels = ({ i }) => (layers.out[i] === null ? "–" : `${layers.in[i] * Math.max(1, layers.groups[i])} → ${layers.out[i]}`);
  const table = bigTable(node, {
    rows, height: 560, signal: visit.signal, search: ({ i }) => texts[i],
    label: { search: "Search layers, kernels, verdicts", table: "Layers of this model in order", rows: n === 1 ? "layer" : "layers" },
    filters: kinds.map((kind) => [kind, kind, rows.filter((row) => row.kinds.includes(kind)).length]),
    columns: [
      { title: "#", kind: "number", width: "30px", hint: "Order of execution", value: ({ i }) => i + 1, show: count },
      textual("layer", "minmax(96px, 1.4fr)", "Sort by name", ({ i }) => layers.name[i]),
      { title: "verdict", kind: "verdict", width: "minmax(92px, .4fr)", hint: "Sort by number of verdicts", value: (row) => row.kinds.length, show: (_, row) => flagCell(row.kinds) },
      data.tiles ? { title: "first filters", kind: "picture", width: "108px", hint: "Orange is negative, purple positive; every layer on its own scale", value: ({ i }) => i, show: (_, { i }) => strip(data, i) } : null,
      textual("kernel", "48px", "Rows × columns", ({ i }) => layers.kernel[i] || "–"),
      textual("channels", "84px", "Input → output channels", channels),
      textual("stride", "40px", "Stride", ({ i }) => layers.strides[i] || "–"),
      numeric("groups", "groups", "48px", "Groups of the convolution; as many as input channels: depthwise", (value) => (value ? count(value) : "–")),
      numeric("filters", "filters", "64px", "Filters: output channels × input channels of a group", count),
      numeric("sparsity", "S", "50px", "Sparsity: share of filters that are nearly zero", percent),
      numeric("entropy", "H", "52px", "Variance entropy: 0 for one direction, log₁₀ of the number of weights for all", atLeast(1e-3)),
      numeric("percentile", "rank", "42px", `Percentile of H among the layers of ${core.corpus} of similar size and depth`, (value) => `${value.toFixed(0)} %`),
      numeric("ratio", "H/T", "46px", "Entropy divided by the randomness threshold"),
      numeric("p", "p", "64px", "Probability that isotropic noise departs from sphericity as far", atLeast(1e-4)),
    ].filter(Boolean),
  });
  const reading = [data.tiles ? "The pictures are the first filters of each layer: orange is negative and purple positive, every layer on its own scale. Grainy rows look like noise; rows that repeat one picture have collapsed." : core.untiled, layers.percentile.some((value) => value !== null) ? `Rank is the percentile of H among the layers of similar size and depth of ${core.corpus}.` : ""].filter(Boolean).join(" ");
  return [section("layers", "Layers", card("Every layer in order", reading, node)), table.search];
}

function leftOut(data) {
  if (!data.skipped.length) return null;
  const number = total(data.skipped.map((row) => row.count)), unread = total(data.skipped.filter((row) => row.unread).map((row) => row.count));
  const cards = data.skipped.map((row) => {
    const named = row.layers.slice(0, 8).map((name) => name || "the whole file").join(", "), rest = row.layers.slice(8);
    const names = el("p", { class: "soft" }, named);
    const more = rest.length ? el("button", { type: "button", class: "more", onclick: () => { names.textContent = row.layers.join(", "); more.remove(); } }, `${count(row.count - 8)} more`) : null;
    return el("li", { class: `rule ${row.unread ? "bad" : "grey"}` }, el("h3", {}, row.unread ? el("span", { class: "sign", "aria-hidden": "true" }, SIGNS_OF.bad) : null, row.unread ? `not read: ${row.code}` : row.code, el("span", { class: "soft" }, count(row.count))), el("p", {}, row.meaning), row.reason ? el("p", {}, row.reason) : null, names, more);
  });
  const what = unread ? `${plural(unread, "convolution")} should have been measured but could not be read. ` : "";
  return section("left-out", "Not measured", el("p", {}, `${plural(number, "convolution")} ${number === 1 ? "was" : "were"} not measured. ${what}${number === 1 ? "It" : "Any of them"} may still be broken.`), el("ul", { class: "health" }, ...cards));
}

// Return the links to the list of models, to the models before and after this one, and the choice of another.
function crumbs(place) {
  const link = (other, text) => (other in core.models ? el("a", { href: `#${core.ids[other]}`, title: core.models[other] }, text) : el("span", { class: "gone" }, text));
  const several = core.models.length > 1;
  return el("nav", { class: "crumbs", "aria-label": "Models" },
    core.back ? el("a", { href: core.back.href }, core.back.text) : null,
    several && place !== null ? el("a", { href: "#" }, core.many) : null,
    several && place !== null ? link(place - 1, "← previous") : null,
    several && place !== null ? link(place + 1, "next →") : null,
    several && place !== null ? select("Go to", core.models.map((name, i) => [i, name]), place, (value) => { location.hash = core.ids[value]; }) : null);
}

function contents(sections, id) {
  const links = sections.map((part) => el("li", {}, el("a", { href: `#${id}/${part.id}` }, part.dataset.title)));
  return el("nav", { id: "toc", "aria-label": "Contents" }, el("details", { open: matchMedia("(min-width: 66rem)").matches }, el("summary", {}, "On this page"), el("ul", {}, ...links)));
}

const footer = () => el("footer", {}, el("p", {}, core.made));

function showModel(data, place) {
  const id = core.ids[place];
  document.title = `${core.models[place]} · filterdb`;
  let search = () => {};
  const [table, find] = layerTable(data);
  search = (name) => { find(name); table.scrollIntoView(); };
  const sections = [health(data, (name) => search(name)), nearest(data), overDepth(data), table, leftOut(data)].filter(Boolean);
  const head = el("header", { class: "top" }, crumbs(place), el("h1", { tabindex: -1 }, core.models[place]),
    el("dl", { class: "facts" }, ...data.facts.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value)))),
    data.kernels?.length > 1 ? el("nav", { class: "kernels", "aria-label": "Kernel shapes" }, el("span", {}, "Filters of shape"), ...data.kernels.map(([name, href]) => el("a", { href: href ?? `#${id}`, "aria-current": href === null ? "page" : null }, name))) : null,
    el("ul", { class: "numbers" }, ...data.numbers.map(([value, name]) => el("li", {}, el("b", {}, value), name))));
  body.replaceChildren(head, contents(sections, id), el("main", {}, ...sections), footer());
}

// Show the list of models with the status of each.
function showList() {
  document.title = `${core.title} · filterdb`;
  const tones = core.models.map((_, i) => core.tones[i]);
  const list = el("tbody");
  const more = partly(list, core.models.map((name, i) => () => el("tr", {}, el("th", { scope: "row" }, el("a", { href: `#${core.ids[i]}` }, name)), el("td", { class: tones[i] }, el("span", { "aria-hidden": "true" }, `${SIGNS_OF[tones[i]]} `), core.words[i]), el("td", { class: "number" }, count(core.layers[i])))), 200);
  const table = el("table", { class: "overview" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, core.noun), el("th", { scope: "col" }, "status"), el("th", { class: "number", scope: "col" }, "layers"))), list);
  body.replaceChildren(el("header", { class: "top" }, crumbs(null), el("h1", { tabindex: -1 }, core.title), core.about ? el("p", { class: "soft" }, core.about) : null), el("main", {}, el("section", { id: "list" }, card(plural(core.models.length, core.noun), null, el("div", { class: "scroll" }, table), more))), footer());
}

// Return the id of the model and of the section in the address. Anyone can write an address, also one without meaning.
function addressed() {
  const fragment = location.hash.slice(1);
  try { return decodeURIComponent(fragment).split("/"); } catch { return [fragment]; }
}

let current = null;
async function follow() {
  const [id] = addressed();
  const place = id === "" && core.models.length === 1 ? 0 : core.ids.findIndex((known) => String(known) === id);
  if (place !== current) {
    const isFirst = current === null;
    current = place;
    visit.abort();
    const { signal } = (visit = new AbortController());
    hideTip();
    try {
      const data = place < 0 ? null : await dataOf(place);
      if (signal.aborted) return; // the reader went on while the data came
      if (data) showModel(data, place); else showList();
      if (!isFirst) { scrollTo(0, 0); $("h1").focus({ preventScroll: true }); }
    } catch (error) {
      if (signal.aborted) return;
      body.replaceChildren(el("main", {}, el("p", { class: "none" }, `Not shown: ${error.message}`)));
    }
  }
  const [, part] = addressed();
  if (part) document.getElementById(part)?.scrollIntoView();
  document.documentElement.dataset.ready = "true";
}
addEventListener("hashchange", follow);
follow();
