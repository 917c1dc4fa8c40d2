// All figures that depend on a grouping show the same one: a choice in one of them changes all.
const grouping = { key: core.groupings[0]?.key, listeners: [] };
function group(key) {
  grouping.key = key;
  for (const listener of grouping.listeners) listener(key);
}
function grouped(node, draw) {
  const bar = el("div", { class: "bar" }), body = el("div");
  const show = async (key) => {
    bar.replaceChildren(choices("Group by", core.groupings.map(({ key, groups }) => [key, `${words(key)} ${count(groups)}`]), key, group));
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
