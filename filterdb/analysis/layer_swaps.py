"""Test whether two models of one architecture differ by more than their layers do: swap corresponding layers.

Two trainings of one recipe with different seeds are exchangeable layer by layer. Swapping any of their layers then
makes as large a drift as the observed one as often as not, however much the filters of one layer resemble each other.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.analysis.drift_metrics import Metric
from filterdb.analysis.question import Question
from filterdb.numerics import noise
from filterdb.numerics.resampling import Statistic

Place = tuple[int, ...]

ENOUGH_LAYERS = 6
"""Fewest corresponding layers with which a drift can be a 5 % event: each of the 2^L swaps has a mirror image."""

SWAPS = 256
"""Most swaps of a pair. p-values of swaps are not corrected for many pairs, so more are not needed."""

SWAP_LIMIT = 2_000_000
"""Total number of swaps up to which layers judge: about twelve seconds."""

_PLACE = ("conv_depth", "out_channels", "in_channels", "groups")
"""Layers of two models correspond if they have the same depth and shape."""


def swap_layers(question: Question, metric: Metric, asked: npt.NDArray[np.bool_], draws: int) -> noise.Permuted:
    """Return the drift of corresponding models after swapping any of their layers, and the observed drift's p-value.

    Groups correspond if each is one model and their layers have the same depths and shapes, at least six of them. Pairs
    that do not correspond or are not in `asked` (groups, groups) have no floor, nor have any if there are more than 2
    million swaps. A pair has at most `draws` swaps, and at most 256.
    """
    groups, layers, draws = question.groups, question.db.layer_columns, min(draws, SWAPS)
    rows = places(lambda name: layers[name].values)
    classes = _corresponding(question, rows)
    pairs = [(i, j) for members in classes for i, j in itertools.combinations(members, 2) if asked[i, j]]
    per_model = np.bincount(question.grouping.index, minlength=groups).tolist()
    if not pairs or sum(_number_of_swaps(per_model[i], draws) for i, _ in pairs) > SWAP_LIMIT:
        return noise.Permuted.none(groups)
    chosen = np.isin(question.grouping.index, np.unique(pairs))
    # The last cell has the layers of all other groups, if there are any, and is in no pair.
    cell_of_layer = np.where(chosen, np.cumsum(chosen) - 1, chosen.sum())
    statistic = metric.cell_statistic(question, cell_of_layer, int(cell_of_layer.max()) + 1)
    group, place = np.full((2, len(statistic.states)), -1)
    numbers = {row: number for number, row in enumerate(sorted(set(rows)))}
    group[cell_of_layer[chosen]] = question.grouping.index[chosen]
    place[cell_of_layer[chosen]] = np.array([numbers[row] for row in rows])[chosen]
    return noise.swap_floor(statistic, group, place, pairs, groups, draws)


def _number_of_swaps(layers: int, draws: int) -> int:
    """Return how many swaps a pair of models takes: all, one of each two that mirror each other, or random ones."""
    return 1 << layers - 1 if 1 << layers <= draws else draws


def swap_pair(statistic: Statistic, left: list[Place], right: list[Place]) -> tuple[float, float]:
    """Return the 95 % quantile of the drift of two models after swaps, and the share with at least the observed drift.

    Both are NaN if their layers do not correspond. `statistic` has a cell for each layer of the left model, then for
    each of the right one.
    """
    if sorted(left) != sorted(right) or not _are_enough(left):
        return math.nan, math.nan
    numbers = {place: number for number, place in enumerate(sorted(left))}
    group = np.repeat([0, 1], len(left))
    swapped = noise.swap_floor(statistic, group, np.array([numbers[p] for p in left + right]), [(0, 1)], 2, SWAPS)
    return float(swapped.floor.q95[0, 1]), float(swapped.p_value[0, 1])


def places(column: Callable[[str], npt.NDArray[Any]]) -> list[Place]:
    """Return the place of each layer: its depth and shape, from a function that returns a column of layers by name."""
    return list(zip(*(column(name).tolist() for name in _PLACE), strict=True))


def _are_enough(layers: Sequence[Place]) -> bool:
    """Return whether there are layers enough for swaps, no two of them at one place."""
    return len(set(layers)) == len(layers) >= ENOUGH_LAYERS


def _corresponding(question: Question, rows: list[Place]) -> list[list[int]]:
    """Return the groups that correspond to one another, which are one model each."""
    by_group: dict[int, list[Place]] = defaultdict(list)
    for group, row in zip(question.grouping.index.tolist(), rows, strict=True):
        by_group[group].append(row)
    by_places: dict[tuple[Place, ...], list[int]] = defaultdict(list)
    for group in np.flatnonzero(question.models == 1).tolist():
        if _are_enough(by_group[group]):
            by_places[tuple(sorted(by_group[group]))].append(group)
    return list(by_places.values())
