"""Noise of drift in `sound` mode: floors, verdict and interval of every pair of groups (method §4)."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from filterdb.analysis.drift_metrics import Metric
from filterdb.analysis.question import Question
from filterdb.errors import UsageError
from filterdb.numerics import noise
from filterdb.numerics.modes import Mode
from filterdb.numerics.sampling import Floor

Array = np.ndarray

FEW = 1_000
"""Groups with fewer filters are flagged: their drift has no verdict and no interval."""

PERMUTATION_LIMIT = 10_000_000
"""Permutations in all up to which noise is computed unasked: half a minute."""

CELL_COST = 30
"""So many models of a pair make a permutation cost twice as much."""

PAIR_COST = 10
"""What a pair without permutations costs, in permutations."""

ASKED_LIMIT = 3_000
"""Groups up to which noise is computed at all: its matrices alone would take gigabytes."""

TIE = 1e-4
"""Permutations are computed in single precision: a drift this near to a floor (relative) does not exceed it."""

DIFFERENT, INDISTINGUISHABLE, TOO_FEW = "different", "indistinguishable", "few"

BY_MODELS, BY_FEW_MODELS, BY_SAMPLING = "model", "few models", "sampling"

Noise = bool | int | None
"""None: where affordable. True: in any case. False: not at all. A number: so many permutations and draws."""


class Cells(NamedTuple):
    """Say what each model has in each group: `of_layer` (layers,) is each layer's cell; group and model (cells,)."""

    of_layer: Array
    group: Array
    model: Array


class Judged(NamedTuple):
    """Hold floors, verdict and interval of all pairs; (groups, groups), the interval with its two bounds last."""

    floor: Floor
    model_floor: Floor
    permutations: Array
    interval: Array
    verdict: Array
    judged_by: Array


def cells(group: Array, model: Array) -> Cells:
    """Return the cells of layers with these groups and models, (layers,) int."""
    codes, of_layer = np.unique(np.stack([group, model]), axis=1, return_inverse=True)
    return Cells(of_layer.reshape(-1), codes[0], codes[1])


def wanted(asked: Noise, mode: Mode, metric: Metric, models: Array) -> int:
    """Return how many permutations and draws to make; 0: no noise. `models` (groups,): how many each group has.

    Raises UsageError where it is asked of a mode that has none.
    """
    if asked is not None and not isinstance(asked, bool) and asked < noise.ENOUGH_PERMUTATIONS:
        raise UsageError(f"noise: expected at least {noise.ENOUGH_PERMUTATIONS} permutations, got {asked}")
    if asked is not None and asked > noise.MOST_DRAWS:
        raise UsageError(f"noise: expected at most {noise.MOST_DRAWS:,} permutations, got {asked:,}")
    if asked and not mode.has_noise:
        raise UsageError(f"noise: expected mode sound, got {mode.name}; the paper's drift has no floors")
    if asked is False or not mode.has_noise:
        return 0
    if asked is not None and len(models) > ASKED_LIMIT:
        raise UsageError(f"noise: expected at most {ASKED_LIMIT:,} groups, got {len(models):,}; leave --noise out")
    if asked is not None:
        return noise.DRAWS if asked is True else asked
    affordable = len(models) <= metric.noise_limit and _cost(models) <= PERMUTATION_LIMIT
    return noise.DRAWS if affordable else 0


def _cost(models: Array) -> int:
    """Return the permutations of all pairs of groups of so many models, as if no model were in two groups.

    Permutations of many models count more.
    """
    sizes, groups = np.unique(models, return_counts=True)
    total = PAIR_COST * len(models) * (len(models) - 1) // 2
    for i, j in itertools.combinations_with_replacement(range(len(sizes)), 2):
        ways = noise.permutations(int(sizes[i]), int(sizes[j]), 0)
        if ways >= noise.ENOUGH_PERMUTATIONS:
            pairs = groups[i] * (groups[j] if i != j else groups[i] - 1) // (1 if i != j else 2)
            together = CELL_COST + int(sizes[i] + sizes[j])
            total += min(ways, noise.DRAWS) * int(pairs) * together // CELL_COST
    return total


def judge(question: Question, metric: Metric, drift: Array, cells: Cells, draws: int) -> Judged:
    """Return the noise of a drift (groups, groups) of the question's groups, from `draws` permutations and draws."""
    of_cells = metric.cell_statistic(question, cells.of_layer, len(cells.group))
    floor = metric.sampling_floor(question)
    model_floor, permutations = noise.model_floor(of_cells, cells.group, cells.model, len(drift), draws)
    interval = noise.intervals(drift, of_cells, cells.group, cells.model, draws)
    by_models = np.isfinite(model_floor.q95)
    limit = np.where(by_models, model_floor.q95, floor.q95)
    few = metric.filters(question) < FEW
    few = few[:, None] | few
    # Below, D does not grow with the square of a difference, as the interval assumes (docs/explanation/noise.md).
    interval[few] = np.nan
    verdict = np.where(drift > limit * (1 + TIE), DIFFERENT, INDISTINGUISHABLE)
    verdict[np.isnan(limit)] = ""
    verdict[few] = TOO_FEW
    by = np.where(_can_differ(cells, permutations), BY_MODELS, BY_FEW_MODELS)
    judged_by = np.where(by_models, by, np.where(np.isnan(limit), "", BY_SAMPLING))
    np.fill_diagonal(verdict, "")
    return Judged(floor, model_floor, permutations, interval, verdict, judged_by)


def _can_differ(cells: Cells, permutations: Array) -> Array:
    """Return whether the model floor of a pair can be exceeded at all, (groups, groups) bool.

    D does not change when the two groups change places. Where that is a permutation too, each value stands twice, and
    the largest of 20 is no 5 % event: three models against three never differ, whatever their drift.
    """
    has = np.zeros((len(permutations), int(cells.model.max(initial=0)) + 1), np.int64)
    has[cells.group, cells.model] = 1
    own = has.sum(axis=1)[:, None] - has @ has.T
    enough: Array = permutations / np.where(own == own.T, 2, 1) >= noise.ENOUGH_PERMUTATIONS
    return enough


def variables(judged: Judged, order: Array) -> dict[str, tuple[tuple[str, ...], Array, dict[str, str]]]:
    """Return the variables of a result whose groups are in `order`."""
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
    named = {name: (pairs, values[place], {"long_name": doc}) for name, (values, doc) in matrices.items()}
    doc = {"long_name": "95 % interval of the drift, models drawn anew"}
    return {**named, "interval": ((*pairs, "bound"), judged.interval[place], doc)}
