"""Noise of drift from models: permuting them between two groups, and drawing them anew (method §4).

The filters of one model are not independent, so that a floor from filters alone calls nearly everything different.
All random numbers come from SEED and the shape of what is drawn: the same bytes each time, whatever else is asked.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.paired import Statistic
from filterdb.numerics.sampling import Floor

Array = NDArray[np.float64]

SEED = 20_220_619

DRAWS = 1_000
"""Permutations of a pair, and draws of models, unless said otherwise."""

MOST_DRAWS = 100_000
"""More would only take memory: the quantile is good to a tenth of a percent long before."""

SAMPLING_DRAWS = 200
"""Multinomial draws of a pair: its distribution is narrow, the quantile is good to 2 %."""

ENOUGH_PERMUTATIONS = 20
"""With fewer there is no 95 % quantile."""

ENOUGH_MODELS = 5
"""Groups of fewer models have no interval."""

QUANTILE = 0.95
COVERAGE = 0.95
_Z975 = 1.959963984540054

_ROWS = 128
"""Permutations at a time: what they take stays in the cache, twice as fast as a thousand at once."""

_UNTHREADED = 250_000
"""Multiplications of a product up to which OpenBLAS uses one thread (it says 262,144)."""

_FEWEST_ROWS = 4
"""Of a product: with fewer it costs more to begin them than threads do."""

_BATCH = 500_000
"""Numbers that draws of models may take at a time, 4 MB: these stay in the cache as well."""


def permutations(own: int, other: int, shared: int) -> int:
    """In how many ways the models of two groups can change sides: `own` and `other` are in one group only."""
    return math.comb(own + other, own) << shared


def model_floor(
    statistic: Statistic, group: np.ndarray, model: np.ndarray, groups: int, draws: int = DRAWS
) -> tuple[Floor, np.ndarray]:
    """Drift of all pairs of groups after permuting models between the two; and how many permutations there are.

    Cells: `group`, `model` (cells,) int, their states in `statistic`. The number of models of each group is kept; a
    model in both swaps its two cells. The groups as they are count as one of the permutations (Phipson and Smyth
    2010), so that at most 5 % of the pairs of one population exceed the quantile. All permutations where they are at
    most `draws`, else so many. → (groups, groups) each; NaN on the diagonal and with fewer than 20 permutations.
    """
    mean, q95 = np.full((2, groups, groups), np.nan)
    ways = np.zeros((groups, groups))
    states = statistic.states.astype(np.float32)
    cells = [np.flatnonzero(group == one) for one in range(groups)]
    models = [set(model[rows].tolist()) for rows in cells]
    for i, j in itertools.combinations(range(groups), 2):
        both = models[i] & models[j]
        shape = len(models[i]) - len(both), len(models[j]) - len(both), len(both)
        ways[i, j] = ways[j, i] = number = float(min(permutations(*shape), 1 << 1000))
        if number < ENOUGH_PERMUTATIONS:
            continue
        rows = _in_order(cells[i], cells[j], model, both)
        sides, opposite = _sides(*shape, draws)
        here = states[rows]
        parts = [slice(start, start + _ROWS) for start in range(0, len(sides), _ROWS)]
        found = np.concatenate(
            [statistic.pairs(_product(sides[part], here), _product(opposite[part], here)) for part in parts]
        )
        mean[i, j] = mean[j, i] = found.mean(dtype=np.float64)
        q95[i, j] = q95[j, i] = np.quantile(found, QUANTILE, method="inverted_cdf")
    return Floor(mean, q95), ways


def _product(sides: np.ndarray, states: np.ndarray) -> np.ndarray:
    """`sides @ states`, some rows at a time: small products, for which BLAS starts no threads.

    Each takes microseconds, so that threads would only wait for one another: four times as long on two busy cores.
    """
    rows = max(1, _UNTHREADED // states.size)
    if rows < _FEWEST_ROWS:
        whole: np.ndarray = sides @ states
        return whole
    even = len(sides) // rows * rows
    found = np.empty((len(sides), states.shape[1]), states.dtype)
    stacked = sides[:even].reshape(even // rows, rows, len(states))
    np.matmul(stacked, states, out=found[:even].reshape(even // rows, rows, states.shape[1]))
    np.matmul(sides[even:], states, out=found[even:])
    return found


def _in_order(left: np.ndarray, right: np.ndarray, model: np.ndarray, both: set[int]) -> np.ndarray:
    """Cells of two groups as `_sides` has them: of the left alone, of the right alone, shared left, shared right."""
    shared = np.array(sorted(both), dtype=model.dtype)
    parts = [(rows, np.isin(model[rows], shared)) for rows in (left, right)]
    alone = [rows[~hit] for rows, hit in parts]
    twice = [rows[hit][np.argsort(model[rows[hit]])] for rows, hit in parts]
    return np.concatenate([*alone, *twice])


@lru_cache(maxsize=2)
def _sides(own: int, other: int, shared: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Which cells are on the left in each permutation, and which on the right: (permutations, cells) float32 of 0, 1.

    The first is the groups as they are.
    """
    if permutations(own, other, shared) <= draws:
        left = np.array(list(itertools.combinations(range(own + other), own)), np.int64).reshape(-1 if own else 1, own)
        alone = np.zeros((len(left), own + other), bool)
        np.put_along_axis(alone, left, True, axis=1)
        swaps = np.array(list(itertools.product([True, False], repeat=shared)), bool).reshape(1 << shared, shared)
        alone, swaps = np.repeat(alone, len(swaps), axis=0), np.tile(swaps, (len(alone), 1))
    else:
        rng = np.random.default_rng([SEED, own, other, shared, draws])
        alone = np.zeros((draws, own + other), bool)
        alone[:, :own] = True
        alone[1:] = rng.permuted(alone[1:], axis=1)
        swaps = np.ones((draws, shared), bool)
        swaps[1:] = rng.random((draws - 1, shared)) < 0.5
    sides = np.concatenate([alone, swaps, ~swaps], axis=1)
    return sides.astype(np.float32), (~sides).astype(np.float32)


def intervals(drift: Array, statistic: Statistic, group: np.ndarray, model: np.ndarray, draws: int = DRAWS) -> Array:
    """Bootstrap of √D over models: 95 % intervals of the populations' drift (groups, groups) → (groups, groups, 2).

    A draw takes as many models as there are, with replacement: within each group, or, where any model is in several
    groups, of all models once for all groups. Drawn groups drift by more than the groups they are drawn from, by b in
    the mean of D, as much as these by more than their populations; about that, √D* varies as √D does about √(D + b).
    So the basic bootstrap of √D (Davison and Hinkley 1997, eq. 5.6) is taken of √(D + b), and b off its square,
    clipped at 0. Since k models vary by (k − 1)/k of their population's variance, b and the variance are scaled by
    the inverse, and the bounds by the ratio of Student's quantile to the normal one. The interval has the noise
    taken out, so that all of it may lie below `drift`. NaN on the diagonal and for groups of fewer than 5 models.
    """
    found = np.full((*drift.shape, 2), np.nan)
    sizes = np.bincount(group, minlength=len(drift))
    chosen = np.flatnonzero(sizes >= ENOUGH_MODELS)
    left, right = np.triu_indices(len(chosen), 1)
    if not len(left):
        return found
    # Hellinger and Wasserstein are distances: what is a square to the others is theirs squared.
    power = 0.5 if statistic.is_square else 1.0
    roots = np.empty((draws, len(left)), np.float32)
    start = 0
    for sums in _drawn(statistic.states, group, model, chosen, draws):
        roots[start : start + len(sums)] = statistic.matrices(sums)[:, left, right] ** power
        start += len(sums)
    square, low, high = np.empty((3, len(left)))
    for some in _slices(len(left), max(1, _BATCH // draws)):  # a quantile takes copies of what it is of
        part = roots[:, some]
        square[some] = (part.astype(np.float64) ** 2).mean(axis=0)
        low[some], high[some] = np.quantile(part, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    low, high = low - np.sqrt(square), high - np.sqrt(square)
    left, right = chosen[left], chosen[right]
    root = drift[left, right] ** power
    freedom, inflation = _freedom(group, model, left, right)
    excess = np.maximum(square - root**2, 0.0) * inflation
    wider = np.sqrt(inflation) * _student(freedom) / _Z975
    bounds = np.maximum(root - wider * np.stack([high, low]), 0.0) ** 2 - excess
    found[left, right] = found[right, left] = (np.maximum(bounds, 0.0) ** (0.5 / power)).T
    return found


def _slices(number: int, some: int) -> Iterator[slice]:
    return (slice(start, start + some) for start in range(0, number, some))


def _freedom(group: np.ndarray, model: np.ndarray, left: np.ndarray, right: np.ndarray) -> tuple[Array, Array]:
    """Of each pair: degrees of freedom among its models, and models for each of them."""
    sets = [set(model[group == one].tolist()) for one in range(int(group.max()) + 1)]
    together = np.array([len(sets[i] | sets[j]) for i, j in zip(left, right, strict=True)], np.float64)
    freedom = together - (1 if _several(model) else 2)
    return freedom, together / freedom


def _student(freedom: Array) -> Array:
    """The 97.5 % quantile of Student's t, by its series about the normal one; within 0.3 % from 8 on."""
    z = _Z975
    found: Array = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return found


def _several(model: np.ndarray) -> bool:
    """Whether any model is in several groups."""
    return len(np.unique(model)) < len(model)


def _drawn(states: Array, group: np.ndarray, model: np.ndarray, chosen: np.ndarray, draws: int) -> Iterator[Array]:
    """Sums of the chosen groups with models drawn anew, some draws at a time, (some, groups, columns)."""
    some = max(1, min(draws, _BATCH // (len(chosen) * states.shape[1])))
    weights = _weights(states, group, model, draws)
    for start in range(0, draws, some):
        batch = [weights(one, slice(start, start + some)) @ states[group == one] for one in chosen]
        yield np.stack(batch, axis=1)


def _weights(states: Array, group: np.ndarray, model: np.ndarray, draws: int) -> Callable[[int, slice], Array]:
    """How often each cell of a group is drawn: group and draws → (draws, cells of the group).

    A group's draws come from what is in it, so that a pair asked alone has the interval that it has among others.
    """

    def times(models: int, *key: int) -> np.ndarray:
        return np.random.default_rng([SEED, *key]).multinomial(models, np.full(models, 1 / models), size=draws)

    if _several(model):
        _, place = np.unique(model, return_inverse=True)
        of_all = times(int(place.max()) + 1, draws)
        return lambda one, part: of_all[part][:, place[group == one]].astype(np.float64)
    each: dict[int, np.ndarray] = {}
    seen: Counter[int] = Counter()
    for one in np.unique(group).tolist():
        rows = states[group == one]
        # Which columns there are depends on the other groups, but what they have besides does not.
        key = zlib.crc32(rows[rows != 0].tobytes())
        each[one] = times(len(rows), draws, key, seen[key])
        seen[key] += 1
    return lambda one, part: each[int(one)][part].astype(np.float64)


def sampling_floor(statistic: Statistic, draws: int = SAMPLING_DRAWS) -> Floor:
    """The sampling floor by multinomial draws, for a statistic of histograms whose states are the groups'.

    `statistic.states`: number of filters, then 9 × 70 counts. → (groups, groups), NaN on the diagonal.
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
        found = statistic.pairs(*sides)
        mean[i, j] = mean[j, i] = found.mean()
        q95[i, j] = q95[j, i] = np.quantile(found, QUANTILE, method="inverted_cdf")
    return Floor(mean, q95)
