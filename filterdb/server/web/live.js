// What `filterdb serve` adds to a page: the answer about a dropped file, and a notice of a newer snapshot.
// It runs before the start of the page, inside the same function, and uses the helpers of all figures.

(() => {
const live = core.live;
const filesPath = `${live.home}files`;
const MINE_STATES = { passed: "passed", failed: "failed", incomplete: "incomplete: a part could not be read", "nothing-checked": "nothing to check", unreadable: "not readable" };

const mineAnswer = el("figure", { class: "mine-answer", "aria-label": "Closest models", "aria-live": "polite", hidden: true });
const mineFile = el("input", { type: "file", id: "mine-file", onchange: () => { if (mineFile.files[0]) place(mineFile.files[0]); mineFile.value = ""; } });
const mineText = "Choose a model file, or drop one anywhere on this page. The file is removed after the comparison; only the answer is kept.";
$("main").prepend(el("section", { id: "mine" },
  el("h2", { class: "unseen" }, "Which models are closest to mine?"),
  el("div", { class: "drop" }, mineFile, el("label", { for: "mine-file" }, "Which models are closest to mine?"), el("span", {}, mineText)), mineAnswer));
$("#toc li").before(el("li", {}, el("a", { href: "#mine" }, "Closest models")));

const isFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const dropping = (is) => document.documentElement.classList.toggle("dropping", is);
addEventListener("dragover", (event) => { if (isFile(event)) { event.preventDefault(); dropping(true); } });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) dropping(false); });
addEventListener("drop", (event) => {
  if (!isFile(event)) return;
  event.preventDefault();
  dropping(false);
  if (event.dataTransfer.files[0]) place(event.dataTransfer.files[0]);
});

function mineShows(...nodes) {
  mineAnswer.hidden = false;
  mineAnswer.replaceChildren(...nodes);
}
const mineSays = (text, wrong) => mineShows(el("p", { class: wrong ? "wrong" : "soft", role: wrong ? "alert" : null }, text));

// Send a file, show the answer, and put a link to it into the address.
let placing = 0;
async function place(file) {
  const turn = (placing += 1);
  $("#mine").scrollIntoView();
  if (file.size > live.limit) return mineSays(`${file.name} is ${count(file.size / 2 ** 20)} MiB; the limit is ${count(live.limit / 2 ** 20)} MiB. Raise --model-memory of filterdb serve.`, true);
  mineSays(`Reading ${file.name} …`);
  const answer = await ask(`${filesPath}?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
  if (turn !== placing || !answer) return;
  const address = new URL(location.href);
  address.searchParams.set("file", answer.id);
  history.replaceState(history.state, "", address);
  showMine(answer);
}

async function ask(address, options) {
  try {
    const response = await fetch(address, options);
    if (response.ok) return await response.json();
    mineSays((await response.text()).trim(), true);
  } catch {
    mineSays("filterdb serve has stopped or cannot be reached.", true);
  }
  return null;
}

function showMine(answer) {
  const { nearest, check } = answer;
  mineShows(el("h3", {}, answer.name), ...nearestRows(nearest), ...checkRows(check),
    el("p", { class: "soft" }, "The address of this page now links to this answer, until filterdb serve stops."));
}

function nearestRows({ error, rows, models, filters, layers, left_out: out, stored_as: stored }) {
  if (error) return [el("h4", {}, "Nearest models"), el("p", { class: "wrong" }, error)];
  const most = Math.max(...rows.flatMap((row) => [row.drift, row.noise]).filter(Number.isFinite), 1e-9);
  const sentence = stored.length ? `It is in the database: ${stored.join(", ")}.` : `These are the nearest of ${count(models)} models, by drift beyond chance.`;
  const left = out ? ` ${count(out)} ${out === 1 ? "layer" : "layers"} could not be compared.` : "";
  return [
    el("p", {}, `${sentence} The file has ${count(filters)} filters in ${count(layers)} ${layers === 1 ? "layer" : "layers"}.${left}`),
    el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ...["model", "", "drift", "noise", "verdict", "task", "training"].map((title) => el("th", { scope: "col", class: title === "drift" || title === "noise" ? "number" : null }, title)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {},
        el("th", { scope: "row" }, core.models.includes(row.model) ? modelLink(core.models.indexOf(row.model)) : row.model), el("td", {}, ruler(row, most)), el("td", { class: "number" }, digits(row.drift)), el("td", { class: "number" }, digits(row.noise)),
        el("td", { title: row.sentence }, row.same_file ? "= the same file" : row.same_filters ? "= the same filters" : `${row.symbol} ${row.word}`), el("td", {}, row.task), el("td", {}, row.training_dataset)))))),
    el("p", { class: "soft" }, "The bar is the drift; the mark is the drift that chance alone explains in 95 % of cases. Near models have similar filters, which does not predict the accuracy after transfer."),
  ];
}

function ruler({ drift, noise }, most) {
  const x = (value) => 2 + 116 * Math.min(1, value / most);
  return svg("svg", { width: 120, height: 14, viewBox: "0 0 120 14", "aria-hidden": "true" },
    Number.isFinite(drift) ? svg("rect", { x: 2, y: 3, width: Math.max(1, x(drift) - 2), height: 8, rx: 1, class: "bar-drift" }) : null,
    noise !== null ? svg("line", { x1: x(noise), x2: x(noise), y1: 0, y2: 14, class: "bar-noise" }) : null);
}

function checkRows({ error, status, layers, findings, more }) {
  const title = el("h4", {}, "Check");
  if (error) return [title, el("p", { class: "wrong" }, error)];
  const sentence = `${MINE_STATES[status] ?? status}, ${count(layers)} ${layers === 1 ? "layer" : "layers"}${findings.length ? "" : ", no findings"}.`;
  return [title, el("p", {}, sentence), el("ul", { class: "findings" }, ...findings.map((finding) => el("li", {}, el("b", {}, finding.rule), finding.layer ? ` ${finding.layer}: ` : ": ", finding.message, el("small", {}, finding.remedy)))),
    more ? el("p", { class: "soft" }, `${count(more)} more; filterdb check lists all.`) : null].filter(Boolean);
}

const linked = new URL(location.href).searchParams.get("file");
if (linked) ask(`${filesPath}/${encodeURIComponent(linked)}`).then((answer) => { if (answer) showMine(answer); });

// Look for a newer snapshot while somebody looks at the page.
const notice = el("div", { class: "notice", role: "status", hidden: true });
document.body.prepend(notice);
async function look() {
  if (!document.hidden) {
    const response = await fetch(`${live.home}state.json`, { cache: "no-store" }).catch(() => null);
    const newest = response?.ok ? (await response.json()).newest : null;
    if (newest > live.snapshot) {
      notice.replaceChildren(el("span", {}, `Snapshot ${newest} is available; this page shows ${live.snapshot}.`), el("a", { href: `${live.home}../../?snapshot=${newest}${location.hash}` }, "Show it"));
      notice.hidden = false;
    }
  }
  setTimeout(look, live.seconds * 1000);
}
if (live.follows) look();
})();
