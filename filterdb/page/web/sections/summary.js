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
  // Drift to the other models, sorted: the odd one above a typical one.
  outlier(tile, { rows, largest }, node) {
    if (!rows) return;
    const strip = el("div");
    node.append(strip);
    const names = ["this model", "a typical one"];
    mount(strip, (width) => {
      const left = 84, high = 16, gap = 4, n = rows[0].length, cell = (width - left) / n;
      const plot = picture(width, 2 * high + gap + 18, `Drift to the other models, sorted. ${names.map((name, r) => `${name}: ${digits(rows[r][0], 2)} to ${digits(rows[r].at(-1), 2)}`).join("; ")}`);
      rows.forEach((values, r) => {
        plot.append(svg("text", { x: left - 8, y: r * (high + gap) + 12, class: "end soft" }, names[r]));
        values.forEach((value, k) => plot.append(hinted(svg("rect", { x: left + k * cell, y: r * (high + gap), width: Math.max(1, cell - 1), height: high, fill: css(colour(CIVIDIS, Math.sqrt(value / (largest || 1)))) }), () => [names[r], `D = ${digits(value, 2)} to one of the others`])));
      });
      const base = 2 * high + gap + 13;
      plot.append(svg("text", { x: left, y: base, class: "tick" }, "nearest"), svg("text", { x: width, y: base, class: "tick end" }, "farthest"));
      strip.replaceChildren(plot);
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
      svg("text", { x: 1, y: 11, class: "soft" }, `c${data.component}`), svg("text", { x: width - 1, y: 11, class: "end soft" }, `accounts for ${percent(data.share)} of D`),
      svg("path", { d: outline(data.p, low, high, x, y, base, true), class: "fill-a" }),
      svg("path", { d: outline(data.q, low, high, x, y, base, false), class: "line-b" }),
      svg("line", { x1: 1, x2: width - 1, y1: base, y2: base, class: "base" })));
  });
  ruler(scale, { ...data, isSmall: true });
}

for (const tile of $$("[data-tile]")) miniPictures[tile.dataset.tile](tile, core.sections.summary[tile.dataset.tile], $(".mini", tile));
