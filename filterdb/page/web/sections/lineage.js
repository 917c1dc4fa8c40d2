makers.lineage = (node) => {
  const { models, parents, evidence, directed, similarity } = core.sections.lineage;
  const items = models.map((model, i) => {
    const by = words(evidence[i]), known = directed[i] ? `by ${by}` : `= related${by ? `, ${by}` : ""}`;
    const facts = parents[i] === null ? [] : [el("span", { class: "soft" }, ` ${similarity[i] === null ? "" : digits(similarity[i])} ${known}`)];
    return el("li", {}, modelNamed(model), ...facts);
  });
  const lists = new Map();
  const root = el("ul", { class: "tree" });
  items.forEach((item, i) => {
    if (parents[i] === null) { root.append(item); return; }
    if (!lists.has(parents[i])) {
      lists.set(parents[i], el("ul"));
      items[parents[i]].append(lists.get(parents[i]));
    }
    lists.get(parents[i]).append(item);
  });
  node.replaceChildren(root);
};
