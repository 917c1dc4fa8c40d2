"""Choose which pairs of groups the page names, and say what their verdicts mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.noise import FLOOR_BEHIND
from filterdb.numerics.significance import LEVEL
from filterdb.verdicts import (
    ABOVE,
    BY_LAYERS,
    BY_MODELS,
    BY_SAMPLING,
    DIFFERENT,
    INDISTINGUISHABLE,
    JUDGED_BY,
    TOO_FEW,
    UNCLEAR,
    WITHIN,
    Verdict,
    sentence,
    verdict_of,
)

DOUBTFUL = "differs, though one of several pairs may drift this far by chance"
"""What is said of a doubtful pair."""

_TIE = 1 + 1e-5
"""From this factor on a drift is above its floor, which may be that very drift, permuted in single precision."""


def comparable(result: xr.Dataset) -> np.ndarray:
    """Return the pairs (group, other) of which both have enough filters, each once."""
    few = result["few"].values
    both: np.ndarray = np.triu(~(few[:, None] | few) & np.isfinite(result["drift"].values), 1)
    return both


def is_telling(result: xr.Dataset) -> np.ndarray:
    """Return which pairs (group, other) can be named for their drift: those that differ, else all with enough filters.

    A pair that is named was chosen among all, so chance must not make some pair drift as much either. If no pair
    differs, the largest drift is named with its own verdict.
    """
    if "verdict" in result:
        differs: np.ndarray = result["verdict"].values == DIFFERENT
        if comparable(result).sum() > 1:
            differs = differs & ~(result["p_value_max"].values > LEVEL)
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


def verdict_at(result: xr.Dataset, pair: tuple[int, int]) -> Verdict:
    """Return the verdict of a pair; that without a code if there are no verdicts."""
    return verdict_of(str(result["verdict"].values[pair]) if "verdict" in result else None)


def judges(result: xr.Dataset, where: Any = ...) -> npt.NDArray[Any]:
    """Return what the verdicts of pairs rest on, as in `judged_by`, at some index of the matrix.

    A verdict like noise that is judged by layers rests on sampling where sampling has more noise than swapped layers.
    """
    if "judged_by" not in result:
        return np.full(result["drift"].values[where].shape, "")
    names = np.asarray(result["judged_by"].values[where], str)
    if "layer_floor_q95" not in result:
        return names
    alike = np.asarray(result["verdict"].values[where], str) == INDISTINGUISHABLE
    is_larger = result["floor_q95"].values[where] > result["layer_floor_q95"].values[where]
    return np.where((names == BY_LAYERS) & alike & is_larger, BY_SAMPLING, names)


def floors(result: xr.Dataset, where: Any = ...) -> npt.NDArray[np.float64]:
    """Return the drift that chance alone explains in 95 % of the cases, by what verdicts rest on; NaN without noise."""
    names = judges(result, where)
    values = np.full(names.shape, np.nan)
    for judge in {*JUDGED_BY, ""}:
        name = FLOOR_BEHIND.get(judge, "floor_q95")
        if name in result:
            values = np.where(names == judge, result[name].values[where], values)
    return values


def standings(result: xr.Dataset, where: Any = ...) -> npt.NDArray[np.int8]:
    """Return where drifts like noise stand: WITHIN the noise of their pair or without verdict, ABOVE it, or UNCLEAR.

    UNCLEAR ones are above what chance makes of any pair, too: only the correction for the number of pairs speaks
    against a difference. Units of models that are permuted tell this; other judges do not.
    """
    drift = result["drift"].values[where]
    if "verdict" not in result:
        return np.full(drift.shape, WITHIN, np.int8)
    alike = np.asarray(result["verdict"].values[where], str) == INDISTINGUISHABLE
    with np.errstate(invalid="ignore"):
        above = alike & (drift > _TIE * floors(result, where))
        unclear = above & (judges(result, where) == BY_MODELS) & (result["p_value_max"].values[where] <= LEVEL)
    return np.where(unclear, UNCLEAR, np.where(above, ABOVE, WITHIN)).astype(np.int8)


def floor_behind(result: xr.Dataset, pair: tuple[int, int]) -> float | None:
    """Return the drift that chance alone explains in 95 % of the cases; None without noise."""
    value = float(floors(result, pair))
    return value if np.isfinite(value) else None


def noise_of(result: xr.Dataset, pair: tuple[int, int]) -> str:
    """Return what the floor behind a pair's verdict is about."""
    return {BY_MODELS: "chance", BY_LAYERS: "swapping layers of the two"}.get(
        str(judges(result, pair)), "sampling of filters"
    )


def is_doubtful(result: xr.Dataset, pair: tuple[int, int]) -> bool:
    """Return whether a pair differs, but not beyond what chance makes of some pair among several."""
    if verdict_at(result, pair).code != DIFFERENT or comparable(result).sum() < 2:
        return False
    return bool(result["p_value_max"].values[pair] > LEVEL)


def meaning(result: xr.Dataset, pair: tuple[int, int], *, is_chosen: bool = False) -> str:
    """Return the sentence about the verdict of a pair, which may be chosen among all as the farthest."""
    verdict = verdict_at(result, pair)
    standing = int(standings(result, pair))
    text = sentence(verdict.code, str(judges(result, pair)), standing=standing)
    if is_chosen and is_doubtful(result, pair):
        return f"{text} Still, one of several pairs may drift this far by chance."
    if standing == ABOVE and str(judges(result, pair)) == BY_MODELS:
        chance = float(result["p_value_max"].values[pair])
        return f"{text} Here, that happens in {chance:.0%} of cases." if np.isfinite(chance) else text
    return text
