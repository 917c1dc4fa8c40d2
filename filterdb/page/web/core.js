// Helpers of all figures: loading data files, creating elements, scales, colours, the tooltip.
// Text from models and catalogs is only set as text, so it is never parsed as markup.

const core = JSON.parse(document.getElementById("core").textContent);
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

// Data files are scripts that call filterdb.put, because a page that is opened from disk cannot load other files.
const waiting = new Map(), loaded = new Map();
window.filterdb = { put: (name, value) => waiting.get(name)?.(value) };

function load(name) {
  if (!loaded.has(name)) {
    loaded.set(name, new Promise((resolve, reject) => {
      waiting.set(name, resolve);
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onerror = () => reject(new Error(`data/${name}.js is missing next to this page.`));
      document.head.append(script);
    }));
  }
  return loaded.get(name);
}

// Numbers are base64 of little-endian arrays. Type l2 has 16-bit logarithms; 0 stands for zero, 65535 for NaN.
const TYPES = { f4: Float32Array, u1: Uint8Array, i1: Int8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, l2: Uint16Array };
const LOG_LOW = Math.log(1e-12), LOG_STEP = (Math.log(1e4) - LOG_LOW) / 65533;

function unpack(packed) {
  if (!packed) return null;
  const text = atob(packed.d), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const raw = new TYPES[packed.t](bytes.buffer);
  if (packed.t !== "l2") return raw;
  const values = new Float32Array(raw.length);
  for (let i = 0; i < raw.length; i++) values[i] = raw[i] === 0 ? 0 : raw[i] === 65535 ? NaN : Math.exp(LOG_LOW + (raw[i] - 1) * LOG_STEP);
  return values;
}

const triangle = (i, j, n) => (i > j ? triangle(j, i, n) : i * (2 * n - i - 1) / 2 + j - i - 1);

// Elements.
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, setting] of Object.entries(value)) node.style.setProperty(property, setting);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function picture(width, height, label, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, class: "plot" }, ...children);
}

// Return a canvas of `width` × `height` CSS pixels that is sharp on every screen, and its context. Without a label it is
// decoration, which screen readers skip.
function canvas(width, height, label) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const node = el("canvas", { ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }), width: Math.round(width * ratio), height: Math.round(height * ratio), style: { width: `${width}px`, height: `${height}px` } });
  const context = node.getContext("2d");
  context.scale(ratio, ratio);
  return [node, context];
}

// Return a link to the page of a model, given its position in core.models.
const modelLink = (i, attributes) => el("a", { href: `model.html#${core.ids[i]}`, ...attributes }, core.models[i]);
// Tab passes over links in the rows of a long table, which would take thousands of steps; model.html lists all models.
const inRow = { tabindex: -1 };
// Return the same given its name, or the name if no model, or more than one, is shown under it.
const placeOf = new Map();
core.models.forEach((name, i) => placeOf.set(name, placeOf.has(name) ? -1 : i));
// A model named by the template, <span data-model="NAME">, becomes such a link.
const modelNamed = (name, attributes) => ((placeOf.get(name) ?? -1) < 0 ? name : modelLink(placeOf.get(name), attributes));
for (const node of $$("[data-model]")) node.replaceChildren(modelNamed(node.dataset.model));

// Text.
const count = (value) => Math.round(value).toLocaleString("en");
const percent = (value) => (value >= 0.0995 || value === 0 ? `${(100 * value).toFixed(0)} %` : value < 0.0005 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`);
function digits(value, number = 3) {
  if (value === null || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(number - 1).replace("e-", "·10⁻").replace("e+", "·10").replace(/(?<=·10⁻?)\d+/, (power) => [...power].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join(""));
  return (size >= 1000 ? count(value) : String(Number(value.toPrecision(number)))).replace("-", "−");
}
const shown = (text, most) => (text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text);
const words = (key) => key.replaceAll("_", " ");
const range = (n) => Array.from({ length: n }, (_, i) => i);
const total = (values) => values.reduce((sum, value) => sum + value, 0);

// Colours: cividis for amounts, purple to orange for signs. Both keep their order for colour-blind readers and in grey.
const ramp = (text) => text.match(/.{6}/g).map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
const CIVIDIS = ramp("00224e002e6a1a386f32436d434e6c535a6d61656f6f70737d7c788c88789b9476aba072bcae6ccdbb63dec958f0d846fee838");
const SIGNS = ramp("7f3b08a04d07be630adb7d12ef9e3cfdbd6efed7a2fbe9cff6f6f7e3e4efcecde4b6b0d4988dbe7967a65d379044176f2d004b");
function colour(palette, t) {
  const position = Math.min(Math.max(t, 0), 1) * (palette.length - 1), low = Math.floor(position), high = Math.min(low + 1, palette.length - 1);
  return palette[low].map((channel, i) => Math.round(channel + (palette[high][i] - channel) * (position - low)));
}
const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

// Scales: functions of a value that return a pixel, with round ticks.
function linear(low, high, from, to, wanted = 5) {
  const span = high - low || 1, rough = span / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.75);
  const scale = (value) => from + ((value - low) / span) * (to - from);
  scale.ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) scale.ticks.push(Number((i * step).toPrecision(12)));
  return scale;
}
function logarithmic(low, high, from, to) {
  const a = Math.log10(low), b = Math.log10(high), span = b - a || 1;
  const scale = (value) => from + ((Math.log10(Math.max(value, low)) - a) / span) * (to - from);
  const powers = range(Math.floor(b) - Math.ceil(a) + 1).map((i) => Math.ceil(a) + i);
  const fine = powers.length < 3 ? [1, 2, 5] : [1];
  scale.ticks = range(Math.floor(b) - Math.floor(a) + 1).flatMap((i) => fine.map((factor) => factor * 10 ** (Math.floor(a) + i))).filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  return scale;
}

// The tooltip, and the line that a screen reader reads out.
const tip = $("#tip"), spoken = $("#spoken");
function showTip(lines, x, y) {
  tip.place = null;
  tip.replaceChildren(...lines.map((line, i) => el(i ? "div" : "b", {}, line)));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + box.height + 22 > innerHeight ? Math.max(8, y - box.height - 12) : y + 16}px`;
}
const hideTip = () => { tip.hidden = true; tip.place = null; };
const say = (text) => { spoken.textContent = text; };
// The tip of a cell that was reached by keyboard moves with the cell: bringing it into view scrolls the page.
addEventListener("scroll", () => { if (tip.place) tip.place(); else hideTip(); }, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
// A resting pointer leaves a node when the page scrolls below it; a tip that the keyboard placed stays.
const onPointerLeave = (node, leave) => node.addEventListener("pointerleave", () => { if (!tip.place) leave(); });

// Show `lines()` in the tooltip when the pointer is over a node.
function hinted(node, lines) {
  node.addEventListener("pointermove", (event) => showTip(lines(), event.clientX, event.clientY));
  onPointerLeave(node, hideTip);
  return node;
}

// Return a row of buttons, one of which is pressed.
function choices(label, options, chosen, pick) {
  const buttons = options.map(([value, text]) => el("button", {
    type: "button", "aria-pressed": String(value === chosen), "data-value": value,
    onclick: () => { buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === value))); pick(value); },
  }, text));
  return el("div", { class: "choices", role: "group", "aria-label": label }, ...buttons);
}
function select(label, options, chosen, pick) {
  const list = el("select", { onchange: () => pick(list.value) }, ...options.map(([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, shown(text, 60))));
  return el("label", { class: "pick" }, el("span", {}, label), list);
}

// Figures are drawn when they come near the window, again when their width changes, and all of them before printing.
const makers = {}, pending = new Map(); // figure → promise of its drawing, null until drawing begins
let drawing = 0;
function mount(node, draw) {
  let width = 0;
  const again = () => {
    if (node.clientWidth && Math.abs(node.clientWidth - width) > 1) { width = node.clientWidth; draw(width); }
  };
  new ResizeObserver(again).observe(node);
  node.redraw = () => { width = node.clientWidth; if (width) draw(width); };
  again();
}
function begin(node) {
  if (!pending.get(node)) pending.set(node, make(node));
  return pending.get(node);
}
async function make(node) {
  drawing += 1;
  document.documentElement.dataset.drawing = drawing;
  try {
    await makers[node.dataset.figure](node);
  } catch (error) {
    node.replaceChildren(el("p", { class: "none" }, `Not shown: ${error.message}`));
    console.error(error);
  }
  drawing -= 1;
  document.documentElement.dataset.drawing = drawing;
}
const everything = () => Promise.all([...pending.keys()].map(begin));
