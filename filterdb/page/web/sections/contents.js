makers.contents = (node) => {
  node.replaceChildren(el("div", { class: "contents" }, ...core.sections.contents.map((part) => {
    const most = Math.max(...part.rows.map((row) => row.filters)), list = el("tbody");
    let isLong = false;
    const draw = (number) => list.replaceChildren(...part.rows.slice(0, number).map((row) => el("tr", {},
      el("th", { scope: "row", title: row.label }, row.label),
      el("td", { class: "number" }, count(row.models)), el("td", { class: "number" }, count(row.layers)), el("td", { class: "number" }, count(row.filters)),
      el("td", { class: "share", "aria-hidden": "true" }, el("i", { style: { width: `${(100 * row.filters) / most}%` } })))));
    const onScreen = () => draw(isLong ? part.rows.length : 8);
    onScreen();
    addEventListener("beforeprint", () => draw(MOST_PRINTED));
    addEventListener("afterprint", onScreen);
    const more = part.rows.length > 8 ? el("button", { type: "button", class: "more", onclick: () => { isLong = true; onScreen(); more.remove(); } }, `All ${part.rows.length}`) : null;
    const cut = part.rows.length > MOST_PRINTED ? el("p", { class: "cut" }, `First ${MOST_PRINTED} of ${count(part.rows.length)} rows; the CSV has all.`) : null;
    return el("div", {}, el("h4", {}, `${words(part.column)} `, el("span", { class: "soft" }, count(part.rows.length))),
      el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "unseen" }, words(part.column))), ...["models", "layers", "filters"].map((title) => el("th", { class: "number", scope: "col" }, title)), el("td", { class: "share", "aria-hidden": "true" }))), list), more, cut);
  })));
};

makers.models = async (node) => {
  const data = await load("models");
  const n = data.model.length;
  const rows = range(n).map((i) => ({ i }));
  const texts = rows.map(({ i }) => data.columns.filter((column) => column.text).map((column) => data[column.key][i]).join(" ").toLowerCase());
  bigTable(node, {
    name: "models",
    rows,
    height: 360,
    search: ({ i }) => texts[i],
    label: { search: "Search models, tasks, training sets", table: "Models", rows: `models with ${core.kernel.join("×")} filters` },
    columns: data.columns.map(({ key, text }) => (text
      ? { key, title: words(key), kind: "text", width: "minmax(110px, 1fr)", hint: `Sort by ${words(key)}`, value: ({ i }) => data[key][i], show: key === "model" ? (name) => modelNamed(name, inRow) : undefined }
      : { key, title: words(key), kind: "number", width: "80px", hint: `Sort by ${words(key)}`, value: ({ i }) => data[key][i] ?? NaN, show: count })),
  });
};
