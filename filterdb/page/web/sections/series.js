makers.series = (node) => {
  const { trainings, retrainings } = core.sections.series, chart = el("div"), parts = [];
  const shownTrainings = [...trainings].sort((a, b) => b.xs.length - a.xs.length).slice(0, 7);
  const missing = (values) => values.map((value) => value ?? NaN);
  if (trainings.length) parts.push(chart);
  if (retrainings.length) {
    const heads = ["trained again", "seeds", "mean drift among them", "largest", "to the nearest other", "which is"];
    parts.push(el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map((one, i) => el("th", { scope: "col", class: i % 5 ? "number" : null }, one)))),
      el("tbody", {}, ...retrainings.map((row) => el("tr", {}, el("th", { scope: "row" }, row.retraining), ...[count(row.seeds), digits(row.mean_drift), digits(row.largest_drift), digits(row.to_nearest)].map((one) => el("td", { class: "number" }, one)), el("td", {}, row.nearest)))))));
  }
  node.replaceChildren(...parts);
  if (trainings.length) lines(chart, shownTrainings.map((one) => ({ ...one, values: missing(one.values), floor: missing(one.floor) })), { xlabel: "epoch", ylabel: "drift to the last", label: "Checkpoints" });
};
