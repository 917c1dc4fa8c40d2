"""Noise of drift in `sound` mode: floors, verdict and interval of every pair of groups (method §4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from filterdb.errors import UsageError
from filterdb.numerics import divergence, noise
from filterdb.numerics.moments import Moments, pool
from filterdb.numerics.resampling import FrechetDistance, HistogramDivergence, Statistic, SymmetricKL
from filterdb.numerics.sampling import Floor, SamplingFloor

Array = np.ndarray

FEW = 1_000
"""Groups with fewer filters are flagged: their drift has no verdict and no interval."""

GROUP_LIMIT = 1_000
PERMUTATION_LIMIT = 10_000_000
"""Unasked, noise is computed of up to so many groups, and up to so many permutations in all: half a minute."""

CELL_COST = 30
"""So many models of a pair make a permutation cost twice as much."""

PAIR_COST = 10
"""What a pair without permutations costs, in permutations."""

ASKED_LIMIT = 3_000
"""Nor is it computed of more, asked or not: its matrices alone would take gigabytes."""

SLOW_LIMIT = 30
"""Unasked, of up to so many groups for metrics other than kl and psi: a pair takes them fifty times as long."""

TIE = 1e-4
"""Permutations are computed in single precision: a drift this near to a floor (relative) does not exceed it."""

DIFFERENT, INDISTINGUISHABLE, TOO_FEW = "different", "indistinguishable", "few"

BY_MODELS, BY_FEW_MODELS, BY_SAMPLING = "model", "few models", "sampling"

Noise = bool | int | None
"""None: where affordable. True: in any case. False: not at all. A number: so many permutations and draws."""


class Cells(NamedTuple):
    """What each model has in each group: `of_layer` (layers,) is each layer's cell; group and model (cells,)."""

    of_layer: Array
    group: Array
    model: Array


class Judged(NamedTuple):
    """Floors, verdict and interval of all pairs; (groups, groups), the interval with its two bounds last."""

    floor: Floor
    model_floor: Floor
    permutations: Array
    interval: Array
    verdict: Array
    judged_by: Array


def cells(group: Array, model: Array) -> Cells:
    """Of layers with these groups and models, (layers,) int."""
    codes, of_layer = np.unique(np.stack([group, model]), axis=1, return_inverse=True)
    return Cells(of_layer.reshape(-1), codes[0], codes[1])


def wanted(asked: Noise, mode: str, metric: str, models: Array) -> int:
    """How many permutations and draws to make; 0: no noise. `models` (groups,): how many each has.

    Raises UsageError where it is asked of a mode that has none.
    """
    if asked is not None and not isinstance(asked, bool) and asked < noise.ENOUGH_PERMUTATIONS:
        raise UsageError(f"noise: expected at least {noise.ENOUGH_PERMUTATIONS} permutations, got {asked}")
    if asked is not None and asked > noise.MOST_DRAWS:
        raise UsageError(f"noise: expected at most {noise.MOST_DRAWS:,} permutations, got {asked:,}")
    if asked and mode != "sound":
        raise UsageError(f"noise: expected mode sound, got {mode}; the paper's drift has no floors")
    if asked is False or mode != "sound":
        return 0
    if asked is not None and len(models) > ASKED_LIMIT:
        raise UsageError(f"noise: expected at most {ASKED_LIMIT:,} groups, got {len(models):,}; leave --noise out")
    if asked is not None:
        return noise.DRAWS if asked is True else asked
    limit = GROUP_LIMIT if metric in {"kl", "psi"} else SLOW_LIMIT
    return noise.DRAWS if len(models) <= limit and _cost(models) <= PERMUTATION_LIMIT else 0


def _cost(models: Array) -> int:
    """Permutations of all pairs of groups of so many models, as if none were in two; those of many count more."""
    sizes, groups = np.unique(models, return_counts=True)
    total = PAIR_COST * len(models) * (len(models) - 1) // 2
    for i, j in itertools.combinations_with_replacement(range(len(sizes)), 2):
        ways = noise.permutations(int(sizes[i]), int(sizes[j]), 0)
        if ways >= noise.ENOUGH_PERMUTATIONS:
            pairs = groups[i] * (groups[j] if i != j else groups[i] - 1) // (1 if i != j else 2)
            together = CELL_COST + int(sizes[i] + sizes[j])
            total += min(ways, noise.DRAWS) * int(pairs) * together // CELL_COST
    return total


def statistic(metric: str, counts: Array, whole: Array, weights: Array, width: float) -> Statistic:
    """Of cells' or groups' histograms (…, 9, 70); `whole` (9, 70) the snapshot's, `width` that of a bin."""
    functions: dict[str, Callable[[Array, Array], Array]] = {
        "js": divergence.jensen_shannon,
        "hellinger": lambda p, q: divergence.of_roots(np.sqrt(p), np.sqrt(q)),
        "wasserstein": lambda p, q: width * divergence.of_sums(np.cumsum(p, axis=-1), np.cumsum(q, axis=-1)),
    }
    if metric in functions:
        return HistogramDivergence(counts, whole, weights, functions[metric], is_square=metric == "js")
    return SymmetricKL(counts, whole, weights)


def of_histograms(
    drift: Array, metric: str, found: Cells, counts: Array, whole: Array, weights: Array, width: float, draws: int
) -> Judged:
    """Noise of a drift (groups, groups) of histograms; `counts` (layers, 9, 70) of the layers in `found`."""
    by_cell = np.zeros((len(found.group), *counts.shape[1:]), np.int64)
    np.add.at(by_cell, found.of_layer, counts)
    by_group = np.zeros((len(drift), *counts.shape[1:]), np.int64)
    np.add.at(by_group, found.group, by_cell)
    if metric in {"kl", "psi"}:
        floor = SamplingFloor(whole, weights).matrix(by_group)
    else:
        floor = noise.sampling_floor(statistic(metric, by_group, whole, weights, width))
    return _judge(
        drift, found, statistic(metric, by_cell, whole, weights, width), floor, by_group[:, 0].sum(axis=-1), draws
    )


def of_moments(drift: Array, found: Cells, layers: Moments, draws: int) -> Judged:
    """Noise of a Fréchet drift. It has no sampling floor: moments do not tell how filters are distributed."""
    states = pool(layers, found.of_layer, len(found.group))
    nothing = Floor(*np.full((2, *drift.shape), np.nan))
    number = np.zeros(len(drift), np.int64)
    np.add.at(number, found.group, states.count)
    return _judge(drift, found, FrechetDistance(states), nothing, number, draws)


def _judge(drift: Array, found: Cells, of_cells: Statistic, floor: Floor, number: Array, draws: int) -> Judged:
    model_floor, permutations = noise.model_floor(of_cells, found.group, found.model, len(drift), draws)
    interval = noise.intervals(drift, of_cells, found.group, found.model, draws)
    by_models = np.isfinite(model_floor.q95)
    limit = np.where(by_models, model_floor.q95, floor.q95)
    few = number < FEW
    few = few[:, None] | few
    # Below, D does not grow with the square of a difference, as the interval assumes (docs/explanation/noise.md).
    interval[few] = np.nan
    verdict = np.where(drift > limit * (1 + TIE), DIFFERENT, INDISTINGUISHABLE)
    verdict[np.isnan(limit)] = ""
    verdict[few] = TOO_FEW
    by = np.where(_telling(found, permutations), BY_MODELS, BY_FEW_MODELS)
    judged_by = np.where(by_models, by, np.where(np.isnan(limit), "", BY_SAMPLING))
    np.fill_diagonal(verdict, "")
    return Judged(floor, model_floor, permutations, interval, verdict, judged_by)


def _telling(found: Cells, permutations: Array) -> Array:
    """Whether the model floor of a pair can be exceeded at all, (groups, groups) bool.

    D does not change when the two groups change places. Where that is a permutation too, each value stands twice, and
    the largest of 20 is no 5 % event: three models against three never differ, whatever their drift.
    """
    has = np.zeros((len(permutations), int(found.model.max(initial=0)) + 1), np.int64)
    has[found.group, found.model] = 1
    own = has.sum(axis=1)[:, None] - has @ has.T
    enough: Array = permutations / np.where(own == own.T, 2, 1) >= noise.ENOUGH_PERMUTATIONS
    return enough


def variables(judged: Judged, order: Array) -> dict[str, tuple[tuple[str, ...], Array, dict[str, str]]]:
    """The variables of a result whose groups stand in `order`."""
    pairs = ("group", "other")
    place = np.ix_(order, order)
    matrices = {
        "floor": (judged.floor.mean, "mean drift of two samples of the pooled histogram"),
        "floor_q95": (judged.floor.q95, "95 % quantile of that"),
        "model_floor": (judged.model_floor.mean, "mean drift after permuting models between the groups"),
        "model_floor_q95": (judged.model_floor.q95, "95 % quantile of that"),
        "permutations": (judged.permutations, "in how many ways the models can be permuted"),
        "verdict": (judged.verdict, "drift against model_floor_q95, without it against floor_q95"),
        "judged_by": (judged.judged_by, "which floor the verdict is by"),
    }
    found = {name: (pairs, values[place], {"long_name": doc}) for name, (values, doc) in matrices.items()}
    doc = {"long_name": "95 % interval of the drift, models drawn anew"}
    return {**found, "interval": ((*pairs, "bound"), judged.interval[place], doc)}
