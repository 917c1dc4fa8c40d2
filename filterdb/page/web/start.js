// Start the page: draw figures when they come near the window, and connect the table of contents to the sections.

for (const node of $$("[data-figure]")) pending.set(node, null);
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) { near.unobserve(target); begin(target); }
}, { rootMargin: "400px 0px" });
for (const node of pending.keys()) near.observe(node);

addEventListener("beforeprint", everything);
filterdb.everything = everything;

if (!matchMedia("(min-width: 66rem)").matches) $("#toc details").removeAttribute("open");

// Mark the section in the window in the table of contents.
const links = new Map($$("#toc a").map((link) => [link.getAttribute("href").slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    links.forEach((link, id) => { if (id === target.id) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current"); });
  }
}, { rootMargin: "-15% 0px -75% 0px" });
for (const section of $$("main section[id]")) reading.observe(section);
for (const link of links.values()) link.addEventListener("click", () => { if (!matchMedia("(min-width: 66rem)").matches) $("#toc details").removeAttribute("open"); });

// Draw every figure above the target first, so that its position is final, then scroll.
async function goTo(hash) {
  const target = document.getElementById(hash.slice(1));
  if (!target || !hash) return;
  await Promise.all([...pending.keys()].filter((node) => node.compareDocumentPosition(target) & Node.DOCUMENT_POSITION_FOLLOWING).map(begin));
  target.scrollIntoView();
}
for (const link of $$('a[href^="#"]')) link.addEventListener("click", () => goTo(link.getAttribute("href")));
if (location.hash) goTo(location.hash);
document.documentElement.dataset.ready = "true";
