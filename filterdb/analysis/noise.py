"""Compute the noise of drift in `sound` mode: floors, verdict and interval of every pair of groups."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.analysis.drift_metrics import Metric
from filterdb.analysis.layer_swaps import swap_layers
from filterdb.analysis.question import Question
from filterdb.analysis.units import effective_number
from filterdb.errors import UsageError
from filterdb.numerics import noise
from filterdb.numerics.intervals import COVERAGE, ENOUGH_MODELS, intervals
from filterdb.numerics.largest import largest_p_values
from filterdb.numerics.modes import Mode
from filterdb.numerics.pairs import distinct_pairs
from filterdb.numerics.sampling import Floor
from filterdb.numerics.significance import LEVEL, benjamini_yekutieli, detectable, harmonic, p_above, p_below
from filterdb.verdicts import (
    BY_FEW_MODELS,
    BY_FILTERS,
    BY_LAYERS,
    BY_MODELS,
    BY_SAMPLING,
    DIFFERENT,
    INDISTINGUISHABLE,
    RELATED,
    TOO_FEW,
)

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

FLOOR_BEHIND = {BY_MODELS: "model_floor_q95", BY_LAYERS: "layer_floor_q95", BY_SAMPLING: "floor_q95"}
"""The variable of the 95 % quantile that a verdict compares with, by `judged_by`."""

Noise = bool | int | None
"""None: if affordable. True: always. False: never. A number: with so many permutations and draws."""


REPLICATION = ("models", "units", "effective_units")
"""The variables of a group that say how often it is replicated."""

FEW_FILTERS, FEW_UNITS = "fewer than 1,000 filters", "fewer than 5 effective units"
"""Reasons why a pair has no interval."""

ENOUGH_UNITS = float(ENOUGH_MODELS)
"""Groups of fewer effective units have no interval."""


class Cells(NamedTuple):
    """Hold the cells of a view; a cell has the layers of one unit in one group.

    `of_layer` (layers,) is the cell of each layer; `group` and `unit` (cells,) are those of each cell.
    """

    of_layer: Ints
    group: Ints
    unit: Ints


class Replication(NamedTuple):
    """Hold how often each group is replicated, (groups,) each.

    `effective_units` is the number of units of equal size that would vary as much. `filters` is the number of filters
    with those of the largest model of each unit only, because copies add no information.
    """

    models: Ints
    units: Ints
    effective_units: npt.NDArray[np.float64]
    filters: Ints

    @property
    def few(self) -> npt.NDArray[np.bool_]:
        """Return which groups have too few filters for a verdict."""
        few: npt.NDArray[np.bool_] = self.filters < FEW
        return few


class Judged(NamedTuple):
    """Hold the noise of all pairs, (groups, groups); the interval has its two bounds last."""

    floor: Floor
    permuted: noise.Permuted
    swapped: noise.Permuted
    interval: Array
    interval_reason: Array
    verdicts: Verdicts
    p_value_max: Array


class Verdicts(NamedTuple):
    """Hold the verdict of all pairs and what it rests on, (groups, groups) each."""

    verdict: Array
    judged_by: Array
    p_value: Array
    q_value: Array
    detectable: Array


def cells(group: Ints, unit: Ints) -> Cells:
    """Return the cells of layers with these groups and units, (layers,) int."""
    pairs = distinct_pairs(group, unit)
    return Cells(pairs.of_row, pairs.first, pairs.second)


def replication(question: Question, cells: Cells) -> Replication:
    """Return the models, units, effective units and filters without copies of the question's groups."""
    layers, groups = question.db.layer_columns, question.groups
    sizes = layers["row_size"].values
    cell, _, part = distinct_pairs(cells.of_layer, layers["model_index"].values)
    filters = np.zeros(len(cell), np.int64)
    np.add.at(filters, part, sizes)
    largest, total = np.zeros((2, len(cells.group)), np.int64)
    np.maximum.at(largest, cell, filters)
    # With equal weights for models, a unit weighs as much as it has models.
    np.add.at(total, cell, np.ones_like(filters) if question.equal_models else filters)
    of_group = np.split(total, np.searchsorted(cells.group, np.arange(1, groups)))  # cells are in the order of groups
    effective = [effective_number(weights) for weights in of_group]
    return Replication(
        np.bincount(cells.group[cell], minlength=groups),
        np.bincount(cells.group, minlength=groups),
        np.array(effective, np.float64),
        np.bincount(cells.group, largest, groups).astype(np.int64),
    )


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


def judge(
    question: Question,
    metric: Metric,
    drift: npt.NDArray[np.float64],
    cells: Cells,
    replication: Replication,
    draws: int,
) -> Judged:
    """Return the noise of a drift (groups, groups) of the question's groups, from `draws` permutations and draws."""
    statistic = metric.cell_statistic(question, cells.of_layer, len(cells.group))
    floor = metric.sampling_floor(question)
    permuted = noise.model_floor(statistic, cells.group, cells.unit, len(drift), draws)
    interval = intervals(drift, statistic, cells.group, cells.unit, permuted, draws)
    few_units = replication.effective_units < ENOUGH_UNITS
    reason = np.where(_either(replication.few), FEW_FILTERS, np.where(_either(few_units), FEW_UNITS, ""))
    np.fill_diagonal(reason, "")
    # With so few filters D does not grow with the square of a difference, as the interval assumes; with few effective
    # units the largest of them decides (docs/explanation/noise.md).
    interval[reason != ""] = np.nan
    largest = largest_p_values(statistic, cells.group, cells.unit, len(drift), np.flatnonzero(~replication.few))
    # A model and its copy or checkpoint drift less than independent filters do, so the sampling floor is enough.
    asked = np.isfinite(floor.q95) & ~_either(replication.few) & ~_share_unit(cells, len(drift))
    swapped = swap_layers(question, metric, asked, draws)
    verdicts = decide(drift, floor, permuted, replication.few, swapped)
    return Judged(floor, permuted, swapped, interval, reason, verdicts, largest)


def decide(
    drift: npt.NDArray[np.float64],
    floor: Floor,
    permuted: noise.Permuted,
    few: npt.NDArray[np.bool_],
    swapped: noise.Permuted | None = None,
) -> Verdicts:
    """Return the verdicts of a drift (groups, groups) from its two floors; `few` (groups,) groups have none.

    Pairs in `swapped` differ only if both the numbers of filters and swapping layers say so. The p-values of swaps are
    not corrected for many pairs, because those of few layers cannot be small enough.
    """
    by_models = np.isfinite(permuted.floor.q95) & (permuted.reach <= LEVEL)
    by_filters = np.isfinite(floor.q95) & ~by_models
    swapped = noise.Permuted.none(len(drift)) if swapped is None else swapped
    by_layers = by_filters & (swapped.reach <= LEVEL)
    by_swaps = np.where(by_layers, swapped.p_value, 0.0)
    too_few = _either(few)
    p_value = np.where(by_models, permuted.p_value, p_above(drift, floor))
    q_value, detected = np.full((2, *drift.shape), np.nan)
    verdict = np.where(np.isfinite(p_value), INDISTINGUISHABLE, "").astype(object)
    for judged, limit, reach, word in (
        (by_models & ~too_few, permuted.floor, permuted.reach, DIFFERENT),
        (by_filters & ~too_few, floor, np.zeros_like(drift), BY_FILTERS),
    ):
        left, right = np.nonzero(np.triu(judged, 1))
        q_value[left, right] = q_value[right, left] = benjamini_yekutieli(p_value[left, right])
        q_value = np.maximum(q_value, by_swaps)
        differ = judged & (q_value <= LEVEL)
        verdict[differ] = word
        level = _level(len(left), int(np.triu(differ, 1).sum()))
        smallest = np.where(judged & ~differ & (reach <= level), detectable(limit, level), np.nan)
        detected = np.where(np.isfinite(smallest), smallest, detected)
    p_value = np.maximum(p_value, by_swaps)
    detected = np.fmax(detected, np.where(np.isfinite(detected) & by_layers, detectable(swapped.floor, LEVEL), np.nan))
    pairs = max(int(np.triu(np.isfinite(floor.mean) & ~too_few, 1).sum()), 1)
    verdict[(p_below(drift, floor) <= LEVEL / pairs) & np.isfinite(floor.mean)] = RELATED
    detected[verdict != INDISTINGUISHABLE] = np.nan
    verdict[too_few] = TOO_FEW
    too_few_units = ~by_models & np.isfinite(permuted.floor.q95)
    conditions = [by_models, by_layers, too_few_units, by_filters]
    judged_by = np.select(conditions, [BY_MODELS, BY_LAYERS, BY_FEW_MODELS, BY_SAMPLING], "")
    for matrix, nothing in ((verdict, ""), (judged_by, ""), (p_value, np.nan), (detected, np.nan)):
        np.fill_diagonal(matrix, nothing)
    return Verdicts(verdict.astype(str), judged_by, p_value, q_value, detected)


def _share_unit(cells: Cells, groups: int) -> npt.NDArray[np.bool_]:
    """Return the pairs of groups whose first units are the same, (groups, groups)."""
    first = np.full(groups, -1)
    first[cells.group[::-1]] = cells.unit[::-1]
    same: npt.NDArray[np.bool_] = first[:, None] == first
    return same


def _either(groups: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pairs of which either group is marked, (groups, groups)."""
    either: npt.NDArray[np.bool_] = groups[:, None] | groups
    return either


def _level(tests: int, rejected: int) -> float:
    """Return the largest p-value with which one more of `tests` pairs would be called different."""
    return LEVEL * min(rejected + 1, tests) / (tests * harmonic(tests)) if tests else LEVEL


def variables(judged: Judged, order: Ints) -> dict[str, tuple[tuple[str, ...], Array, dict[str, Any]]]:
    """Return the variables of noise, with groups in `order`."""
    pairs = ("group", "other")
    place = np.ix_(order, order)
    permuted, verdicts = judged.permuted, judged.verdicts
    matrices = {
        "floor": (judged.floor.mean, "mean drift of two samples of the pooled histogram"),
        "floor_q95": (judged.floor.q95, "95 % quantile of that"),
        "model_floor": (permuted.floor.mean, "mean drift after permuting units between the groups"),
        "model_floor_q95": (permuted.floor.q95, "95 % quantile of that"),
        "layer_floor": (judged.swapped.floor.mean, "mean drift after swapping corresponding layers of the models"),
        "layer_floor_q95": (judged.swapped.floor.q95, "95 % quantile of that"),
        "permutations": (permuted.ways, "in how many ways the units can be permuted"),
        "verdict": (verdicts.verdict, "whether the groups differ by more than chance"),
        "judged_by": (verdicts.judged_by, "which floor the verdict is by"),
        "p_value": (verdicts.p_value, "probability of at least this drift by chance, for this pair alone"),
        "q_value": (verdicts.q_value, "false-discovery rate over all pairs at which this pair differs"),
        "detectable": (verdicts.detectable, "smallest drift that would be found in about 80 % of the cases"),
        "p_value_max": (
            judged.p_value_max,
            "probability that any pair of the matrix drifts relatively as much by chance",
        ),
        "interval_reason": (judged.interval_reason, "why there is no interval"),
    }
    named: dict[str, Any] = {
        name: (pairs, values[place], {"long_name": doc}) for name, (values, doc) in matrices.items()
    }
    doc: dict[str, Any] = {
        "long_name": f"{100 * COVERAGE:.0f} % interval of the drift, units drawn anew",
        "level": COVERAGE,
    }
    return {**named, "interval": ((*pairs, "bound"), judged.interval[place], doc)}


def group_variables(replication: Replication, order: Ints | slice) -> dict[str, tuple[str, Array, dict[str, str]]]:
    """Return the variables of groups, in `order`."""
    return {
        "units": ("group", replication.units[order], {"long_name": "number of units of replication"}),
        "effective_units": (
            "group",
            replication.effective_units[order],
            {"long_name": "number of units of equal size that would vary as much"},
        ),
    }
