// Verdicts on pairs of groups: the words and symbols of filterdb/verdicts.py.

// Return the verdict with an index in the core data, with its sentence in view of what it was judged by and of where a drift like
// noise stands: 0 within its noise, 1 above it, 2 above that of all pairs.
function verdictAt(index, judged = 0, standing = 0) {
  const verdict = core.verdicts[index] ?? core.verdicts.at(-1);
  return { ...verdict, sentence: standing ? verdict.above[standing - 1] : verdict.sentences[judged] };
}

// Return symbol and word of a verdict as an element.
const verdictMark = ({ symbol, word, tone }) => el("span", { class: `verdict t-${tone}` }, el("b", { "aria-hidden": "true" }, symbol), ` ${word}`);
