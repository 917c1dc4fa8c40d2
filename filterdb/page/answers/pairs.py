"""Answer which pairs of groups are farthest and closest."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.numerics.divergence import symmetric_kl
from filterdb.page.answers.tile import CANNOT_TELL, Line, State, Tile, left_out
from filterdb.page.highlights import MANY, address
from filterdb.page.pair_verdicts import (
    DOUBTFUL,
    comparable,
    farthest,
    floor_behind,
    judges,
    larger_than,
    meaning,
    verdict_at,
)
from filterdb.page.results import Results
from filterdb.plotting.drawing import visible
from filterdb.verdicts import BY_FILTERS, DIFFERENT, JUDGED_BY
from filterdb.wording import counted

STATE_OF_TONE: dict[str, State] = {"bad": "warn", "neutral": "unknown", "unknown": "unknown"}
"""The state of a tile about a pair of groups, by the tone of its verdict."""

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


def _number_comparable(result: xr.Dataset) -> int:
    return int(comparable(result).sum())


def pair_tiles(results: Results, by: str | None) -> list[Tile]:
    """Answer which pair of groups is farthest and which is closest."""
    if by is None:
        answer = "There are no two groups with enough filters to compare."
        return [Tile("farthest", "Farthest pair", "unknown", CANNOT_TELL, answer)]
    result = results.drifts[by]
    values = np.where(comparable(result), result["drift"].values, np.nan)
    far = farthest(result) or np.unravel_index(int(np.nanargmax(values)), values.shape)
    near = np.unravel_index(int(np.nanargmin(values)), values.shape)
    pair = int(far[0]), int(far[1])
    few = int(result["few"].sum())
    number = result.sizes["group"] - few
    groups = f"of {number:,} {MANY[by]}" if few else MANY[by]
    question = f"Farthest {groups}"
    if larger_than(result, pair):
        question = f"Farthest pair that differs, of {number:,} {MANY[by]}"
    tiles = [_pair_tile(result, "farthest", question, pair)]
    if np.isfinite(values).sum() > 1:
        tiles.append(_pair_tile(result, "closest", f"Closest {groups}", (int(near[0]), int(near[1]))))
    return tiles


def _pair_tile(result: xr.Dataset, key: str, question: str, pair: tuple[int, int]) -> Tile:
    """Return the tile of a pair of groups: names, verdict, ruler, and the histograms of its main component."""
    by, (i, j) = str(result.attrs["by"]), pair
    a, b = (visible(result["group"].values[k]) for k in pair)
    verdict, judge = verdict_at(result, pair), str(judges(result, pair))
    p, q = (result["probabilities"].values[k] for k in pair)
    parts = result["weights"].values * symmetric_kl(p, q)
    component = int(np.argmax(parts))
    drift = float(result["drift"].values[i, j])
    text = meaning(result, pair, is_chosen=key == "farthest")
    text += _models(result, pair) if verdict.code == BY_FILTERS else ""
    return Tile(
        key,
        question,
        STATE_OF_TONE[verdict.tone],
        verdict.word,
        f"D = {drift:.2g}",
        sign=verdict.symbol,
        names=(a, b),
        are_models=by == "model",
        lines=(Line(text),),
        note=_exclusions(result, key, pair),
        link=("Compare the two", address("drift", by=by, a=a, b=b)),
        picture={
            "drift": drift,
            "floor": floor_behind(result, pair),
            "judged": JUDGED_BY.index(judge) if judge in JUDGED_BY else 0,
            "component": component,
            "share": float(parts[component] / (parts.sum() or 1.0)),
            "p": [round(float(value), 5) for value in p[component]],
            "q": [round(float(value), 5) for value in q[component]],
        },
    )


def _models(result: xr.Dataset, pair: tuple[int, int]) -> str:
    """Say how many models the groups of a pair have, unless they are models themselves."""
    if result.attrs["by"] == "model":
        return ""
    texts = []
    for i in pair:
        models, units = (int(result[name].values[i]) for name in ("models", "units"))
        alike = f", {units:,} of them independent" if units < models else ""
        texts.append(f"“{visible(result['group'].values[i])}” has {counted(models, 'model')}{alike}")
    return f" {'; '.join(texts)}."


def _exclusions(result: xr.Dataset, key: str, pair: tuple[int, int]) -> str:
    """Say among which groups a pair has the largest or smallest drift, and why larger drifts are not named."""
    by = str(result.attrs["by"])
    few = int(result["few"].sum())
    larger = larger_than(result, pair) if key == "farthest" else []
    verdicts = [verdict_at(result, other) for other in larger]
    what = "farthest pair" if key == "farthest" else "closest pair"
    if larger:
        what += " that clearly differs" if any(verdict.code == DIFFERENT for verdict in verdicts) else " that differs"
    among = f"the {result.sizes['group'] - few:,} {MANY[by]} of at least 1,000 filters" if few else f"all {MANY[by]}"
    text = f"The {what} among {among}"
    if few:
        text += f"; {left_out(few)}"
    words = [DOUBTFUL if verdict.code == DIFFERENT else verdict.word for verdict in verdicts]
    if len(larger) == 1:
        a, b = (visible(result["group"].values[k]) for k in larger[0])
        return f"{text}. D is larger between “{a}” and “{b}”, {result['drift'].values[larger[0]]:.2g} ({words[0]})."
    if larger:
        numbers = ", ".join(f"{words.count(word):,} ({word})" for word in sorted(set(words)))
        text += f". {len(larger):,} pairs have a larger D: {numbers}"
    return f"{text}."
