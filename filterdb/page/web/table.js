// Tables of any length: only the visible rows are elements. Click a heading to sort, type to search.

const ROW = 30;

// Columns: {title, kind: "text" | "number" | "verdict", width, hint, value(row) → text or number, show(value, row)}.
function bigTable(node, { columns, rows, label, filters = [], search, extra = null, height = 440, pick = null }) {
  let matching = rows, by = null, isUp = true, text = "", chosen = new Set();
  const collator = new Intl.Collator("en", { numeric: true });
  const input = el("input", { type: "search", placeholder: label.search, "aria-label": label.search, autocomplete: "off", spellcheck: "false" });
  const tally = el("output", { class: "soft", "aria-live": "polite" });
  const chips = filters.map(([key, title, number]) => {
    const chip = el("button", { type: "button", "aria-pressed": "false", "data-value": key, onclick: () => {
      if (chosen.has(key)) chosen.delete(key); else chosen.add(key);
      chip.setAttribute("aria-pressed", String(chosen.has(key)));
      refresh();
    } }, el("span", { class: `mark m-${key}`, "aria-hidden": "true" }), `${title} ${count(number)}`);
    return chip;
  });
  const heads = columns.map((column) => {
    const button = el("button", { type: "button", title: column.hint, onclick: () => {
      isUp = by === column ? !isUp : column.kind === "text";
      by = column;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      refresh();
    } }, column.title);
    const head = el("div", { role: "columnheader", class: column.kind }, button);
    return head;
  });
  const body = el("div", { class: "rows", role: "rowgroup" }), room = el("div", { class: "room", role: "presentation" }, body);
  const view = el("div", { class: "view", tabindex: 0, role: "table", "aria-label": label.table, style: { "max-height": `${height}px` } },
    el("div", { role: "rowgroup", class: "headings" }, el("div", { role: "row", class: "tr" }, ...heads)), room);
  view.style.setProperty("--columns", columns.map((column) => column.width).join(" "));
  view.style.setProperty("--least", `${total(columns.map((column) => parseFloat(column.width.match(/(\d+)px/)?.[1] ?? 80))) + 16 * columns.length}px`);

  function refresh() {
    const parts = text.toLowerCase().split(/\s+/).filter(Boolean);
    matching = rows.filter((row) => parts.every((part) => search(row).includes(part)) && (!chosen.size || [...chosen].some((key) => row.kinds?.includes(key))));
    if (by) {
      const sign = isUp ? 1 : -1, key = by.value;
      if (by.kind === "number") matching = [...matching].sort((a, b) => { const p = key(a), q = key(b); return Number.isNaN(p) ? (Number.isNaN(q) ? 0 : 1) : Number.isNaN(q) ? -1 : sign * (p - q); });
      else matching = [...matching].sort((a, b) => sign * collator.compare(key(a), key(b)));
    }
    tally.textContent = matching.length === rows.length ? `${count(rows.length)} ${label.rows}` : `${count(matching.length)} of ${count(rows.length)} ${label.rows}`;
    view.setAttribute("aria-rowcount", String(matching.length + 1));
    view.scrollTop = 0;
    draw();
  }
  function draw(all = false) {
    const first = all ? 0 : Math.max(0, Math.floor((view.scrollTop - ROW) / ROW) - 4);
    const last = Math.min(matching.length, all ? 60 : first + Math.ceil(height / ROW) + 9);
    room.style.height = `${(all ? last : matching.length) * ROW}px`;
    body.style.top = `${first * ROW}px`;
    body.replaceChildren(...range(last - first).map((k) => {
      const row = matching[first + k];
      return el("div", { role: "row", class: pick ? "tr pick" : "tr", "aria-rowindex": first + k + 2, onclick: pick ? () => pick(row) : null }, ...columns.map((column) => {
        const value = column.value(row);
        return el("div", { role: "cell", class: column.kind, title: column.kind === "text" ? value : null }, column.show ? (column.kind === "number" ? column.show(value) : column.show(value, row)) : value);
      }));
    }));
  }
  let queued = false;
  view.addEventListener("scroll", () => { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); } }, { passive: true });
  input.addEventListener("input", () => { text = input.value; refresh(); });
  addEventListener("beforeprint", () => draw(true));
  addEventListener("afterprint", () => draw());
  node.replaceChildren(el("div", { class: "bar" }, input, chips.length ? el("div", { class: "choices", role: "group", "aria-label": "Only layers with" }, ...chips) : null, extra, tally), view);
  refresh();
  return { search: (wanted) => { input.value = text = wanted; refresh(); } };
}

const MARKS = { dead: "dead", sparse: "sparse", collapsed: "collapsed", random: "random" };
const verdictCell = (kinds) => el("span", {}, ...(kinds.length ? kinds.flatMap((kind) => [el("span", { class: `mark m-${kind}`, "aria-hidden": "true" }), `${MARKS[kind]} `]) : ["–"]));
