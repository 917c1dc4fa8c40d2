// A ruler for D: a bar from 0 to the drift of a pair, the zone that chance alone explains, and drifts that readers know.

// What the noise of a pair comes from, by what it is judged by (an index in FLOORS of heatmap.js).
const NOISE = ["noise of sampling", "noise between models", "noise of sampling", "noise between layers"];

// The scale is a square root, as in the heatmap, so that noise and the largest drift are both seen.
function rulerScale(most, width) {
  const end = Math.sqrt(most) || 1;
  return (value) => (Math.sqrt(Math.max(0, value)) / end) * width;
}

// Draw into a node the drift of a pair on a scale from 0 to `largest`. `floor` is the drift that chance alone explains.
function ruler(node, { drift, floor, judged, largest, isSmall }) {
  mount(node, (width) => {
    const marks = core.reference, side = width - 2, top = 4, thick = isSmall ? 10 : 14;
    const most = 1.06 * Math.max(largest || 0, drift, floor || 0, ...marks.map(({ value }) => value));
    const x = rulerScale(most, side), y = top + thick;
    const hasNoise = floor !== null && Number.isFinite(floor);
    const named = [...(hasNoise ? [{ label: NOISE[judged ?? 0], value: floor, source: "chance alone explains as much in 95 % of cases" }] : []), ...marks];
    const rows = placed(named.map(({ label, value }) => ({ label: `${label} ${digits(value, 2)}`, at: 1 + x(value) })), width);
    const height = y + 10 + 13 * (1 + Math.max(0, ...rows.map(({ row }) => row)));
    const plot = picture(width, height, `D = ${digits(drift, 2)} on a ruler from 0 to ${digits(most, 2)}. ${named.map(({ label, value }) => `${label}: ${digits(value, 2)}`).join("; ")}`,
      svg("rect", { x: 1, y: top, width: side, height: thick, class: "track" }),
      svg("rect", { x: 1, y: top + 2, width: Math.max(1.5, x(drift)), height: thick - 4, class: "reach" }));
    if (hasNoise) plot.append(svg("rect", { x: 1, y: top, width: x(floor), height: thick, class: "noise" }));
    plot.append(...markLines(named, rows, x, top - 3, y), ...markTexts(named, rows, y));
    node.replaceChildren(plot);
  });
}

// Return labels with a row, so that none covers another, or the line of another. A label begins at its mark, or ends there
// if it would leave the picture. The rightmost one is in the first row, so that most lines to lower rows pass left of it.
function placed(labels, width) {
  const rows = [];
  for (const place of labels.map(({ label, at }) => ({ label, at, end: at + 6.1 * label.length > width })).sort((a, b) => b.at - a.at)) {
    const long = 6.1 * place.label.length, from = place.end ? place.at - long : place.at, to = from + long;
    let row = rows.findIndex((spans) => spans.every(([a, b]) => to + 6 < a || from - 6 > b));
    if (row < 0) row = rows.push([]) - 1;
    rows[row].push([from, to]);
    Object.assign(place, { row, left: place.at + (place.end ? -3 : 3) });
    labels.find(({ label, at }) => label === place.label && at === place.at).placed = place;
  }
  return labels.map((label) => label.placed);
}

// Return the drifts that readers know as marks below the colours of a heatmap, which end at `largest`.
function knownDrifts(largest, width) {
  const x = rulerScale(largest, width), marks = core.reference.filter(({ value }) => value <= largest);
  if (!marks.length) return null;
  const rows = placed(marks.map(({ label, value }) => ({ label: `${label} ${digits(value, 2)}`, at: 1 + x(value) })), width);
  return picture(width, 12 + 13 * (1 + Math.max(...rows.map(({ row }) => row))), marks.map(({ label, value }) => `${label}: ${digits(value, 2)}`).join("; "),
    ...markLines(marks, rows, x, 0, 3), ...markTexts(marks, rows, 3));
}

// Return the lines from the scale, whose edges are `top` and `base`, to the labels of marks.
const markLines = (marks, rows, x, top, base) => marks.map(({ label, value }, k) => svg("line", { x1: 1 + x(value), x2: 1 + x(value), y1: top, y2: base + 2 + 13 * rows[k].row, class: NOISE.includes(label) ? "mark-line noise-mark" : "mark-line" }));
// Return the labels themselves, which cover the lines behind them.
const markTexts = (marks, rows, base) => marks.map((mark, k) => hinted(svg("g", { class: "mark" }, svg("text", { x: rows[k].left, y: base + 11 + 13 * rows[k].row, class: rows[k].end ? "tick end" : "tick" }, rows[k].label)), () => [`${mark.label}: D = ${digits(mark.value, 2)}`, mark.source]));
