// D beside drifts that readers know: as bars in the heatmap's panel and the answer card, as marks below the heatmap's colours.

// Draw into a node a bar for the drift of a pair, for what chance alone explains (`floor`) and for known drifts, the smallest first.
function ruler(node, { drift, floor, how, isSmall }) {
  mount(node, (width) => {
    const known = core.reference.map((mark) => ({ ...mark, kind: "known" }));
    const noise = floor !== null && Number.isFinite(floor) ? [{ label: `chance (${how})`, value: floor, source: "at most as much in 95 % of cases", kind: "noise" }] : [];
    const bars = [{ label: "this pair", value: drift, kind: "reach" }, ...noise, ...known].sort((a, b) => a.value - b.value);
    const step = isSmall ? 16 : 18, left = 8 + 6.4 * Math.max(...bars.map(({ label }) => label.length)), right = width - 44;
    const x = linear(0, Math.max(...bars.map(({ value }) => value), 1e-9), left, Math.max(left + 8, right));
    const plot = picture(width, step * bars.length + 2, `D = ${digits(drift, 2)} beside known drifts. ${bars.map(({ label, value }) => `${label}: ${digits(value, 2)}`).join("; ")}`);
    bars.forEach(({ label, value, source, kind }, k) => {
      const y = k * step, text = kind === "reach" ? " strong" : "";
      plot.append(hinted(svg("g", { class: "gauge" },
        svg("rect", { x: 0, y, width, height: step, class: "ground" }),
        svg("text", { x: left - 8, y: y + step - 4, class: `tick end${text}` }, label),
        svg("rect", { x: left, y: y + 3, width: Math.max(1.5, x(value) - left), height: step - 6, class: kind }),
        svg("text", { x: Math.max(left + 1.5, x(value)) + 5, y: y + step - 4, class: `tick${text}` }, digits(value, 2))), () => [`${label}: D = ${digits(value, 2)}`, ...(source ? [source] : [])]));
    });
    node.replaceChildren(plot);
  });
}

// The colours' scale is a square root, so that noise and the largest drift are both seen.
function rulerScale(most, width) {
  const end = Math.sqrt(most) || 1;
  return (value) => (Math.sqrt(Math.max(0, value)) / end) * width;
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
const markLines = (marks, rows, x, top, base) => marks.map(({ value }, k) => svg("line", { x1: 1 + x(value), x2: 1 + x(value), y1: top, y2: base + 2 + 13 * rows[k].row, class: "mark-line" }));
// Return the labels themselves, which cover the lines behind them.
const markTexts = (marks, rows, base) => marks.map((mark, k) => hinted(svg("g", { class: "mark" }, svg("text", { x: rows[k].left, y: base + 11 + 13 * rows[k].row, class: rows[k].end ? "tick end" : "tick" }, rows[k].label)), () => [`${mark.label}: D = ${digits(mark.value, 2)}`, mark.source]));
