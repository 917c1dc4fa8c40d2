makers.contents = (node) => {
  node.replaceChildren(el("div", { class: "contents" }, ...core.sections.contents.map((part) => {
    const most = Math.max(...part.rows.map((row) => row.filters)), list = el("tbody");
    const draw = (all) => list.replaceChildren(...part.rows.slice(0, all ? undefined : 8).map((row) => el("tr", {},
      el("th", { scope: "row", title: row.label }, row.label),
      el("td", { class: "number" }, count(row.models)), el("td", { class: "number" }, count(row.layers)), el("td", { class: "number" }, count(row.filters)),
      el("td", { class: "share", "aria-hidden": "true" }, el("i", { style: { width: `${(100 * row.filters) / most}%` } })))));
    draw(false);
    addEventListener("beforeprint", () => draw(true));
    const more = part.rows.length > 8 ? el("button", { type: "button", class: "more", onclick: () => { draw(true); more.remove(); } }, `All ${part.rows.length}`) : null;
    return el("div", {}, el("h4", {}, `${words(part.column)} `, el("span", { class: "soft" }, count(part.rows.length))),
      el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "unseen" }, words(part.column))), ...["models", "layers", "filters", ""].map((title) => el("th", { class: "number", scope: title ? "col" : null }, title)))), list), more);
  })));
};

makers.models = async (node) => {
  const data = await load("models");
  const n = data.model.length;
  const rows = range(n).map((i) => ({ i }));
  const texts = rows.map(({ i }) => data.columns.filter((column) => column.text).map((column) => data[column.key][i]).join(" ").toLowerCase());
  bigTable(node, {
    rows,
    height: 360,
    search: ({ i }) => texts[i],
    label: { search: "Search models, tasks, training sets", table: "Models", rows: `models with ${core.kernel.join("×")} filters` },
    columns: data.columns.map(({ key, text }) => (text
      ? { title: words(key), kind: "text", width: "minmax(110px, 1fr)", hint: `Sort by ${words(key)}`, value: ({ i }) => data[key][i], show: key === "model" ? (name) => modelNamed(name, inRow) : undefined }
      : { title: words(key), kind: "number", width: "80px", hint: `Sort by ${words(key)}`, value: ({ i }) => data[key][i] ?? NaN, show: count })),
  });
};
