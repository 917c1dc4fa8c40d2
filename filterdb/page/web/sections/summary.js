// What the summary points at: a grouping to show, words to search the layers for.
for (const link of $$("[data-group]")) link.addEventListener("click", () => { if (core.groupings.some((one) => one.key === link.dataset.group)) group(link.dataset.group); });
for (const link of $$("[data-layers]")) link.addEventListener("click", async () => {
  const node = $('[data-figure="layers"]');
  await begin(node);
  node.table?.search(link.dataset.layers);
});
