// Start the page: draw figures when they come near the window, follow links inside the page, close menus.

for (const node of $$("[data-figure]")) pending.set(node, null);
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) { near.unobserve(target); begin(target); }
}, { rootMargin: "400px 0px" });
for (const node of pending.keys()) near.observe(node);

addEventListener("beforeprint", everything);
filterdb.everything = everything;
// Printing by the browser's own menu cannot wait for figures that were never near the window; this button does.
for (const button of $$("button[data-print]")) button.addEventListener("click", async () => { await everything(); print(); });

const isWide = () => matchMedia("(min-width: 66rem)").matches;
const contents = $("#toc > details");
if (!isWide()) contents.removeAttribute("open");

// Mark the section in the window in the table of contents.
const links = new Map($$("#toc li > a").map((link) => [link.getAttribute("href").slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    links.forEach((link, id) => { if (id === target.id) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current"); });
  }
}, { rootMargin: "-15% 0px -75% 0px" });
for (const section of $$("main section[id]")) reading.observe(section);
for (const link of links.values()) link.addEventListener("click", () => { if (!isWide()) contents.removeAttribute("open"); });

// Draw every figure above the section first, so that its position is final, then scroll.
async function goTo(id) {
  const target = id && document.getElementById(id);
  if (!target) return;
  await Promise.all([...pending.keys()].filter((node) => node.compareDocumentPosition(target) & Node.DOCUMENT_POSITION_FOLLOWING).map(begin));
  target.scrollIntoView();
}

// A link inside the page may carry a state. Tab continues at the section that it leads to, as with any link.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  follow(link.getAttribute("href"));
  const target = state.section && document.getElementById(state.section);
  if (!target) return;
  target.setAttribute("tabindex", "-1");
  target.focus({ preventScroll: true });
  goTo(state.section);
});
// The page's own entries are restored by back and forward, and the browser scrolls; any other address was typed or pasted.
addEventListener("popstate", (event) => { if (event.state?.filterdb) restore(readAddress().values); });
addEventListener("hashchange", () => {
  if (history.state?.filterdb) return;
  restore(readAddress().values);
  writeAddress(false);
  goTo(state.section);
});
if (state.section) goTo(state.section);

// Menus close on Escape, and when something else is clicked or focused.
const menus = $$("details.files");
const close = (menu) => menu.removeAttribute("open");
for (const kind of ["click", "focusin"]) document.addEventListener(kind, (event) => { for (const menu of menus) if (!menu.contains(event.target)) close(menu); });
for (const menu of menus) menu.addEventListener("keydown", (event) => { if (event.key === "Escape" && menu.open) { close(menu); $("summary", menu).focus(); } });
document.documentElement.dataset.ready = "true";
