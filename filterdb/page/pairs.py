"""Choose which pairs of groups the page names, and say what their verdicts mean."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.analysis.noise import FLOOR_BEHIND
from filterdb.numerics.significance import LEVEL
from filterdb.verdicts import (
    BY_LAYERS,
    BY_MODELS,
    DIFFERENT,
    INDISTINGUISHABLE,
    OF_SEVERAL,
    TOO_FEW,
    Verdict,
    sentence,
    verdict_of,
)

DOUBTFUL = "differs, though chance may explain the largest of all drifts"
"""What is said of a pair that differs while chance explains the largest of all drifts (`is_doubtful`)."""

TOO_MANY = "Above its noise, but not clearly enough for a verdict on so many pairs."
"""What is said of a pair like noise for which only the number of pairs speaks against a difference."""

_NOISE_OF = {"floor_q95": "sampling of filters", "layer_floor_q95": "swapping layers of the two"}
"""What the floors explain that are not about models."""

_ROUNDED = 1.001
"""Drifts in the page's files are exact to 0.03 %, so a drift is above its noise from this factor on."""


def comparable(result: xr.Dataset) -> np.ndarray:
    """Return the pairs (group, other) of which both have enough filters, each once."""
    few = result["few"].values
    both: np.ndarray = np.triu(~(few[:, None] | few) & np.isfinite(result["drift"].values), 1)
    return both


def is_telling(result: xr.Dataset) -> np.ndarray:
    """Return which pairs (group, other) can be named for their drift: those that differ, else all with enough filters.

    A pair that is named was chosen among all, so chance must not explain the largest of all drifts either. If no pair
    differs, the largest drift is named with its own verdict.
    """
    if "verdict" in result:
        differs: np.ndarray = (result["verdict"].values == DIFFERENT) & ~(result["p_value_max"].values > LEVEL)
        if differs.any():
            return differs
    few: np.ndarray = result["few"].values
    both: np.ndarray = ~(few[:, None] | few)
    return both


def farthest(result: xr.Dataset) -> tuple[int, int] | None:
    """Return the pair with the largest drift among those that can be named, or None."""
    values = np.where(is_telling(result) & comparable(result), np.nan_to_num(result["drift"].values), 0.0)
    i, j = np.unravel_index(int(np.argmax(values)), values.shape)
    return (int(i), int(j)) if values[i, j] > 0 else None


def larger_than(result: xr.Dataset, pair: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the comparable pairs with a larger drift than a pair, the largest first."""
    drift = result["drift"].values
    larger = np.argwhere(comparable(result) & (drift > drift[pair]))
    order = np.argsort(-drift[tuple(larger.T)], kind="stable")
    return [(int(i), int(j)) for i, j in larger[order]]


def judged(result: xr.Dataset) -> np.ndarray:
    """Return the pairs (group, other) with a verdict by their models, which holds for other models of the same kind."""
    by_models = result["judged_by"].values == BY_MODELS
    judged: np.ndarray = by_models & (result["verdict"].values != TOO_FEW)
    return judged


def verdict_at(result: xr.Dataset, pair: tuple[int, int]) -> tuple[Verdict, str]:
    """Return the verdict of a pair and what it is judged by."""
    if "verdict" not in result:
        return verdict_of(None), ""
    return verdict_of(str(result["verdict"].values[pair])), str(result["judged_by"].values[pair])


def floor_behind(result: xr.Dataset, i: int, j: int) -> float | None:
    """Return the drift that chance alone explains in 95 % of the cases; None without noise."""
    name = _floor_name(result, i, j)
    value = float(result[name].values[i, j]) if name in result else np.nan
    return value if np.isfinite(value) else None


def noise_of(result: xr.Dataset, pair: tuple[int, int]) -> str:
    """Return what the floor behind a pair's verdict is about."""
    return "chance" if judged(result)[pair] else _NOISE_OF.get(_floor_name(result, *pair), "chance")


def _floor_name(result: xr.Dataset, i: int, j: int) -> str:
    """Return the variable of the floor behind a pair's verdict."""
    judged_by = str(result["judged_by"].values[i, j]) if "judged_by" in result else ""
    return FLOOR_BEHIND.get(judged_by, "floor_q95")


def is_above(result: xr.Dataset, pair: tuple[int, int]) -> bool:
    """Return whether the drift of a pair is above all noise that its verdict compares with."""
    floor = floor_behind(result, *pair)
    if floor is None:
        return False
    if verdict_at(result, pair)[1] == BY_LAYERS:
        floor = max(floor, float(result["floor_q95"].values[pair]))
    return bool(result["drift"].values[pair] > _ROUNDED * floor)


def is_doubtful(result: xr.Dataset, pair: tuple[int, int]) -> bool:
    """Return whether a pair differs while chance explains the largest of all drifts."""
    return verdict_at(result, pair)[0].code == DIFFERENT and bool(result["p_value_max"].values[pair] > LEVEL)


def meaning(result: xr.Dataset, pair: tuple[int, int]) -> str:
    """Return the sentence about the verdict of a pair."""
    verdict, judged_by = verdict_at(result, pair)
    if is_doubtful(result, pair):
        return f"{sentence(verdict.code, judged_by)} Still, chance may explain the largest of all drifts."
    if verdict.code != INDISTINGUISHABLE or not is_above(result, pair):
        return sentence(verdict.code, judged_by)
    # Only where units of models are permuted does this say how often chance makes some pair drift as much.
    chance = float(result["p_value_max"].values[pair]) if judged_by == BY_MODELS else np.nan
    if chance <= LEVEL:
        return TOO_MANY
    return f"{OF_SEVERAL} Here, that happens in {chance:.0%} of cases." if np.isfinite(chance) else OF_SEVERAL
