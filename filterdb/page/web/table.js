// Tables of any length: only the visible rows are elements. Click a heading to sort, type to search.

const ROW = 30, MOST_PRINTED = 50;

// Columns: {key, title, kind: "text" | "number" | "verdict", width, hint, value(row) → text or number, show(value, row)}.
// `name` begins the table's keys in the address; `first` is the key of the column that sorts to begin with. A table that
// is shown for a time only has a `signal`, which ends what it does when the page is printed.
function bigTable(node, { name, columns, rows, label, filters = [], search, height = 440, first = null, signal }) {
  let matching = rows, by = null, isUp = true, text = "", chosen = new Set();
  const collator = new Intl.Collator("en", { numeric: true });
  const input = el("input", { type: "search", placeholder: label.search, "aria-label": label.search, autocomplete: "off", spellcheck: "false" });
  const tally = el("output", { class: "soft", "aria-live": "polite" });
  const rules = filters.map(([key, title, number]) => el("button", { type: "button", disabled: !number, "aria-pressed": "false", "data-value": key, onclick: () => {
    if (!chosen.delete(key)) chosen.add(key);
    keep(node, { [`${name}.rules`]: filters.map(([rule]) => rule).filter((rule) => chosen.has(rule)).join(",") });
    refresh();
  } }, el("span", { class: `mark m-${key}`, "aria-hidden": "true" }), `${title} ${count(number)}`));
  const heads = columns.map((column) => el("div", { role: "columnheader", class: column.kind }, el("button", { type: "button", title: column.hint, onclick: () => {
    isUp = by === column ? !isUp : column.kind === "text";
    by = column;
    const order = `${isUp ? "" : "-"}${column.key}`;
    keep(node, { [`${name}.sort`]: order === `-${first}` ? "" : order });
    refresh();
  } }, column.title)));
  const body = el("div", { class: "rows", role: "rowgroup" }), room = el("div", { class: "room", role: "presentation" }, body);
  const view = el("div", { class: "view", tabindex: 0, role: "table", "aria-label": label.table, style: { "max-height": `${height}px` } },
    el("div", { role: "rowgroup", class: "headings" }, el("div", { role: "row", class: "tr" }, ...heads)), room);
  view.style.setProperty("--columns", columns.map((column) => column.width).join(" "));
  view.style.setProperty("--least", `${total(columns.map((column) => parseFloat(column.width.match(/(\d+)px/)?.[1] ?? 80))) + 16 * columns.length}px`);
  const cut = el("p", { class: "cut" });

  function refresh() {
    const parts = text.toLowerCase().split(/\s+/).filter(Boolean);
    matching = rows.filter((row) => parts.every((part) => search(row).includes(part)) && (!chosen.size || [...chosen].some((key) => row.kinds?.includes(key))));
    if (by) {
      const sign = isUp ? 1 : -1, key = by.order ?? by.value;
      if (by.kind === "text") matching = [...matching].sort((a, b) => sign * collator.compare(key(a), key(b)));
      else matching = [...matching].sort((a, b) => { const p = key(a), q = key(b); return Number.isNaN(p) ? (Number.isNaN(q) ? 0 : 1) : Number.isNaN(q) ? -1 : sign * (p - q); });
    }
    columns.forEach((column, i) => { if (column === by) heads[i].setAttribute("aria-sort", isUp ? "ascending" : "descending"); else heads[i].removeAttribute("aria-sort"); });
    rules.forEach((button) => button.setAttribute("aria-pressed", String(chosen.has(button.dataset.value))));
    tally.textContent = matching.length === rows.length ? `${count(rows.length)} ${label.rows}` : `${count(matching.length)} of ${count(rows.length)} ${label.rows}`;
    cut.textContent = matching.length > MOST_PRINTED ? `First ${MOST_PRINTED} of ${count(matching.length)} rows; the CSV has all.` : "";
    view.setAttribute("aria-rowcount", String(matching.length + 1));
    view.scrollTop = 0;
    draw();
  }
  function draw(isPrinted = false) {
    const start = isPrinted ? 0 : Math.max(0, Math.floor((view.scrollTop - ROW) / ROW) - 4);
    const end = Math.min(matching.length, isPrinted ? MOST_PRINTED : start + Math.ceil(height / ROW) + 9);
    room.style.height = `${(isPrinted ? end : matching.length) * ROW}px`;
    body.style.top = `${start * ROW}px`;
    body.replaceChildren(...matching.slice(start, end).map((row, k) => el("div", { role: "row", class: "tr", "aria-rowindex": start + k + 2 }, ...columns.map((column) => {
      const value = column.value(row);
      return el("div", { role: "cell", class: column.kind, title: column.kind === "text" ? value : null }, column.show ? (column.kind === "number" ? column.show(value) : column.show(value, row)) : value);
    }))));
    if (!matching.length) body.replaceChildren(el("div", { role: "row" }, el("div", { role: "cell", class: "none" }, "No row matches.")));
  }
  // Read search, rules and order from the address. What it has and the table has not is ignored.
  function fromAddress() {
    const order = chosenState(`${name}.sort`) || (first ? `-${first}` : "");
    input.value = text = chosenState(name);
    by = columns.find(({ key }) => key === order.replace(/^-/, "")) ?? columns.find(({ key }) => key === first) ?? null;
    isUp = !order.startsWith("-");
    chosen = new Set(chosenState(`${name}.rules`).split(",").filter((rule) => filters.some(([key, , number]) => key === rule && number)));
    refresh();
  }
  let queued = false;
  view.addEventListener("scroll", () => { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); } }, { passive: true });
  const find = (wanted) => { input.value = text = wanted; keep(node, { [name]: wanted }, false); refresh(); };
  input.addEventListener("input", () => find(input.value));
  addEventListener("beforeprint", () => draw(true), { signal });
  addEventListener("afterprint", () => draw(), { signal });
  onState([name, `${name}.sort`, `${name}.rules`], fromAddress);
  node.replaceChildren(el("div", { class: "bar" }, input, rules.length ? el("div", { class: "choices", role: "group", "aria-label": "Only layers with" }, ...rules) : null, tally), view, cut);
  fromAddress();
  return { search: find };
}

const MARKS = { dead: "dead", sparse: "sparse", collapsed: "collapsed", random: "random" };
const verdictCell = (kinds) => el("span", {}, ...(kinds.length ? kinds.flatMap((kind) => [el("span", { class: `mark m-${kind}`, "aria-hidden": "true" }), `${MARKS[kind]} `]) : ["–"]));
