"""Noise of drift due to models: permute them between two groups.

The filters of one model are not independent, so with a floor from filters alone nearly every pair would be different.
Random numbers depend only on SEED and on the groups that are drawn, so a pair has the same results alone and among
other pairs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from filterdb.choices import DRAWS as DRAWS  # noqa: PLC0414 - also imported from here
from filterdb.choices import ENOUGH_PERMUTATIONS as ENOUGH_PERMUTATIONS  # noqa: PLC0414
from filterdb.choices import MOST_DRAWS as MOST_DRAWS  # noqa: PLC0414
from filterdb.numerics.compilation import has_numba
from filterdb.numerics.histogram import BINS
from filterdb.numerics.resampling import Statistic
from filterdb.numerics.row_sums import add_rows, is_exact
from filterdb.numerics.sampling import Floor
from filterdb.numerics.significance import LEVEL, harmonic

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SEED = 20_220_619

SAMPLING_DRAWS = 200
"""Multinomial draws for a pair. Their distribution is narrow: the quantile is accurate to 2 %."""

TIE = 1e-4
"""Relative tolerance of a floor: permutations are in single precision, so a drift this near does not exceed it."""

QUANTILE = 0.95
HIGH = 0.90
"""The interval of a pair excludes 0 if the drift exceeds this quantile of its permutations."""

_ROWS = 64
"""Permutations at a time. Their arrays fit in the cache, so this is twice as fast as a thousand at once."""

_UNTHREADED = 250_000
"""Most multiplications in a matrix product, so that OpenBLAS uses one thread (its own limit is 262,144)."""

_FEWEST_ROWS = 4
"""Fewest rows of a product. Starting many products of fewer rows costs more than the threads do."""

_FEWEST_TO_REFINE = 5
"""A p-value of so many permutations or fewer is too coarse for a matrix of many pairs."""

_REFINING = 1_000_000
"""Most permutations that refine the p-values of a matrix: a few seconds."""


def permutations(own: int, other: int, shared: int) -> int:
    """Return how many ways there are to exchange models between two groups.

    `own` models are only in the first group, `other` models only in the second, and `shared` models in both.
    """
    return math.comb(own + other, own) << shared


class Permuted(NamedTuple):
    """Hold what permuting the units of all pairs of groups results in, (groups, groups) each.

    `floor` is the drift of the permutations, `ways` their number, and `p_value` the share of them whose drift is at
    least the observed one. `reach` is the smallest p-value that any drift of the pair can have, `q90` the 90 % quantile
    of the permutations.
    """

    floor: Floor
    ways: Array
    p_value: Array
    reach: Array
    q90: Array

    @classmethod
    def none(cls, groups: int) -> Self:
        """Return arrays for so many groups of which no pair is permuted."""
        mean, q90, q95, p_value = np.full((4, groups, groups), np.nan)
        return cls(Floor(mean, q95), np.zeros((groups, groups)), p_value, np.ones((groups, groups)), q90)


def model_floor(statistic: Statistic, group: Indices, model: Indices, groups: int, draws: int = DRAWS) -> Permuted:
    """Return the drift of all pairs of groups after permuting models, or other units, between them.

    `group` and `model` (cells,) int say which group and model a cell belongs to; `statistic` has the cells' states. A
    permutation keeps the number of models of each group; a model in both groups may swap its two cells. The original
    groups count as one of the permutations (Phipson and Smyth 2010), so that at most 5 % of the pairs from one
    population exceed the quantile. All permutations are used if there are at most `draws`, otherwise `draws` random
    ones; if these are too few for pairs with the smallest p-value to be told apart among all pairs, these have more.
    Floors and p-values are NaN on the diagonal and for fewer than 20 permutations.
    """
    permuting = _Permuting(statistic, group, model, groups)
    permuted = permuting.permuted(itertools.combinations(range(groups), 2), draws)
    _refine(permuted.p_value, permuted.ways, permuting, draws)
    return permuted


def swap_floor(
    statistic: Statistic, group: Indices, place: Indices, pairs: Iterable[tuple[int, int]], groups: int, draws: int
) -> Permuted:
    """Return the drift of `pairs` of groups after swapping any of their cells with the other's cell at the same place.

    `group` and `place` (cells,) int say which group and place a cell belongs to, such as a model and one of its layers.
    Both groups of a pair have the same places. Other pairs have no floor; the rest is as in `model_floor`.
    """
    return _Permuting(statistic, group, place, groups).permuted(pairs, draws)


def _quantile(ordered: NDArray[np.float32], share: float) -> float:
    """Return the smallest of sorted values that at least this share of them does not exceed."""
    # 0.95 · 20 is 19, and not 19 + 4e-15.
    return float(ordered[math.ceil(share * len(ordered) - 1e-9) - 1])


def _share_as_large(drift: NDArray[np.float32]) -> float:
    """Return the share of permutations with at least the drift of the first one, which is the observed drift."""
    return float((drift >= drift[0] * (1 - TIE)).mean())


def _refine(p_value: Array, ways: Array, permuting: _Permuting, draws: int) -> None:
    """Compute the smallest p-values again with more permutations, if that may show that these pairs differ.

    Among m tests the smallest p-value must be at most 0.05/(m·Σ1/k), for which 1,000 permutations are too few. With k
    pairs of no larger drift than observed, k times fewer permutations are enough.
    """
    left, right = np.triu_indices(len(p_value), 1)
    tested = np.isfinite(p_value[left, right])
    left, right = left[tested], right[tested]
    number = len(left)
    smallest = (p_value[left, right] < _FEWEST_TO_REFINE / draws) & (ways[left, right] > draws)
    chosen = np.flatnonzero(smallest)
    if not len(chosen):
        return
    wanted = 2 * number * harmonic(number) / (LEVEL * len(chosen))
    if wanted <= draws:
        return
    more = min(math.ceil(wanted), MOST_DRAWS, max(draws, _REFINING // len(chosen)))
    for i, j in zip(left[chosen].tolist(), right[chosen].tolist(), strict=True):
        p_value[i, j] = p_value[j, i] = _share_as_large(permuting.drifts(i, j, more))


class _Permuting:
    """Permute the models of any two groups."""

    def __init__(self, statistic: Statistic, group: Indices, model: Indices, groups: int) -> None:
        self.statistic, self.model = statistic, model
        self.states = statistic.states.astype(np.float32)
        self.adds_rows = has_numba() and is_exact(self.states)
        self.cells = [np.flatnonzero(group == label) for label in range(groups)]
        self.models = [set(model[rows].tolist()) for rows in self.cells]
        # New arrays for each batch would take more time than the drift: the system clears their memory each time.
        self.buffers = np.empty((3, _ROWS, self.states.shape[1]), np.float32)

    def permuted(self, pairs: Iterable[tuple[int, int]], draws: int) -> Permuted:
        """Return the drift of the permutations of these pairs of groups; NaN for others and under 20 permutations."""
        permuted = Permuted.none(len(self.cells))
        (mean, q95), ways, p_value, reach, q90 = permuted
        for i, j in pairs:
            shape = self.shape(i, j)
            ways[i, j] = ways[j, i] = number = float(min(permutations(*shape), 1 << 1000))
            # D does not change when the groups swap places. If the swap is a permutation too, each value occurs twice.
            reach[i, j] = reach[j, i] = (2 if shape[0] == shape[1] else 1) / number
            if number < ENOUGH_PERMUTATIONS:
                continue
            drift = self.drifts(i, j, draws)
            mean[i, j] = mean[j, i] = drift.mean(dtype=np.float64)
            p_value[i, j] = p_value[j, i] = _share_as_large(drift)
            drift.sort()
            q90[i, j] = q90[j, i] = _quantile(drift, HIGH)
            q95[i, j] = q95[j, i] = _quantile(drift, QUANTILE)
        return permuted

    def shape(self, i: int, j: int) -> tuple[int, int, int]:
        """Return how many models are only in group i, only in group j, and in both."""
        shared = len(self.models[i] & self.models[j])
        return len(self.models[i]) - shared, len(self.models[j]) - shared, shared

    def drifts(self, i: int, j: int, draws: int) -> NDArray[np.float32]:
        """Return the drift of each permutation of two groups, that of the groups as they are first."""
        ordered = self.states[_in_order(self.cells[i], self.cells[j], self.model, self.models[i] & self.models[j])]
        left, right = _sides(*self.shape(i, j), draws)
        drift = np.empty(len(left), np.float32)
        # Products of fewer states are as fast, because they need no threads.
        adds_rows = self.adds_rows and ordered.size * _FEWEST_ROWS > _UNTHREADED
        total = ordered.sum(axis=0)
        for start in range(0, len(left), _ROWS):
            batch = slice(start, start + _ROWS)
            ours, theirs, spare = self.buffers[:, : len(left[batch])]
            if adds_rows:
                _add_sides(left[batch], right[batch], ordered, total, ours, theirs)
            else:
                _product(left[batch], ordered, ours)
                _product(right[batch], ordered, theirs)
            drift[batch] = self.statistic.pairs(ours, theirs, spare)
        return drift


def _add_sides(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    states: NDArray[np.float32],
    total: NDArray[np.float32],
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
) -> None:
    """Store `left @ states` in `ours` and `right @ states` in `theirs`: one by adding rows, the other is the rest.

    All sums are exact; `total` is that of all states.
    """
    is_left = left[0].sum() <= right[0].sum()
    sides, sums, rest = (left, ours, theirs) if is_left else (right, theirs, ours)
    side, row = np.nonzero(sides)
    add_rows(sums, states, row, np.searchsorted(side, np.arange(len(sides) + 1)))
    np.subtract(total, sums, out=rest)


def _product(sides: NDArray[np.float32], states: NDArray[np.float32], product: NDArray[np.float32]) -> None:
    """Store `sides @ states` in `product`, computed in products so small that BLAS starts no threads.

    Each product takes microseconds, so threads would mostly wait for one another: on two busy cores they take four
    times as long.
    """
    rows = max(1, _UNTHREADED // states.size)
    if rows < _FEWEST_ROWS:
        np.matmul(sides, states, out=product)
        return
    even = len(sides) // rows * rows
    stacked = sides[:even].reshape(even // rows, rows, len(states))
    np.matmul(stacked, states, out=product[:even].reshape(even // rows, rows, states.shape[1]))
    np.matmul(sides[even:], states, out=product[even:])


def _in_order(left: Indices, right: Indices, model: Indices, shared: set[int]) -> Indices:
    """Return the cells of two groups in the order of `_sides`: left only, right only, shared left, shared right."""
    in_both = np.array(sorted(shared), dtype=model.dtype)
    sides = [(cells, np.isin(model[cells], in_both)) for cells in (left, right)]
    alone = [cells[~hit] for cells, hit in sides]
    twice = [cells[hit][np.argsort(model[cells[hit]])] for cells, hit in sides]
    return np.concatenate([*alone, *twice])


@lru_cache(maxsize=2)
def _sides(own: int, other: int, shared: int, draws: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return which cells are left and which are right in each permutation, (permutations, cells) float32 of 0 and 1.

    The first permutation leaves the groups as they are. Of all permutations, two that swap the groups have the same
    drift: if the groups have as many models, only one of the two is in the result.
    """
    if permutations(own, other, shared) <= draws:
        left = np.array(list(itertools.combinations(range(own + other), own)), np.int64).reshape(-1 if own else 1, own)
        alone = np.zeros((len(left), own + other), bool)
        np.put_along_axis(alone, left, True, axis=1)
        swaps = np.array(list(itertools.product([True, False], repeat=shared)), bool).reshape(1 << shared, shared)
        alone, swaps = np.repeat(alone, len(swaps), axis=0), np.tile(swaps, (len(alone), 1))
        if own == other:
            first = alone[:, 0] if own else swaps[:, 0]
            alone, swaps = alone[first], swaps[first]
    else:
        rng = np.random.default_rng([SEED, own, other, shared, draws])
        alone = np.zeros((draws, own + other), bool)
        alone[:, :own] = True
        alone[1:] = rng.permuted(alone[1:], axis=1)
        swaps = np.ones((draws, shared), bool)
        swaps[1:] = rng.random((draws - 1, shared)) < 0.5
    sides = np.concatenate([alone, swaps, ~swaps], axis=1)
    return sides.astype(np.float32), (~sides).astype(np.float32)


def sampling_floor(statistic: Statistic, draws: int = SAMPLING_DRAWS) -> Floor:
    """Return the sampling floor (groups, groups) by multinomial draws, with NaN on the diagonal.

    The states of `statistic` are those of the groups, from histograms: the number of filters, then K × 70 counts.
    """
    groups = len(statistic.states)
    mean, q95 = np.full((2, groups, groups), np.nan)
    number = statistic.states[:, 0].astype(np.int64)
    for i, j in itertools.combinations(range(groups), 2):
        rng = np.random.default_rng([SEED, *sorted((number[i], number[j]))])
        pooled = (statistic.states[i] + statistic.states[j])[1:].reshape(-1, BINS)
        p = pooled / pooled.sum(axis=1, keepdims=True)
        sides = []
        for n in (number[i], number[j]):
            counts = rng.multinomial(n, p, size=(draws, len(p))).reshape(draws, -1)
            sides.append(np.concatenate([np.full((draws, 1), n), counts], axis=1))
        drift = statistic.pairs(*sides)
        mean[i, j] = mean[j, i] = drift.mean()
        q95[i, j] = q95[j, i] = np.quantile(drift, QUANTILE, method="inverted_cdf")
    return Floor(mean, q95)
