"""The words of verdicts on pairs of groups, which the page, tables, figures and messages share.

Results and JSON have the codes, which scripts rely on; readers see the words and symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DIFFERENT, INDISTINGUISHABLE, TOO_FEW = "different", "indistinguishable", "few"
RELATED, BY_FILTERS = "related", "different_by_filters"

BY_MODELS, BY_LAYERS, BY_FEW_MODELS, BY_SAMPLING = "model", "layers", "few models", "sampling"
JUDGED_BY = (BY_SAMPLING, BY_MODELS, BY_FEW_MODELS, BY_LAYERS)
"""What a verdict is judged by. The page's scripts use the indices of these and of VERDICTS."""

Tone = Literal["bad", "neutral", "unknown"]
"""How a verdict is coloured. Colour only repeats what word and symbol say."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold a verdict: its code in results, and the word, symbol, tone and sentence that readers see."""

    code: str
    word: str
    symbol: str
    tone: Tone
    sentence: str

    @property
    def text(self) -> str:
        """Return symbol and word."""
        return f"{self.symbol} {self.word}"


_DIFFERS, _LIKE_NOISE, _RELATED, _CANNOT_TELL = "differs", "like noise", "related", "cannot tell"

VERDICTS = (
    Verdict(DIFFERENT, _DIFFERS, "≠", "bad", "The groups differ by more than chance explains."),
    Verdict(INDISTINGUISHABLE, _LIKE_NOISE, "≈", "neutral", "Chance alone can explain this drift."),
    Verdict(TOO_FEW, _CANNOT_TELL, "?", "unknown", "A group has fewer than 1,000 filters."),
    Verdict(RELATED, _RELATED, "=", "neutral", "Nearer than independent filters can be: they have a common origin."),
    Verdict(
        BY_FILTERS,
        _CANNOT_TELL,
        "?",
        "unknown",
        "Too few models to tell: the filters at hand differ, but those of other models in these groups might not.",
    ),
    Verdict("", _CANNOT_TELL, "?", "unknown", "The noise of this pair was not computed."),
)
"""All verdicts. The empty code, null in JSON, stands for a pair without a verdict."""

_VERDICT_OF = {verdict.code: verdict for verdict in VERDICTS}

_BY_NUMBERS = "Sampling of filters alone can explain this drift; there are too few models to judge by."

QUALIFIED = {
    (
        BY_FILTERS,
        BY_LAYERS,
    ): "These two models differ from layer to layer, but other models of the groups might not.",
    (INDISTINGUISHABLE, BY_LAYERS): "Swapping layers between these two models can explain this drift.",
    (INDISTINGUISHABLE, BY_FEW_MODELS): _BY_NUMBERS,
    (INDISTINGUISHABLE, BY_SAMPLING): _BY_NUMBERS,
}
"""Sentences that say more than that of the verdict alone, by code and `judged_by`."""

OF_SEVERAL = (
    "Above the noise of a single pair, but not shown to differ: one of several pairs may drift this far by chance."
)
"""What is said of a pair like noise whose drift is above its noise: the verdict is about all pairs of the matrix."""

CORRECTED = "Above its noise, but not clearly enough once corrected for the number of pairs."
"""What is said of such a pair if chance rarely makes any pair drift as much."""

WITHIN, ABOVE, UNCLEAR = range(3)
"""Where a drift like noise stands: within the noise of its pair, above it, or above that of all pairs. The page's
scripts use these numbers."""

FEW_MODELS = "°"
"""Mark in tables of verdicts that rest on the numbers of filters only, because there are too few models."""

WORDS = " · ".join(
    {verdict.text: None for code in (DIFFERENT, INDISTINGUISHABLE, RELATED, TOO_FEW) for verdict in [_VERDICT_OF[code]]}
)
"""All words with their symbols, for a line below a table."""


def verdict_of(code: str | None) -> Verdict:
    """Return the verdict with this code; that without a code for None.

    Raises KeyError for an unknown code.
    """
    return _VERDICT_OF[code or ""]


def sentence(code: str | None, judged_by: str | None = "", *, standing: int = WITHIN) -> str:
    """Return what a verdict says, in view of what it was judged by and where a drift like noise stands."""
    verdict = verdict_of(code)
    if standing != WITHIN:
        return {ABOVE: OF_SEVERAL, UNCLEAR: CORRECTED}[standing]
    return QUALIFIED.get((verdict.code, judged_by or ""), verdict.sentence)


def mark(code: str | None, judged_by: str | None = "") -> str:
    """Return the symbol of a verdict, followed by ° if it rests on the numbers of filters only."""
    verdict = verdict_of(code)
    by_numbers = judged_by in {BY_SAMPLING, BY_FEW_MODELS} and verdict.code not in {"", TOO_FEW, RELATED}
    return verdict.symbol + (FEW_MODELS if by_numbers or verdict.code == BY_FILTERS else "")


def legend() -> list[dict[str, str | None]]:
    """Return all verdicts for JSON: code (null for no verdict), word, symbol and sentence."""
    return [
        {"code": verdict.code or None, "word": verdict.word, "symbol": verdict.symbol, "sentence": verdict.sentence}
        for verdict in VERDICTS
    ]
