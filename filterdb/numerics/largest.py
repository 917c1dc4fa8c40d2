"""Test the largest drift of a matrix: permute units over all groups at once, and compare with the largest of each time.

The largest of many drifts is large even if no group differs. The p-value of a pair is the share of permutations in
which any pair exceeds its own mean by as much (Westfall and Young 1993, single step).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.compilation import has_numba
from filterdb.numerics.noise import SEED, TIE
from filterdb.numerics.resampling import Statistic
from filterdb.numerics.row_sums import add_rows, is_exact

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

PERMUTATIONS = 199
"""Permutations of a matrix, besides the groups as they are; 0.5 % is the smallest p-value."""

MOST_GROUPS = 200
"""Largest number of groups for which p-values are computed: their matrices take 64 MB."""

_BATCH_CELLS = 4_000_000
"""Most numbers in the states of a batch of permutations: 32 MB."""


def largest_p_values(statistic: Statistic, group: Indices, unit: Indices, groups: int, chosen: Indices) -> Array:
    """Return the p-value of each pair among all pairs of the `chosen` groups, (groups, groups); NaN for others.

    `group` and `unit` (cells,) int say which group and unit a cell belongs to; `statistic` has the cells' states. Units
    in one group change places with one another; the cells of a unit in several groups change places among themselves.
    """
    p_value = np.full((groups, groups), np.nan)
    if not 2 <= len(chosen) <= MOST_GROUPS:
        return p_value
    inside = np.isin(group, chosen)
    position = np.searchsorted(chosen, group[inside])
    labels = _permuted(position, unit[inside])
    drift = _matrices(statistic, statistic.states[inside], labels, len(chosen))
    left, right = np.triu_indices(len(chosen), 1)
    pairs = drift[:, left, right]
    mean = pairs.mean(axis=0)
    ratio = np.divide(pairs, mean, out=np.zeros_like(pairs), where=mean > 0)
    largest = ratio.max(axis=1)
    share = (largest[:, None] >= ratio[0] * (1 - TIE)).mean(axis=0)
    rows, columns = chosen[left], chosen[right]
    p_value[rows, columns] = p_value[columns, rows] = share
    return p_value


def _permuted(group: Indices, unit: Indices) -> Indices:
    """Return the group of each cell in each permutation, (permutations, cells); the first leaves all as they are."""
    rng = np.random.default_rng([SEED, len(group), int(group.max()) + 1])
    order = np.argsort(unit, kind="stable")
    _, starts = np.unique(unit[order], return_index=True)
    blocks = np.split(order, starts[1:])
    single = np.array([block[0] for block in blocks if len(block) == 1], np.int64)
    several = [block for block in blocks if len(block) > 1]
    labels = np.tile(group, (PERMUTATIONS + 1, 1))
    for row in labels[1:]:
        for block in (single, *several):
            row[block] = rng.permutation(row[block])
    return labels


def _matrices(statistic: Statistic, states: Array, labels: Indices, groups: int) -> Array:
    """Return the drift of all pairs of groups in each permutation, (permutations, groups, groups)."""
    size = max(1, _BATCH_CELLS // (groups * states.shape[1]))
    sums = _added if has_numba() and is_exact(states) else _multiplied
    parts = [
        statistic.matrices(sums(states, labels[start : start + size], groups)) for start in range(0, len(labels), size)
    ]
    return np.concatenate(parts)


def _multiplied(states: Array, labels: Indices, groups: int) -> Array:
    """Return the sums of the states of each group in some permutations, (permutations, groups, columns)."""
    sums: Array = (labels[:, None, :] == np.arange(groups)[:, None]).astype(np.float64) @ states
    return sums


def _added(states: Array, labels: Indices, groups: int) -> Array:
    """Return what `_multiplied` returns, by adding rows; the sums are exact."""
    sums = np.empty((len(labels), groups, states.shape[1]))
    for own, label in zip(sums, labels, strict=True):
        order = np.argsort(label, kind="stable")
        add_rows(own, states, order, np.searchsorted(label[order], np.arange(groups + 1)))
    return sums
