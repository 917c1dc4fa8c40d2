makers.heatmap = (node) => {
  const wish = { order: "mean", search: "" };
  return grouped(node, (body, data, bar) => {
    if (!orders(data).some(([key]) => key === wish.order)) wish.order = "mean";
    const board = el("div", { class: "board" }), side = el("section", { class: "pair", "aria-label": "Comparison of two groups" });
    const pick = (i, j, isByUser = true) => {
      compare(side, data, i, j);
      if (!isByUser) return;
      hideTip();
      $("h4", side).focus({ preventScroll: true });
      side.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    };
    let map = null;
    const show = () => {
      map = el("div");
      board.replaceChildren(map);
      heatmap(map, data, { ...wish, pick });
    };
    bar.append(select("Order", orders(data), wish.order, (value) => { wish.order = value; show(); }));
    if (data.n > 12) bar.append(el("input", { type: "search", placeholder: "Only groups named …", "aria-label": "Only groups named", value: wish.search, oninput: (event) => { wish.search = event.target.value; show(); } }));
    else wish.search = "";
    body.replaceChildren(el("div", { class: data.n > 14 ? "drift" : "drift beside" }, board, side));
    show();
    const [i, j] = data.farthest ?? [0, 1];
    pick(i, j, false);
  });
};

makers.components = (node) => grouped(node, (body, data) => {
  const chart = el("div");
  body.replaceChildren(chart);
  if (!data.components.length) chart.append(el("p", { class: "none" }, "There are too many groups to show the drift of each component; filterdb drift computes it."));
  else boxes(chart, data.components, { label: "Drift of each component", unit: "symmetric KL of one component, all pairs of groups" });
});

makers.groupings = (node) => boxes(node, core.sections.drift.groupings.map((row) => ({ ...row, label: words(row.label) })), { label: "Drift by grouping", unit: "drift D, all pairs of groups" });
