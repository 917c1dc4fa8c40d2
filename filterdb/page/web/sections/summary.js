// Links of the summary choose a grouping, or search the table of layers.
for (const link of $$("[data-group]")) link.addEventListener("click", () => { if (core.groupings.some(({ key }) => key === link.dataset.group)) group(link.dataset.group); });
for (const link of $$("[data-layers]")) link.addEventListener("click", async () => {
  const node = $('[data-figure="layers"]');
  await begin(node);
  node.table?.search(link.dataset.layers);
});
