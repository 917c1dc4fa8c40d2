// All figures that depend on a grouping show the same one: a choice in one of them changes all.
const grouping = { key: "", listeners: [] };
function chosenGrouping() {
  const { key } = core.groupings.find((candidate) => candidate.key === chosenState("by")) ?? core.groupings[0] ?? {};
  return key;
}
function showGrouping(key) {
  if (key === grouping.key) return;
  grouping.key = key;
  for (const listener of grouping.listeners) listener(key);
}
grouping.key = chosenGrouping();
onState(["by"], () => showGrouping(chosenGrouping()));

// Show a grouping that the reader chose in the figure `node`, or by a link, which writes the address itself. The pair was
// one of the last grouping's, so it is left.
function group(key, node = null) {
  const changes = { by: key === core.groupings[0].key ? "" : key, a: "", b: "" };
  if (node) keep(node, changes);
  else state.values = Object.fromEntries(Object.entries({ ...state.values, ...changes }).filter(([, value]) => value));
  showGrouping(key);
}
function grouped(node, draw) {
  const bar = el("div", { class: "bar" }), body = el("div");
  const show = async (key) => {
    const hadFocus = bar.contains(document.activeElement) && document.activeElement.matches("button");
    bar.replaceChildren(choices("Group by", core.groupings.map(({ key, groups }) => [key, `${words(key)} ${count(groups)}`]), key, (value) => group(value, node)));
    if (hadFocus) $("button[aria-pressed=true]", bar).focus();
    body.classList.add("busy");
    try {
      const data = decoded(await load(`drift_${key}`));
      if (grouping.key === key) await draw(body, data, bar);
    } catch (error) {
      body.replaceChildren(el("p", { class: "none" }, `Not shown: ${error.message}`));
    }
    body.classList.remove("busy");
    const figure = node.closest("figure");
    for (const link of $$("a[data-of]", figure)) link.href = link.dataset.of.replace("*", key);
  };
  grouping.listeners.push(show);
  node.replaceChildren(bar, body);
  return show(grouping.key);
}
