"""Noise of drift due to models: permute them between two groups, or resample them.

The filters of one model are not independent, so with a floor from filters alone nearly every pair would be different.
Random numbers depend only on SEED and on the groups that are drawn, so a pair has the same results alone and among
other pairs. (The only exception is the interval where models are in several groups.)
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.resampling import Statistic
from filterdb.numerics.sampling import Floor
from filterdb.numerics.significance import LEVEL, harmonic

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SEED = 20_220_619

DRAWS = 1_000
"""Default number of permutations of a pair, and of draws of models."""

MOST_DRAWS = 100_000
"""More draws would only take memory: the quantile is accurate to a tenth of a percent with fewer."""

SAMPLING_DRAWS = 200
"""Multinomial draws for a pair. Their distribution is narrow: the quantile is accurate to 2 %."""

ENOUGH_PERMUTATIONS = 20
"""With fewer permutations there is no 95 % quantile."""

ENOUGH_MODELS = 5
"""Groups of fewer models have no interval."""

TIE = 1e-4
"""Relative tolerance of a floor: permutations are in single precision, so a drift this near does not exceed it."""

QUANTILE = 0.95
COVERAGE = 0.95
_Z975 = 1.959963984540054

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

_BATCH = 500_000
"""Most numbers in a batch of draws of models: 4 MB, which fit in the cache too."""


def permutations(own: int, other: int, shared: int) -> int:
    """Return how many ways there are to exchange models between two groups.

    `own` models are only in the first group, `other` models only in the second, and `shared` models in both.
    """
    return math.comb(own + other, own) << shared


class Permuted(NamedTuple):
    """Hold what permuting the units of all pairs of groups results in, (groups, groups) each.

    `floor` is the drift of the permutations, `ways` their number, and `p_value` the share of them whose drift is at
    least the observed one. `reach` is the smallest p-value that any drift of the pair can have.
    """

    floor: Floor
    ways: Array
    p_value: Array
    reach: Array

    @classmethod
    def none(cls, groups: int) -> Self:
        """Return arrays for so many groups of which no pair is permuted."""
        mean, q95, p_value = np.full((3, groups, groups), np.nan)
        return cls(Floor(mean, q95), np.zeros((groups, groups)), p_value, np.ones((groups, groups)))


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
        self.cells = [np.flatnonzero(group == label) for label in range(groups)]
        self.models = [set(model[rows].tolist()) for rows in self.cells]

    def permuted(self, pairs: Iterable[tuple[int, int]], draws: int) -> Permuted:
        """Return the drift of the permutations of these pairs of groups; NaN for others and under 20 permutations."""
        permuted = Permuted.none(len(self.cells))
        (mean, q95), ways, p_value, reach = permuted
        for i, j in pairs:
            shape = self.shape(i, j)
            ways[i, j] = ways[j, i] = number = float(min(permutations(*shape), 1 << 1000))
            # D does not change when the groups swap places. If the swap is a permutation too, each value occurs twice.
            reach[i, j] = reach[j, i] = (2 if shape[0] == shape[1] else 1) / number
            if number < ENOUGH_PERMUTATIONS:
                continue
            drift = self.drifts(i, j, draws)
            mean[i, j] = mean[j, i] = drift.mean(dtype=np.float64)
            q95[i, j] = q95[j, i] = np.quantile(drift, QUANTILE, method="inverted_cdf")
            p_value[i, j] = p_value[j, i] = _share_as_large(drift)
        return permuted

    def shape(self, i: int, j: int) -> tuple[int, int, int]:
        """Return how many models are only in group i, only in group j, and in both."""
        shared = len(self.models[i] & self.models[j])
        return len(self.models[i]) - shared, len(self.models[j]) - shared, shared

    def drifts(self, i: int, j: int, draws: int) -> NDArray[np.float32]:
        """Return the drift of each permutation of two groups, that of the groups as they are first."""
        ordered = self.states[_in_order(self.cells[i], self.cells[j], self.model, self.models[i] & self.models[j])]
        left, right = _sides(*self.shape(i, j), draws)
        batches = [slice(start, start + _ROWS) for start in range(0, len(left), _ROWS)]
        return np.concatenate(
            [self.statistic.pairs(_product(left[batch], ordered), _product(right[batch], ordered)) for batch in batches]
        ).astype(np.float32, copy=False)


def _product(sides: NDArray[np.float32], states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `sides @ states`, computed in products so small that BLAS starts no threads.

    Each product takes microseconds, so threads would mostly wait for one another: on two busy cores they take four
    times as long.
    """
    rows = max(1, _UNTHREADED // states.size)
    if rows < _FEWEST_ROWS:
        whole: NDArray[np.float32] = sides @ states
        return whole
    even = len(sides) // rows * rows
    product = np.empty((len(sides), states.shape[1]), states.dtype)
    stacked = sides[:even].reshape(even // rows, rows, len(states))
    np.matmul(stacked, states, out=product[:even].reshape(even // rows, rows, states.shape[1]))
    np.matmul(sides[even:], states, out=product[even:])
    return product


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


def intervals(drift: Array, statistic: Statistic, group: Indices, model: Indices, draws: int = DRAWS) -> Array:
    """Return 95 % intervals (groups, groups, 2) of the populations' drift, by a bootstrap of √D over models.

    `drift` (groups, groups) is the drift of the groups as they are. A draw takes as many models as there are, with
    replacement: within each group, or, if any model is in several groups, from all models once for all groups. On
    average the D of drawn groups exceeds the D of the groups that they are drawn from by b; the latter exceeds the D of
    the populations by as much. √D* varies about its mean as √D does about √(D + b). So the basic bootstrap of √D
    (Davison and Hinkley 1997, eq. 5.6) is applied to √(D + b), and b is subtracted from the squares, clipped at 0.
    Since k models vary by (k − 1)/k of their population's variance, b and the variance are scaled by the inverse, and
    the bounds by the ratio of Student's quantile to the normal one. The bounds have the noise subtracted, so all of the
    interval may lie below `drift`. It is NaN on the diagonal and for groups of fewer than 5 models.
    """
    interval = np.full((*drift.shape, 2), np.nan)
    sizes = np.bincount(group, minlength=len(drift))
    chosen = np.flatnonzero(sizes >= ENOUGH_MODELS)
    left, right = np.triu_indices(len(chosen), 1)
    if not len(left):
        return interval
    # Hellinger and Wasserstein are distances: their squares correspond to the D of the other metrics.
    power = 0.5 if statistic.is_square else 1.0
    roots = np.empty((draws, len(left)), np.float32)
    start = 0
    for sums in _resampled(statistic.states, group, model, chosen, draws):
        roots[start : start + len(sums)] = statistic.matrices(sums)[:, left, right] ** power
        start += len(sums)
    square, low, high = np.empty((3, len(left)))
    for batch in _slices(len(left), max(1, _BATCH // draws)):  # np.quantile copies its input, so work in batches
        part = roots[:, batch]
        square[batch] = (part.astype(np.float64) ** 2).mean(axis=0)
        low[batch], high[batch] = np.quantile(part, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    low, high = low - np.sqrt(square), high - np.sqrt(square)
    left, right = chosen[left], chosen[right]
    root = drift[left, right] ** power
    freedom, inflation = _freedom(group, model, left, right)
    excess = np.maximum(square - root**2, 0.0) * inflation
    wider = np.sqrt(inflation) * _student(freedom) / _Z975
    bounds = np.maximum(root - wider * np.stack([high, low]), 0.0) ** 2 - excess
    interval[left, right] = interval[right, left] = (np.maximum(bounds, 0.0) ** (0.5 / power)).T
    return interval


def _slices(number: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, number, size))


def _freedom(group: Indices, model: Indices, left: Indices, right: Indices) -> tuple[Array, Array]:
    """Return the degrees of freedom among the models of each pair, and the models per degree of freedom."""
    sets = [set(model[group == label].tolist()) for label in range(int(group.max()) + 1)]
    models = np.array([len(sets[i] | sets[j]) for i, j in zip(left, right, strict=True)], np.float64)
    freedom = models - (1 if _is_shared(model) else 2)
    return freedom, models / freedom


def _student(freedom: Array) -> Array:
    """Return the 97.5 % quantile of Student's t, by a series about the normal one; within 0.3 % for freedom ≥ 8."""
    z = _Z975
    quantile: Array = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return quantile


def _is_shared(model: Indices) -> bool:
    """Return whether any model is in several groups."""
    return len(np.unique(model)) < len(model)


def _resampled(states: Array, group: Indices, model: Indices, chosen: Indices, draws: int) -> Iterator[Array]:
    """Yield the sums (draws, groups, columns) of the chosen groups with resampled models, in batches of draws."""
    size = max(1, min(draws, _BATCH // (len(chosen) * states.shape[1])))
    weights = _weights(states, group, model, draws)
    for start in range(0, draws, size):
        sums = [weights(label, slice(start, start + size)) @ states[group == label] for label in chosen]
        yield np.stack(sums, axis=1)


def _weights(states: Array, group: Indices, model: Indices, draws: int) -> Callable[[int, slice], Array]:
    """Return a function of a group and a slice of draws: how often each cell of the group is drawn, (draws, cells).

    The draws of a group depend only on its own content, so that a pair has the same interval alone and among others.
    """

    def times(models: int, *key: int) -> Indices:
        return np.random.default_rng([SEED, *key]).multinomial(models, np.full(models, 1 / models), size=draws)

    if _is_shared(model):
        _, model_index = np.unique(model, return_inverse=True)
        times_of_model = times(int(model_index.max()) + 1, draws)
        return lambda label, batch: times_of_model[batch][:, model_index[group == label]].astype(np.float64)
    times_of_group: dict[int, Indices] = {}
    seen: Counter[int] = Counter()
    for label in np.unique(group).tolist():
        rows = states[group == label]
        # The set of columns depends on the other groups; the values that are not zero do not.
        key = zlib.crc32(rows[rows != 0].tobytes())
        times_of_group[label] = times(len(rows), draws, key, seen[key])
        seen[key] += 1
    return lambda label, batch: times_of_group[int(label)][batch].astype(np.float64)


def sampling_floor(statistic: Statistic, draws: int = SAMPLING_DRAWS) -> Floor:
    """Return the sampling floor (groups, groups) by multinomial draws, with NaN on the diagonal.

    The states of `statistic` are those of the groups, from histograms: the number of filters, then 9 × 70 counts.
    """
    groups = len(statistic.states)
    mean, q95 = np.full((2, groups, groups), np.nan)
    number = statistic.states[:, 0].astype(np.int64)
    for i, j in itertools.combinations(range(groups), 2):
        rng = np.random.default_rng([SEED, *sorted((number[i], number[j]))])
        pooled = (statistic.states[i] + statistic.states[j])[1:].reshape(9, -1)
        p = pooled / pooled.sum(axis=1, keepdims=True)
        sides = []
        for n in (number[i], number[j]):
            counts = rng.multinomial(n, p, size=(draws, len(p))).reshape(draws, -1)
            sides.append(np.concatenate([np.full((draws, 1), n), counts], axis=1))
        drift = statistic.pairs(*sides)
        mean[i, j] = mean[j, i] = drift.mean()
        q95[i, j] = q95[j, i] = np.quantile(drift, QUANTILE, method="inverted_cdf")
    return Floor(mean, q95)
