// The pictures of the answer card, drawn from the data in the page.

const miniPictures = {
  // The first filters of the worst layer of each model, above the line that names it.
  flagged(tile, { filters }) {
    $$(".lines li", tile).forEach((line, i) => {
      const list = filters?.[i] ?? [], size = 22, gap = 3, [width, height] = tileSize(size);
      if (!list.length) return;
      const [board, context] = canvas(list.length * (width + gap) - gap, height, `First filters of the layer`);
      list.forEach((weights, k) => tileOf(context, weights, k * (width + gap), size));
      line.prepend(board);
    });
  },
  farthest: pairPicture,
  closest: pairPicture,
  // A line for each model at its median drift to the others, on a scale from 0.
  outlier(tile, { medians, typical }, node) {
    if (!medians) return;
    const strip = el("div");
    node.append(strip);
    mount(strip, (width) => {
      const most = medians.at(-1), x = linear(0, most || 1, 2, width - 2), base = 22;
      strip.replaceChildren(picture(width, base + 30, `Median drift of each model to the others, from 0 to ${digits(most, 2)}. A typical one: ${digits(typical, 2)}`,
        svg("line", { x1: 0, x2: width, y1: base, y2: base, class: "base" }),
        ...medians.map((value, k) => svg("line", { x1: x(value), x2: x(value), y1: k === medians.length - 1 ? 2 : 8, y2: base, class: k === medians.length - 1 ? "rod odd" : "rod" })),
        svg("text", { x: 1, y: base + 13, class: "tick" }, "0"),
        svg("text", { x: width - 1, y: base + 13, class: "tick end strong" }, `this model ${digits(most, 2)}`),
        svg("text", { x: width / 2, y: base + 27, class: "tick middle" }, "median D to the other models")));
    });
  },
  // How many pairs have which verdict.
  trust(tile, { words }, node) {
    if (!words?.length) return;
    const all = total(words.map(([, number]) => number)), verdictOf = (word) => core.verdicts.find((verdict) => verdict.word === word);
    node.append(
      el("div", { class: "share-bar", role: "img", "aria-label": words.map(([word, number]) => `${word}: ${count(number)}`).join("; ") }, ...words.map(([word, number]) => el("i", { class: `w-${verdictOf(word).symbol === "≈" ? "noise" : verdictOf(word).tone}`, style: { width: `${(100 * number) / all}%` } }))),
      el("ul", { class: "words" }, ...words.map(([word, number]) => el("li", {}, verdictMark(verdictOf(word)), ` ${count(number)}`))));
  },
};

// Draw one filter with integer weights of up to ±99.
function tileOf(context, weights, x, size) {
  tile(context, weights.map((weight) => weight / 99), 1, x, 0, size);
}

// The histograms of two groups in the component with the largest share of their drift, and the ruler.
function pairPicture(tile, data, node) {
  if (!data.p) return;
  const shape = el("div"), scale = el("div", { class: "ruler" });
  node.append(shape, scale);
  mount(shape, (width) => {
    const height = 62, base = height - 2, [low, high] = extent([data.p, data.q]);
    const x = linear(low, high, 1, width - 1), y = linear(0, Math.max(...data.p, ...data.q), base, 16);
    shape.replaceChildren(picture(width, height, `Distributions of component ${data.component}, ${percent(data.share)} of the drift`,
      svg("text", { x: 1, y: 11, class: "soft" }, `largest part of D: component c${data.component}, ${percent(data.share)}`),
      svg("path", { d: outline(data.p, low, high, x, y, base, true), class: "fill-a" }),
      svg("path", { d: outline(data.q, low, high, x, y, base, false), class: "line-b" }),
      svg("line", { x1: 1, x2: width - 1, y1: base, y2: base, class: "base" })));
  });
  ruler(scale, { ...data, how: FLOORS[data.judged][1], isSmall: true });
}

for (const tile of $$("[data-tile]")) miniPictures[tile.dataset.tile](tile, core.sections.summary[tile.dataset.tile], $(".mini", tile));
