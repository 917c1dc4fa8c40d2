makers.ridges = (node) => {
  let show = () => {};
  onState(["ridges"], () => show());
  return grouped(node, (body, data, bar) => {
    const few = 12, many = Math.min(80, data.n), choice = el("span");
    bar.append(choice);
    show = () => {
      const isAll = chosenState("ridges") === "all";
      if (data.n > few) choice.replaceChildren(select("Show", [["", `the ${few} largest`], ["all", many < data.n ? `the ${many} largest` : `all ${many}`]], isAll ? "all" : "", (value) => { keep(node, { ridges: value }); show(); $("select", choice).focus(); }));
      ridges(body, data, isAll ? many : few);
    };
    show();
  });
};

// Draw the distributions of the `most` largest groups, a picture for each component.
function ridges(body, data, most) {
  const largest = new Set(range(data.n).sort((a, b) => data.counts[b] - data.counts[a]).slice(0, most));
  const places = range(data.n).filter((i) => largest.has(i));
  const grid = el("div", { class: "ridges" });
  body.replaceChildren(grid);
  mount(grid, (whole) => {
    const columns = whole > 860 ? 3 : whole > 560 ? 2 : 1, width = (whole - 18 * (columns - 1)) / columns;
    const step = 21, height = step * places.length + 46, left = Math.min(132, width * 0.34);
    const [low, high] = extent(places.flatMap((i) => range(core.leading).map((c) => data.histogram(i, c))));
    const x = linear(low, high, left, width - 4), value = linear(core.edges[low], core.edges[high], left, width - 4, 4);
    grid.style.setProperty("grid-template-columns", `repeat(${columns}, 1fr)`);
    grid.replaceChildren(...range(core.leading).map((c) => {
      const top = Math.max(...places.map((i) => Math.max(...data.histogram(i, c))));
      const plot = picture(width, height, `Distributions of coefficient ${c} for ${places.length} groups by ${words(data.by)}`,
        svg("text", { x: 0, y: 12, class: "strong" }, `c${c}`), svg("text", { x: 24, y: 12, class: "soft" }, `${percent(core.weights[c])} of the variance`));
      for (const tick of value.ticks) plot.append(svg("line", { x1: value(tick), x2: value(tick), y1: 20, y2: height - 16, class: "grid" }), svg("text", { x: value(tick), y: height - 3, class: "middle tick" }, digits(tick, 2)));
      places.forEach((i, row) => {
        const base = 20 + step * (row + 1), p = data.histogram(i, c);
        const y = (density) => base - (1.5 * step * density) / top;
        plot.append(hinted(svg("g", { class: "ridge" }, svg("path", { d: outline(p, low, high, x, y, base, true) }), svg("text", { x: left - 6, y: base - 2, class: "end" }, shown(data.groups[i], Math.floor((left - 6) / 6.2)))), () => [data.groups[i], `c${c}, ${count(data.counts[i])} filters`]));
      });
      return plot;
    }));
  });
}

makers.planes = async (node) => {
  const data = await load("planes");
  const shades = unpack(data.shades), wish = [0, 1], keys = ["right", "up"], bar = el("div", { class: "bar" }), body = el("div");
  const inks = range(256).map((shade) => colour(CIVIDIS, shade / 255));
  const draw = () => {
    const [first, second] = wish[0] < wish[1] ? wish : [wish[1], wish[0]];
    const pair = data.pairs.findIndex(([a, b]) => a === first && b === second), bins = data.bins;
    body.replaceChildren();
    const grid = el("div", { class: "planes" });
    body.append(grid);
    mount(grid, (width) => {
      const columns = Math.max(2, Math.min(5, Math.floor(width / 165))), size = Math.floor((width - 16 * (columns - 1)) / columns);
      grid.style.setProperty("grid-template-columns", `repeat(${columns}, minmax(0, 1fr))`);
      grid.replaceChildren(...data.groups.map((label, g) => {
        const image = new ImageData(bins, bins), start = (g * data.pairs.length + pair) * bins * bins;
        // The first component goes right, the second up. Shades are [first][second]; swap them if the choice is the other way round.
        for (let a = 0; a < bins; a++) {
          for (let b = 0; b < bins; b++) {
            const [x, y] = wish[0] < wish[1] ? [a, b] : [b, a];
            image.data.set([...inks[shades[start + a * bins + b]], 255], 4 * ((bins - 1 - y) * bins + x));
          }
        }
        const small = document.createElement("canvas");
        small.width = small.height = bins;
        small.getContext("2d").putImageData(image, 0, 0);
        const [board, context] = canvas(size, size, `${label}: c${wish[0]} against c${wish[1]}, ${data.kinds[g][pair]}`);
        context.imageSmoothingEnabled = false;
        context.drawImage(small, 0, 0, size, size);
        const value = (t) => data.edges[0] + t * (data.edges[1] - data.edges[0]);
        board.addEventListener("pointermove", (event) => {
          const box = board.getBoundingClientRect();
          showTip([label, `c${wish[0]} ${digits(value((event.clientX - box.left) / size), 2)}`, `c${wish[1]} ${digits(value(1 - (event.clientY - box.top) / size), 2)}`], event.clientX, event.clientY);
        });
        onPointerLeave(board, hideTip);
        return el("div", {}, el("h4", { title: label }, shown(label, Math.floor(size / 8))), board, el("p", { class: "kind" }, data.kinds[g][pair]));
      }));
    });
  };
  const choose = (place) => select(place ? "y axis" : "x axis", range(core.leading).map((c) => [c, `c${c}`]), wish[place], (value) => {
    if (Number(value) === wish[1 - place]) wish[1 - place] = wish[place];
    wish[place] = Number(value);
    const isFirst = wish[0] === 0 && wish[1] === 1;
    keep(node, { right: isFirst ? "" : String(wish[0]), up: isFirst ? "" : String(wish[1]) });
    controls();
    $$("select", bar)[place].focus();
    draw();
  });
  const controls = () => bar.replaceChildren(choose(0), choose(1));
  const fromAddress = () => {
    const chosen = keys.map((key) => (/^\d+$/.test(chosenState(key)) ? Number(chosenState(key)) : NaN));
    const isOffered = chosen.every((c) => c < core.leading) && chosen[0] !== chosen[1];
    wish.splice(0, 2, ...(isOffered ? chosen : [0, 1]));
    controls();
    draw();
  };
  onState(keys, fromAddress);
  node.replaceChildren(bar, body);
  fromAddress();
};
