makers.heatmap = (node) => {
  let fromAddress = () => {};
  onState(["a", "b", "sort", "cut", "only"], () => fromAddress());
  return grouped(node, (body, data, bar) => {
    const board = el("div", { class: "board" }), side = el("section", { class: "pair", "aria-label": "Comparison of two groups" }), controls = el("span", { class: "bar" });
    // The pair in the address, or else the farthest pair.
    const pair = () => {
      const [a, b] = ["a", "b"].map((key) => data.groups.indexOf(chosenState(key)));
      return a >= 0 && b >= 0 && a !== b ? [a, b] : data.farthest ?? [0, 1];
    };
    const pick = (i, j) => {
      compare(side, data, i, j);
      keep(node, { a: data.groups[i], b: data.groups[j] });
      hideTip();
      $("h4", side).focus({ preventScroll: true });
      side.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    };
    const show = () => {
      const map = el("div");
      board.replaceChildren(map);
      heatmap(map, data, { order: chosenOrder(data), search: data.n > MANY_GROUPS ? chosenState("only") : "", cut: chosenCut(data), pick });
    };
    const choose = (changes, place) => {
      keep(node, changes);
      heatmapControls(controls, data, choose);
      $$("select", controls)[place].focus();
      show();
    };
    const search = el("input", { type: "search", placeholder: "Only groups named …", "aria-label": "Only groups named", oninput: () => { keep(node, { only: search.value }, false); show(); } });
    bar.append(controls);
    if (data.n > MANY_GROUPS) bar.append(search);
    body.replaceChildren(el("div", { class: data.n > LARGE_MATRIX ? "drift large" : "drift" }, board, side));
    fromAddress = () => {
      heatmapControls(controls, data, choose);
      search.value = chosenState("only");
      show();
      compare(side, data, ...pair());
    };
    fromAddress();
  });
};

// Above MANY_GROUPS a heatmap can be searched. Above UNNAMED_GROUPS, where names hardly fit, it begins in the order of clusters.
const MANY_GROUPS = 12, UNNAMED_GROUPS = 40, CUTS = [2, 3, 4, 6, 8, 12, 20];
const firstOrder = (data) => (data.clusters && data.n > UNNAMED_GROUPS ? "clusters" : "drift");
const chosenOrder = (data) => orders(data).find(([key]) => key === chosenState("sort"))?.[0] ?? firstOrder(data);
const chosenCut = (data) => (chosenOrder(data) === "clusters" && CUTS.find((number) => String(number) === chosenState("cut") && number < data.n)) || 0;

// Fill `controls` with the lists of orders and, in the order of clusters, of the number of clusters.
function heatmapControls(controls, data, choose) {
  const order = chosenOrder(data);
  controls.replaceChildren(select("Order", orders(data), order, (value) => choose({ sort: value === firstOrder(data) ? "" : value, cut: "" }, 0)));
  if (order !== "clusters") return;
  const cuts = CUTS.filter((number) => number < data.n).map((number) => [number, `into ${number} clusters`]);
  controls.append(select("Cut", [["", "nowhere"], ...cuts], chosenCut(data) || "", (value) => choose({ cut: value }, 1)));
}

makers.components = (node) => grouped(node, (body, data) => {
  const chart = el("div");
  body.replaceChildren(chart);
  if (!data.components.length) chart.append(el("p", { class: "none" }, "There are too many groups to show the drift of each component; filterdb drift computes it."));
  else boxes(chart, data.components, { label: "Drift of each component", unit: "symmetric KL of one component, all pairs of groups" });
});

makers.groupings = (node) => boxes(node, core.sections.drift.groupings.map((row) => ({ ...row, label: words(row.label) })), { label: "Drift by grouping", unit: "drift D, all pairs of groups" });
