// The state of the page in the fragment of its address, such as `#drift?by=task&a=cats&b=dogs&sort=size`. A copied link
// restores it, and so do the browser's back and forward buttons. Anyone can write an address: a figure ignores the values
// that it does not offer, and nothing else is done with them.

const state = { section: "", values: {}, listeners: [] };
const STATE_KEYS = new Set(["by", "a", "b", "sort", "cut", "only", "ridges", "right", "up", "label", "value", "tiles", "models", "models.sort", "layers", "layers.sort", "layers.rules"]);
const LONGEST_VALUE = 300;

function parsedFragment(fragment) {
  const [section, ...query] = fragment.replace(/^#/, "").split("?"), values = {};
  for (const [key, value] of new URLSearchParams(query.join("?"))) if (STATE_KEYS.has(key) && value && value.length <= LONGEST_VALUE) values[key] = value;
  return { section: /^[\w-]*$/.test(section) ? section : "", values, hasQuery: query.length > 0 };
}
function writtenFragment() {
  const query = new URLSearchParams(Object.entries(state.values)).toString();
  return query ? `#${state.section}?${query}` : state.section ? `#${state.section}` : "";
}

// Write the state into the address, as a new entry of the history or in place of this one.
function writeAddress(isNew) {
  try {
    history[isNew ? "pushState" : "replaceState"]({ filterdb: true }, "", writtenFragment() || location.pathname + location.search);
  } catch { /* a page without an address of its own, such as one inside a notebook, has no history */ }
  for (const link of $$(".kernels a")) link.href = link.getAttribute("href").split("#")[0] + writtenFragment();
}

// Replace all values, and tell the figures whose values differ.
function restore(values) {
  const before = state.values;
  state.values = values;
  for (const { keys, listener } of state.listeners) if (keys.some((key) => before[key] !== values[key])) listener();
}
const chosenState = (key) => state.values[key] ?? "";
const onState = (keys, listener) => { state.listeners.push({ keys, listener }); };

// Keep what the reader chose in the figure `node`; an empty value is the default. A choice is a step of the history, typing is not.
function keep(node, changes, isStep = true) {
  const values = { ...state.values, ...changes };
  for (const key of Object.keys(values)) if (!values[key] || values[key].length > LONGEST_VALUE) delete values[key];
  const before = writtenFragment();
  state.section = node.closest("section[id]")?.id ?? state.section;
  state.values = values;
  if (writtenFragment() !== before) writeAddress(isStep);
}

// Follow a link inside the page: its values are added to the present ones, except that a pair belongs to its grouping.
function follow(fragment) {
  const { section, values } = parsedFragment(fragment), present = { ...state.values };
  if (values.by || values.a || values.b) { delete present.a; delete present.b; }
  state.section = section;
  restore({ ...present, ...values });
  writeAddress(true);
}

function readAddress() {
  const { section, values, hasQuery } = parsedFragment(location.hash);
  state.section = section;
  return { values, hasQuery };
}
state.values = readAddress().values;
writeAddress(false);
