// The drift matrix: cells on a canvas, names and cursor above it. Arrow keys move; Enter or a click compares two groups.

// The floor behind a verdict, by the code of `judged_by`.
const FLOORS = {
  0: ["floor_q95", "filters resampled"],
  1: ["model_floor_q95", "models permuted"],
  2: ["floor_q95", "filters resampled"],
  3: ["layer_floor_q95", "layers swapped"],
};

function decoded(data) {
  if (data.matrix) return data;
  const names = ["drift", "floor_q95", "model_floor_q95", "layer_floor_q95", "low", "high", "q_value", "detectable", "units", "verdict", "judged", "standing", "probabilities", "counts", "few", "models"];
  for (const name of names) data[name] = unpack(data[name]);
  for (const name of Object.keys(data.clusters ?? {})) data.clusters[name] = unpack(data.clusters[name]);
  data.n = data.groups.length;
  data.matrix = (name, i, j) => (i === j || !data[name] ? NaN : data[name][triangle(i, j, data.n)]);
  data.histogram = (group, component) => data.probabilities.subarray((group * core.weights.length + component) * 70, (group * core.weights.length + component + 1) * 70);
  data.verdictOf = (i, j) => {
    const pair = triangle(i, j, data.n);
    return data.verdict && i !== j ? verdictAt(data.verdict[pair], data.judged[pair], data.standing?.[pair]) : null;
  };
  data.floorOf = (i, j) => {
    const judged = data.judged?.[triangle(i, j, data.n)] ?? 0, [name, how] = FLOORS[judged];
    return { value: data.matrix(name, i, j), how };
  };
  data.largest = data.drift.reduce((most, value) => (value > most ? value : most), 0) || 1;
  return data;
}

// Return the facts about a pair as lines of text.
function facts(data, i, j) {
  if (i === j) return [data.groups[i], `${count(data.counts[i])} filters`];
  const lines = [`${data.groups[i]} × ${data.groups[j]}`, `drift ${digits(data.matrix("drift", i, j))}`];
  const { value: floor, how } = data.floorOf(i, j);
  if (Number.isFinite(floor)) lines.push(`by chance up to ${digits(floor)} (${how})`);
  const low = data.matrix("low", i, j), high = data.matrix("high", i, j);
  if (Number.isFinite(low)) lines.push(`${Math.round(100 * data.level)} % interval ${digits(low)} … ${digits(high)}, noise subtracted`);
  else if (data.bounded && data.by !== "model") lines.push("no interval: too few effective units");
  const q = data.matrix("q_value", i, j), smallest = data.matrix("detectable", i, j);
  if (Number.isFinite(q)) lines.push(`q = ${digits(q)} over all pairs`);
  if (Number.isFinite(smallest)) lines.push(`a drift of ${digits(smallest)} would be found in 4 of 5 cases`);
  if (data.units && data.by !== "model") lines.push(`${count(data.units[i])} and ${count(data.units[j])} units of models`);
  const verdict = data.verdictOf(i, j);
  if (verdict) lines.push(`${verdict.symbol} ${verdict.word}: ${verdict.sentence}`);
  return lines;
}

function orders(data) {
  const options = [["drift", data.ordered ? "depth" : "mean drift"], ["name", "name"], ["size", "filters"]];
  if (data.clusters) options.splice(1, 0, ["clusters", "clusters"]);
  for (const key of Object.keys(data.labels ?? {})) options.push([`label:${key}`, words(key)]);
  return data.ordered ? options.filter(([key]) => key !== "name") : options;
}
function ordered(data, by) {
  const places = range(data.n), names = new Intl.Collator("en", { numeric: true });
  if (by === "name") return places.sort((a, b) => names.compare(data.groups[a], data.groups[b]));
  if (by === "size") return places.sort((a, b) => data.counts[b] - data.counts[a]);
  if (!by.startsWith("label:")) return places;
  const label = data.labels[by.slice(6)];
  return places.sort((a, b) => names.compare(label[a], label[b]) || a - b);
}

const LARGE_MATRIX = 14;

// `cut` is the number of clusters to separate, in the order "clusters".
function heatmap(node, data, { order, search, cut, pick }) {
  const wanted = search.toLowerCase();
  const label = order.startsWith("label:") ? data.labels[order.slice(6)] : null;
  const isWanted = (i) => !wanted || data.groups[i].toLowerCase().includes(wanted) || label?.[i].toLowerCase().includes(wanted);
  const tree = order === "clusters" ? clusterTree(data, isWanted) : null;
  const places = tree ? tree.leaves : ordered(data, order).filter(isWanted);
  const kinds = label ? places.map((i) => label[i]) : tree && cut ? cutTree(tree, cut) : [];
  const n = places.length;
  if (!n) { node.replaceChildren(el("p", { class: "none" }, "No group has this text in its name.")); return; }
  let at = [0, Math.min(1, n - 1)];
  mount(node, (width) => {
    const branches = tree && n > 1 ? Math.min(90, Math.max(34, width * 0.12)) : 0, room = Math.min(width, 900) - branches;
    const longest = Math.max(...places.map((i) => data.groups[i].length));
    const wantedLeft = Math.min(Math.max(60, longest * 6.4 + 10), room * 0.34, 210);
    const named = (room - wantedLeft) / n >= 10.5;
    const left = named ? wantedLeft : 0;
    const cell = Math.min((room - left) / n, 58), side = cell * n;
    const below = named ? Math.min(110, longest * 4.3 + 14) : 6;
    const [board, context] = canvas(side, side, `Drift by ${words(data.by)}: ${n} groups, ${digits(0)} to ${digits(data.largest)}`);
    paint(context, data, places, cell, side);
    const cursor = svg("rect", { class: "cursor", width: Math.max(cell, 4), height: Math.max(cell, 4), visibility: "hidden" });
    const over = svg("svg", { class: "over", width: left + side + branches, height: side + below, "aria-hidden": "true" });
    if (named) {
      const most = Math.floor((left - 10) / 6.1);
      places.forEach((i, k) => {
        const middle = cell * (k + 0.5);
        over.append(svg("text", { x: left - 7, y: middle + 4, class: "end" }, shown(data.groups[i], most)));
        over.append(svg("text", { class: "end", transform: `translate(${left + middle + 4},${side + 12}) rotate(-42)` }, shown(data.groups[i], Math.floor(below / 4.6))));
      });
    }
    if (cell >= 33) {
      places.forEach((i, a) => places.forEach((j, b) => {
        if (i === j) return;
        const value = data.matrix("drift", i, j);
        over.append(svg("text", { x: left + cell * (b + 0.5), y: cell * (a + 0.5) + 4, class: `value ${Math.sqrt(value / data.largest) > 0.48 ? "on-light" : "on-dark"}` }, digits(value, 2)));
      }));
    }
    let last = 0;
    for (const k of borders(kinds)) {
      const z = cell * k;
      // Skip lines that are too close: those of many small families would cover the cells.
      if (z - last < 5) continue;
      last = z;
      over.append(svg("line", { x1: left, x2: left + side, y1: z, y2: z, class: "border" }), svg("line", { x1: left + z, x2: left + z, y1: 0, y2: side, class: "border" }));
    }
    if (branches) over.append(dendrogram(tree, { x: left + side, width: branches, cell, number: cut }));
    over.append(svg("g", { transform: `translate(${left},0)` }, cursor));
    board.removeAttribute("role");
    board.style.left = `${left}px`;
    const frame = el("div", {
      class: "heat", tabindex: 0, role: "application", "aria-roledescription": "heatmap",
      "aria-label": `Drift by ${words(data.by)}, ${n} groups. Arrow keys move, Enter compares two groups.`,
      style: { width: `${left + side + branches}px`, height: `${side + below}px` },
    }, board, over);
    // Where there is no room for names, those of the row and the column are shown beside the pointer's cell.
    const tags = named ? null : ["row", "column"].map((kind) => frame.appendChild(el("span", { class: `tag ${kind}`, "aria-hidden": "true", hidden: true })));
    const move = (a, b, x, y) => {
      at = [a, b];
      if (tags) tag(tags, places.map((i) => data.groups[i]), at, cell, side);
      cursor.setAttribute("x", b * cell);
      cursor.setAttribute("y", a * cell);
      cursor.setAttribute("visibility", "visible");
      const lines = facts(data, places[a], places[b]);
      const place = () => {
        const box = frame.getBoundingClientRect();
        showTip(lines, box.left + left + (b + 1) * cell, box.top + (a + 1) * cell);
        tip.place = place;
      };
      if (x === undefined) place(); else showTip(lines, x, y);
      return lines;
    };
    const leave = () => {
      hideTip();
      cursor.setAttribute("visibility", "hidden");
      for (const node of tags ?? []) node.hidden = true;
    };
    const choose = () => { if (at[0] !== at[1]) pick(places[at[0]], places[at[1]]); };
    const under = (event) => {
      const box = board.getBoundingClientRect();
      const a = Math.floor((event.clientY - box.top) / cell), b = Math.floor((event.clientX - box.left) / cell);
      return a >= 0 && b >= 0 && a < n && b < n ? [a, b] : null;
    };
    frame.addEventListener("pointermove", (event) => { const cellThere = under(event); if (cellThere) move(...cellThere, event.clientX, event.clientY); else leave(); });
    onPointerLeave(frame, leave);
    frame.addEventListener("blur", leave);
    frame.addEventListener("focus", () => { if (frame.matches(":focus-visible")) say(move(...at).join(", ")); });
    frame.addEventListener("click", (event) => { const cellThere = under(event); if (cellThere) { at = cellThere; choose(); } });
    frame.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -n], End: [0, n] }[event.key];
      if (step) {
        event.preventDefault();
        say(move(Math.min(n - 1, Math.max(0, at[0] + step[0])), Math.min(n - 1, Math.max(0, at[1] + step[1]))).join(", "));
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose();
      }
    });
    // On paper, a small matrix stands beside the comparison; a large one above it.
    node.closest(".board")?.style.setProperty("--paper", Math.min(1, (n > LARGE_MATRIX ? 400 : 320) / (left + side + branches)).toFixed(3));
    node.replaceChildren(frame, legend(data, Math.min(room, 340), cell));
  });
}

// Show the names of a row and a column at the edges of a matrix: the row's at the left, the column's at the bottom.
function tag([row, column], names, [a, b], cell, side) {
  for (const [node, k] of [[row, a], [column, b]]) {
    node.textContent = shown(names[k], 40);
    node.hidden = false;
  }
  row.style.top = `${Math.min(side - row.offsetHeight, Math.max(0, cell * (a + 0.5) - row.offsetHeight / 2))}px`;
  column.style.left = `${Math.max(0, Math.min(side - column.offsetWidth, cell * (b + 0.5) - column.offsetWidth / 2))}px`;
  // The row's name goes to the other side when it would cover the cell.
  const isLeft = cell * b > row.offsetWidth + 8;
  row.style.left = isLeft ? "0px" : `${Math.max(0, side - row.offsetWidth)}px`;
  column.style.top = cell * a < side - column.offsetHeight - 8 ? `${side - column.offsetHeight}px` : "0px";
}

// Colour cells by the square root of their drift, hatch those that chance explains, and leave the diagonal empty.
function paint(context, data, places, cell, side) {
  const n = places.length;
  const small = cell < 4;
  const image = small ? new ImageData(n, n) : null;
  places.forEach((i, a) => places.forEach((j, b) => {
    if (i === j) return;
    const value = data.matrix("drift", i, j);
    const [red, green, blue] = Number.isFinite(value) ? colour(CIVIDIS, Math.sqrt(value / data.largest)) : [128, 128, 128];
    if (image) {
      image.data.set([red, green, blue, 255], 4 * (a * n + b));
      return;
    }
    context.fillStyle = css([red, green, blue]);
    context.fillRect(b * cell, a * cell, cell - (cell > 12 ? 1 : 0), cell - (cell > 12 ? 1 : 0));
    const verdict = data.verdictOf(i, j);
    if (cell >= 8 && verdict && verdict.tone !== "bad") hatch(context, b * cell, a * cell, cell, verdict.tone === "unknown");
    if (cell >= 33) { // no hatching behind the value
      context.fillStyle = css([red, green, blue]);
      context.fillRect(b * cell + 2, a * cell + cell / 2 - 8, cell - 5, 16);
    }
  }));
  if (!image) return;
  const plain = document.createElement("canvas");
  plain.width = plain.height = n;
  plain.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(plain, 0, 0, side, side);
}
function hatch(context, x, y, cell, isCrossed) {
  context.save();
  context.beginPath();
  context.rect(x, y, cell - 1, cell - 1);
  context.clip();
  context.strokeStyle = "rgba(255,255,255,.6)";
  context.lineWidth = 1;
  context.beginPath();
  for (let k = -cell; k < cell; k += 5) {
    context.moveTo(x + k, y + cell);
    context.lineTo(x + k + cell, y);
    if (isCrossed) { context.moveTo(x + k, y); context.lineTo(x + k + cell, y + cell); }
  }
  context.stroke();
  context.restore();
}
function legend(data, width, cell) {
  const [bar, context] = canvas(width, 12, "");
  bar.setAttribute("aria-hidden", "true");
  for (let x = 0; x < width; x++) { context.fillStyle = css(colour(CIVIDIS, x / width)); context.fillRect(x, 0, 1.5, 12); }
  const ticks = el("div", { class: "ticks", style: { width: `${width}px` } }, ...[0, 0.25, 0.5, 0.75, 1].map((t) => el("span", { style: { left: `${100 * t}%` } }, digits(t * t * data.largest, 2))));
  const words = new Map(core.verdicts.filter(({ tone }, k) => tone !== "bad" && data.verdict?.includes(k)).map((verdict) => [verdict.word, verdict]));
  const kinds = cell >= 8 ? [...words.values()] : [];
  const patterns = kinds.map((kind) => {
    const [swatch, inside] = canvas(22, 14, "");
    inside.fillStyle = css(colour(CIVIDIS, 0.3));
    inside.fillRect(0, 0, 22, 14);
    hatch(inside, 0, 0, 23, kind.tone === "unknown");
    return el("li", {}, swatch, `${kind.symbol} ${kind.word}`);
  });
  return el("div", { class: "legend" }, el("div", {}, el("span", { class: "soft" }, "drift D"), bar, ticks, knownDrifts(data.largest, width)), el("ul", { class: "keys" }, ...patterns));
}
