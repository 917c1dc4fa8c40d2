"""Compute the noise of drift in `sound` mode: floors, verdict and interval of every pair of groups (method §4)."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.analysis.drift_metrics import Metric
from filterdb.analysis.question import Question
from filterdb.errors import UsageError
from filterdb.numerics import noise
from filterdb.numerics.modes import Mode
from filterdb.numerics.sampling import Floor

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

FEW = 1_000
"""Groups with fewer filters are flagged, and their drift has no verdict and no interval."""

PERMUTATION_LIMIT = 10_000_000
"""Total number of permutations up to which noise is computed by default: half a minute."""

_MODELS_THAT_DOUBLE_COST = 30
"""Number of models of a pair that doubles the cost of a permutation."""

_PAIR_COST = 10
"""Cost of a pair without permutations, in permutations."""

MAX_GROUPS = 3_000
"""Largest number of groups with noise: its matrices would take gigabytes."""

TIE = 1e-4
"""Relative tolerance of a floor: permutations are in single precision, so a drift this near does not exceed it."""

DIFFERENT, INDISTINGUISHABLE, TOO_FEW = "different", "indistinguishable", "few"

BY_MODELS, BY_FEW_MODELS, BY_SAMPLING = "model", "few models", "sampling"

Noise = bool | int | None
"""None: if affordable. True: always. False: never. A number: with so many permutations and draws."""


class Cells(NamedTuple):
    """Hold the cells of a view; a cell has the layers of one model in one group.

    `of_layer` (layers,) is the cell of each layer; `group` and `model` (cells,) are those of each cell.
    """

    of_layer: Ints
    group: Ints
    model: Ints


class Judged(NamedTuple):
    """Hold floors, verdict and interval of all pairs, (groups, groups); the interval has its two bounds last."""

    floor: Floor
    model_floor: Floor
    permutations: Array
    interval: Array
    verdict: Array
    judged_by: Array


def cells(group: Ints, model: Ints) -> Cells:
    """Return the cells of layers with these groups and models, (layers,) int."""
    codes, of_layer = np.unique(np.stack([group, model]), axis=1, return_inverse=True)
    return Cells(of_layer.reshape(-1), codes[0], codes[1])


def wanted(asked: Noise, mode: Mode, metric: Metric, models: Ints) -> int:
    """Return the number of permutations and draws to make, 0 for no noise.

    `models` (groups,) is the number of models of each group. Raises UsageError if a mode without noise is asked for it.
    """
    if asked is not None and not isinstance(asked, bool) and asked < noise.ENOUGH_PERMUTATIONS:
        raise UsageError(f"noise: expected at least {noise.ENOUGH_PERMUTATIONS} permutations, got {asked}")
    if asked is not None and asked > noise.MOST_DRAWS:
        raise UsageError(f"noise: expected at most {noise.MOST_DRAWS:,} permutations, got {asked:,}")
    if asked and not mode.has_noise:
        raise UsageError(f"noise: expected mode sound, got {mode.name}; the paper's drift has no floors")
    if asked is False or not mode.has_noise:
        return 0
    if asked is not None and len(models) > MAX_GROUPS:
        raise UsageError(f"noise: expected at most {MAX_GROUPS:,} groups, got {len(models):,}; leave --noise out")
    if asked is not None:
        return noise.DRAWS if asked is True else asked
    affordable = len(models) <= metric.noise_limit and _cost(models) <= PERMUTATION_LIMIT
    return noise.DRAWS if affordable else 0


def _cost(models: Ints) -> int:
    """Return the cost of all pairs of groups, in permutations of few models, as if no model were in two groups."""
    sizes, groups = np.unique(models, return_counts=True)
    total = _PAIR_COST * len(models) * (len(models) - 1) // 2
    for i, j in itertools.combinations_with_replacement(range(len(sizes)), 2):
        ways = noise.permutations(int(sizes[i]), int(sizes[j]), 0)
        if ways >= noise.ENOUGH_PERMUTATIONS:
            pairs = groups[i] * (groups[j] if i != j else groups[i] - 1) // (1 if i != j else 2)
            cost = _MODELS_THAT_DOUBLE_COST + int(sizes[i] + sizes[j])
            total += min(ways, noise.DRAWS) * int(pairs) * cost // _MODELS_THAT_DOUBLE_COST
    return total


def judge(question: Question, metric: Metric, drift: npt.NDArray[np.float64], cells: Cells, draws: int) -> Judged:
    """Return the noise of a drift (groups, groups) of the question's groups, from `draws` permutations and draws."""
    statistic = metric.cell_statistic(question, cells.of_layer, len(cells.group))
    floor = metric.sampling_floor(question)
    model_floor, permutations = noise.model_floor(statistic, cells.group, cells.model, len(drift), draws)
    interval = noise.intervals(drift, statistic, cells.group, cells.model, draws)
    by_models = np.isfinite(model_floor.q95)
    limit = np.where(by_models, model_floor.q95, floor.q95)
    few = metric.filters(question) < FEW
    few = few[:, None] | few
    # With so few filters D does not grow with the square of a difference, as the interval assumes
    # (docs/explanation/noise.md).
    interval[few] = np.nan
    verdict = np.where(drift > limit * (1 + TIE), DIFFERENT, INDISTINGUISHABLE)
    verdict[np.isnan(limit)] = ""
    verdict[few] = TOO_FEW
    by = np.where(_can_differ(cells, permutations), BY_MODELS, BY_FEW_MODELS)
    judged_by = np.where(by_models, by, np.where(np.isnan(limit), "", BY_SAMPLING))
    np.fill_diagonal(verdict, "")
    return Judged(floor, model_floor, permutations, interval, verdict, judged_by)


def _can_differ(cells: Cells, permutations: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return whether any drift of a pair can exceed its model floor, (groups, groups) bool.

    D does not change when the two groups swap places. If both have as many models, the swap is a permutation too, so
    each value occurs twice, and the largest of 20 is not a 5 % event: three models against three never differ.
    """
    has = np.zeros((len(permutations), int(cells.model.max(initial=0)) + 1), np.int64)
    has[cells.group, cells.model] = 1
    own = has.sum(axis=1)[:, None] - has @ has.T
    enough: npt.NDArray[np.bool_] = permutations / np.where(own == own.T, 2, 1) >= noise.ENOUGH_PERMUTATIONS
    return enough


def variables(judged: Judged, order: Ints) -> dict[str, tuple[tuple[str, ...], Array, dict[str, str]]]:
    """Return the variables of noise, with groups in `order`."""
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
