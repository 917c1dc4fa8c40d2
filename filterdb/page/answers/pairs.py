"""Answer which pairs of groups are farthest and closest."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.numerics.divergence import symmetric_kl
from filterdb.page.answers.tile import CANNOT_TELL, Line, State, Tile, left_out
from filterdb.page.highlights import MANY, address, farthest, floor_behind
from filterdb.page.results import Results
from filterdb.plotting.drawing import visible
from filterdb.verdicts import BY_FILTERS, DIFFERENT, JUDGED_BY, Verdict, sentence, verdict_of
from filterdb.wording import counted

STATE_OF_TONE: dict[str, State] = {"bad": "warn", "neutral": "unknown", "unknown": "unknown"}
"""The state of a tile about a pair of groups, by the tone of its verdict."""

DOUBTFUL = "differs, but as the largest of all pairs may do so by chance"
"""What is said of a pair that differs and is not named: chance explains the largest of all drifts (`is_telling`)."""

PREFERRED = ("task", "family", "model", "visual_category", "training_dataset", "depth_decile")
"""The groupings of which a pair is shown, in the order of preference."""


def grouping(results: Results) -> str | None:
    """Return the grouping whose pairs are shown: where a pair differs, else where there are pairs to compare."""
    present = [by for by in PREFERRED if by in results.drifts]
    for wanted in (_number_differing, lambda result: _number_comparable(result) > 1, _number_comparable):
        for by in present:
            if wanted(results.drifts[by]):
                return by
    return None


def _number_differing(result: xr.Dataset) -> int:
    return int((result["verdict"].values == DIFFERENT).sum()) if "verdict" in result else 0


def _comparable(result: xr.Dataset) -> np.ndarray:
    """Return the pairs (group, other) of which both have enough filters, each once."""
    enough = ~result["few"].values
    return np.triu(enough[:, None] & enough & np.isfinite(result["drift"].values), 1)


def _number_comparable(result: xr.Dataset) -> int:
    return int(_comparable(result).sum())


def pair_tiles(results: Results, by: str | None) -> list[Tile]:
    """Answer which pair of groups is farthest and which is closest."""
    if by is None:
        answer = "There are no two groups with enough filters to compare."
        return [Tile("farthest", "Farthest pair", "unknown", CANNOT_TELL, answer)]
    result = results.drifts[by]
    comparable = _comparable(result)
    values = np.where(comparable, result["drift"].values, np.nan)
    named = farthest(result)
    far = named or np.unravel_index(int(np.nanargmax(values)), values.shape)
    near = np.unravel_index(int(np.nanargmin(values)), values.shape)
    tiles = [_pair_tile(result, "farthest", f"Farthest {MANY[by]}", (int(far[0]), int(far[1])))]
    if comparable.sum() > 1:
        tiles.append(_pair_tile(result, "closest", f"Closest {MANY[by]}", (int(near[0]), int(near[1]))))
    return tiles


def _pair_tile(result: xr.Dataset, key: str, question: str, pair: tuple[int, int]) -> Tile:
    """Return the tile of a pair of groups: names, verdict, ruler, and the histograms of its main component."""
    by, (i, j) = str(result.attrs["by"]), pair
    a, b = (visible(result["group"].values[k]) for k in pair)
    verdict, judged_by = _verdict(result, i, j)
    p, q = (result["probabilities"].values[k] for k in pair)
    parts = result["weights"].values * symmetric_kl(p, q)
    component = int(np.argmax(parts))
    drift = float(result["drift"].values[i, j])
    return Tile(
        key,
        question,
        STATE_OF_TONE[verdict.tone],
        verdict.word,
        f"D = {drift:.2g}",
        sign=verdict.symbol,
        names=(a, b),
        are_models=by == "model",
        lines=(Line(sentence(verdict.code, judged_by)),),
        note=_exclusions(result, key, pair),
        link=("Compare the two", address("drift", by=by, a=a, b=b)),
        picture={
            "drift": drift,
            "floor": floor_behind(result, i, j),
            "judged": JUDGED_BY.index(judged_by) if judged_by in JUDGED_BY else 0,
            "largest": float(np.nanmax(result["drift"].values)),
            "component": component,
            "share": float(parts[component] / (parts.sum() or 1.0)),
            "p": [round(float(value), 5) for value in p[component]],
            "q": [round(float(value), 5) for value in q[component]],
        },
    )


def _verdict(result: xr.Dataset, i: int, j: int) -> tuple[Verdict, str]:
    """Return the verdict of a pair and what it is judged by."""
    if "verdict" not in result:
        return verdict_of(None), ""
    return verdict_of(str(result["verdict"].values[i, j])), str(result["judged_by"].values[i, j])


def _exclusions(result: xr.Dataset, key: str, pair: tuple[int, int]) -> str:
    """Say among which groups a pair has the largest or smallest drift, and why larger drifts are not named."""
    by = str(result.attrs["by"])
    few = int(result["few"].sum())
    larger = _larger(result, pair) if key == "farthest" else {}
    what = "largest D" if key == "farthest" else "smallest D"
    if larger:
        what += " that differs beyond doubt" if DOUBTFUL in larger else " that differs"
        if _verdict(result, *pair)[0].code == BY_FILTERS:
            what = "largest D that is more than chance between these filters"
    among = f"the {result.sizes['group'] - few:,} {MANY[by]} of at least 1,000 filters" if few else f"all {MANY[by]}"
    text = f"The {what} among {among}"
    if few:
        text += f"; {left_out(few)}"
    if larger:
        number = sum(larger.values())
        verdicts = ", ".join(f"{of_word:,} {word}" for word, of_word in larger.items())
        text += f"; {counted(number, 'pair')} {'has' if number == 1 else 'have'} a larger D: {verdicts}"
    return f"{text}."


def _larger(result: xr.Dataset, pair: tuple[int, int]) -> dict[str, int]:
    """Return the number of pairs with a larger drift than a pair by the word of their verdict."""
    is_larger = _comparable(result) & (result["drift"].values > result["drift"].values[pair])
    numbers: dict[str, int] = {}
    for i, j in np.argwhere(is_larger).tolist():
        verdict = _verdict(result, i, j)[0]
        word = DOUBTFUL if verdict.code == DIFFERENT else verdict.word
        numbers[word] = numbers.get(word, 0) + 1
    return dict(sorted(numbers.items()))
