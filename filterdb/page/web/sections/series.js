makers.series = (node) => {
  const { trainings, retrainings } = core.sections.series, chart = el("div"), parts = [];
  const shownTrainings = [...trainings].sort((a, b) => b.xs.length - a.xs.length).slice(0, 7);
  const missing = (values) => values.map((value) => value ?? NaN);
  if (trainings.length) parts.push(chart);
  if (retrainings.length) {
    const heads = ["training", "seeds", "mean drift between seeds", "largest", "drift to the nearest other training", "nearest other training"];
    parts.push(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Retrainings" }, el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map((title, i) => el("th", { scope: "col", class: i % 5 ? "number" : null }, title)))),
      el("tbody", {}, ...retrainings.map((row) => el("tr", {}, el("th", { scope: "row" }, row.retraining), ...[count(row.seeds), digits(row.mean_drift), digits(row.largest_drift), digits(row.to_nearest)].map((text) => el("td", { class: "number" }, text)), el("td", {}, row.nearest)))))));
  }
  node.replaceChildren(...parts);
  if (trainings.length) lines(chart, shownTrainings.map((training) => ({ ...training, values: missing(training.values), floor: missing(training.floor) })), { xlabel: "epoch", ylabel: "drift to the last checkpoint", label: "Checkpoints" });
};
