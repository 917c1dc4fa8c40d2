// Charts that several figures use. Each draws into a node and draws again when the node's width changes.

// Horizontal boxes: quartiles, whiskers, outliers, mean. Rows: {label, number, low, q1, median, q3, high, mean, outliers}.
function boxes(node, rows, { label, unit, pick }) {
  mount(node, (width) => {
    const left = Math.min(190, Math.max(64, 7 * Math.max(...rows.map((row) => row.label.length)) + 12), width * 0.36);
    const top = 4, step = 28, height = top + step * rows.length + 34, right = width - 12;
    const ends = rows.flatMap((row) => [row.low, row.high, ...row.outliers]).filter((value) => value > 0);
    const isLog = rows.every((row) => row.low > 0);
    const x = isLog ? logarithmic(Math.min(...ends) * 0.9, Math.max(...ends) * 1.1, left, right) : linear(0, Math.max(...ends, 1e-9), left, right);
    const plot = picture(width, height, `${label}. ${rows.map((row) => `${row.label}: median ${digits(row.median)}`).join("; ")}`);
    axis(plot, x, top, height - 30, height - 14, unit);
    rows.forEach((row, i) => {
      const y = top + step * (i + 0.5);
      const line = svg("g", { class: pick ? "row pick" : "row" },
        svg("rect", { x: 0, y: y - step / 2, width, height: step, class: "ground" }),
        svg("text", { x: left - 10, y: y + 4, class: "end" }, shown(row.label, Math.floor((left - 8) / 6.6))),
        svg("line", { x1: x(row.low), x2: x(row.high), y1: y, y2: y, class: "whisker" }),
        ...[row.low, row.high].map((end) => svg("line", { x1: x(end), x2: x(end), y1: y - 5, y2: y + 5, class: "whisker" })),
        svg("rect", { x: x(row.q1), y: y - 8, width: Math.max(1, x(row.q3) - x(row.q1)), height: 16, rx: 2, class: "box" }),
        svg("line", { x1: x(row.median), x2: x(row.median), y1: y - 8, y2: y + 8, class: "median" }),
        ...row.outliers.map((value) => svg("circle", { cx: x(value), cy: y, r: 1.6, class: "outlier" })),
        svg("path", { d: `M${x(row.mean)} ${y - 4}l4 4l-4 4l-4 -4z`, class: "mean" }));
      hinted(line, () => [row.label, `median ${digits(row.median)}, mean ${digits(row.mean)}`, `middle half ${digits(row.q1)} … ${digits(row.q3)}`, `${count(row.number)} ${row.number === 1 ? "pair" : "pairs"}`]);
      if (pick) line.addEventListener("click", () => pick(row));
      plot.append(line);
    });
    node.replaceChildren(plot);
  });
}

// Draw vertical grid lines with tick labels, and the name of the axis.
function axis(plot, x, top, bottom, base, unit) {
  for (const tick of x.ticks) plot.append(svg("line", { x1: x(tick), x2: x(tick), y1: top, y2: bottom, class: "grid" }), svg("text", { x: x(tick), y: bottom + 13, class: "middle tick" }, digits(tick, 2)));
  const ends = [x.ticks[0] ?? 0, x.ticks.at(-1) ?? 0], half = unit.length * 3.1;
  // The name is in the middle of the axis, but inside the picture: on a phone it may be longer than the axis.
  const middle = Math.max(half, Math.min((x(ends[0]) + x(ends[1])) / 2, plot.viewBox.baseVal.width - half));
  plot.append(svg("text", { x: middle, y: base + 12, class: "middle unit" }, unit));
}
function upright(plot, y, left, right, unit) {
  for (const tick of y.ticks) plot.append(svg("line", { x1: left, x2: right, y1: y(tick), y2: y(tick), class: "grid" }), svg("text", { x: left - 6, y: y(tick) + 4, class: "end tick" }, digits(tick, 2)));
  plot.append(svg("text", { x: left, y: 11, class: "unit" }, unit));
}

// Return the range of bins with nearly all of the mass of some histograms: the first bin, and the one after the last.
function extent(lists) {
  const bins = lists[0].length, mass = range(bins).map((b) => total(lists.map((histogram) => histogram[b])));
  const all = total(mass);
  let low = 0, high = bins - 1;
  for (let sum = mass[0]; sum < 5e-4 * all; sum += mass[++low]);
  for (let sum = mass[high]; sum < 5e-4 * all; sum += mass[--high]);
  return [Math.max(0, low - 1), Math.min(bins, high + 2)];
}

// Return the outline of a histogram over bins [first, last) as an SVG path, closed along the base line on request.
function outline(p, first, last, x, y, base, closed) {
  let d = `M${x(first).toFixed(1)} ${(closed ? base : y(p[first])).toFixed(1)}`;
  for (let b = first; b < last; b++) d += `L${x(b).toFixed(1)} ${y(p[b]).toFixed(1)}L${x(b + 1).toFixed(1)} ${y(p[b]).toFixed(1)}`;
  return closed ? `${d}L${x(last).toFixed(1)} ${base}Z` : d;
}

// Draw several lines, each with its own points and a thin line `floor`. Series: {label, xs, values, floor, names}.
function lines(node, series, { xlabel, ylabel, label }) {
  mount(node, (width) => {
    const left = 46, right = width - 10, height = Math.min(320, Math.max(220, width * 0.45)), bottom = height - 34;
    const xs = series.flatMap((line) => line.xs), values = series.flatMap((line) => [...line.values, ...line.floor]).filter(Number.isFinite);
    const y = linear(0, Math.max(...values, 1e-9), bottom, 22, 4), x = linear(Math.min(...xs), Math.max(...xs), left + 8, right - 8, Math.min(10, width / 60));
    const plot = picture(width, height, `${label}. ${series.map((line) => `${line.label}: from ${digits(line.values[0])} to ${digits(line.values.at(-1))}`).join("; ")}`);
    axis(plot, x, 22, bottom, bottom + 18, xlabel);
    upright(plot, y, left, right, ylabel);
    series.forEach((line, s) => {
      const path = (ys) => ys.map((value, i) => (Number.isFinite(value) ? `${x(line.xs[i]).toFixed(1)} ${y(value).toFixed(1)}` : null)).filter(Boolean).join("L");
      plot.append(svg("path", { d: `M${path(line.values)}`, class: `line s${s % 7}` }));
      if (path(line.floor)) plot.append(svg("path", { d: `M${path(line.floor)}`, class: `line thin s${s % 7}` }));
      line.values.forEach((value, i) => plot.append(hinted(svg("circle", { cx: x(line.xs[i]), cy: y(value), r: 4, class: `dot s${s % 7}` }), () => [line.names[i], `${xlabel} ${digits(line.xs[i])}`, `${ylabel} ${digits(value)}`, `by chance up to ${digits(line.floor[i])}`])));
    });
    node.replaceChildren(plot, el("ul", { class: "keys" }, ...series.map((line, s) => el("li", { class: `s${s % 7}` }, line.label))));
  });
}

// Return width and height of a filter's picture whose longer side has this size. Rows of many weights stay visible.
function tileSize(size, kernel = core.kernel) {
  const [rows, columns] = kernel, cell = size / Math.max(rows, columns);
  return [Math.max(columns * cell, 5), Math.max(rows * cell, 5)];
}

// Draw the weights of a filter as a picture whose longer side has this size.
function tile(context, weights, limit, x, y, size, kernel = core.kernel) {
  const [rows, columns] = kernel, [width, height] = tileSize(size, kernel), across = width / columns, down = height / rows;
  weights.forEach((weight, k) => {
    context.fillStyle = css(colour(SIGNS, 0.5 + weight / (2 * (limit || 1))));
    context.fillRect(x + (k % columns) * across, y + Math.floor(k / columns) * down, across + 0.3, down + 0.3);
  });
}
