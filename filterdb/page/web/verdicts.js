// Verdicts on pairs of groups: the words and symbols of filterdb/verdicts.py.

// Return the verdict with an index in the core data, with its sentence in view of what it was judged by and whether the drift
// is above the noise of its pair.
function verdictAt(index, judged = 0, isAbove = false) {
  const verdict = core.verdicts[index] ?? core.verdicts.at(-1);
  return { ...verdict, sentence: (isAbove ? verdict.above : verdict.sentences)[judged] };
}

// Return symbol and word of a verdict as an element.
const verdictMark = ({ symbol, word, tone }) => el("span", { class: `verdict t-${tone}` }, el("b", { "aria-hidden": "true" }, symbol), ` ${word}`);
