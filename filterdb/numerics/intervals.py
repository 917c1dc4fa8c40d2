"""Intervals of drift between populations of models: draw the models of each group anew, and invert a test.

Random numbers depend only on a seed and on the groups that are drawn, so a pair has the same interval alone and among
other pairs. (The only exception is where models are in several groups.)
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.noise import DRAWS, HIGH, SEED, Permuted
from filterdb.numerics.resampling import Statistic

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

COVERAGE = 0.90
"""Nominal coverage of the intervals."""

ENOUGH_MODELS = 5
"""Groups of fewer models have no interval."""

_Z95, _Z90 = 1.6448536269514722, 1.2815515655446004
"""Quantiles of the normal distribution: 5 % on each side of an interval, or all 10 % where the drift may be 0."""

_OWN = 0.5
"""Share of the noise that is taken off before the variance in the direction of the drift is estimated."""

_PRIOR = 0.2
"""Weight of the largest possible variance in that estimate, in units of the noise's mean.

Both numbers were calibrated with the simulations of docs/explanation/noise.md.
"""

_HALVINGS = 50
"""Steps of the search for a bound."""

_BATCH = 500_000
"""Most numbers in a batch of draws of models: 4 MB, which fit in the cache."""


class _Noise(NamedTuple):
    """Describe the random part of a squared distance D of two groups, (pairs,) each.

    D has the mean δ + `mean` and the variance 4δ·`along` + `variance`, with δ the drift of the populations. `freedom`
    is that of the estimated `along`.
    """

    mean: Array
    variance: Array
    along: Array
    freedom: Array


def intervals(
    drift: Array, statistic: Statistic, group: Indices, model: Indices, permuted: Permuted, draws: int = DRAWS
) -> Array:
    """Return 90 % intervals (groups, groups, 2) of the populations' drift.

    `drift` (groups, groups) is the drift of the groups as they are, and `permuted` the result of `model_floor`. A draw
    takes as many models as there are, with replacement: within each group, or, if any model is in several groups, from
    all models once for all groups. Drawn groups drift by more than the groups that they are drawn from; this excess and
    the scatter of the drawn drifts are those of the groups about their populations, up to a factor that depends on the
    models' sizes. An interval has all δ whose 5 % and 95 % quantiles of D enclose the drift. As no drift is too small
    for δ = 0, all 10 % are above there, and it is decided by the permutations: the interval contains 0 unless the
    p-value is at most 0.10. The bounds have the noise subtracted, so all of the interval may lie below `drift`. It is
    NaN on the diagonal and for groups of fewer than 5 models.
    """
    interval = np.full((*drift.shape, 2), np.nan)
    sizes = np.bincount(group, minlength=len(drift))
    chosen = np.flatnonzero(sizes >= ENOUGH_MODELS)
    left, right = np.triu_indices(len(chosen), 1)
    if not len(left):
        return interval
    # Hellinger and Wasserstein are distances: their squares correspond to the D of the other metrics.
    power = 1 if statistic.is_square else 2
    rows, columns = chosen[left], chosen[right]
    square = drift[rows, columns] ** power
    noise = _noise(square, statistic, group, model, chosen, draws, power)
    bounds = np.stack([_bound(square, noise, above=True), _bound(square, noise, above=False)])
    high = permuted.q90[rows, columns] ** power
    differ = permuted.p_value[rows, columns] <= 1 - HIGH + 1e-9
    # √D exceeds √δ by at most the root of the noise.
    least = (np.sqrt(square) - np.sqrt(np.minimum(high, square))) ** 2
    bounds[0] = np.where(differ, np.maximum(bounds[0], least), 0.0)
    bounds[1] = np.maximum(bounds[1], bounds[0])
    interval[rows, columns] = interval[columns, rows] = (bounds ** (1 / power)).T
    return interval


def _bound(square: Array, noise: _Noise, *, above: bool) -> Array:
    """Return the smallest δ (pairs,) whose 95 % quantile of D (`above`), or 5 % quantile, is at least D."""
    low, high = np.zeros_like(square), 20 * (square + noise.mean) + np.finfo(np.float64).tiny
    enough = _quantile(low, noise, above=above) >= square
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = _quantile(middle, noise, above=above) >= square
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.where(enough, 0.0, high)


def _quantile(delta: Array, noise: _Noise, *, above: bool) -> Array:
    """Return a quantile of D (pairs,) for populations that drift by `delta` (pairs,).

    D is taken as the square of a normal variable that has D's mean and variance. The level is 95 % (`above`) or 5 %. At
    δ = 0 it is 90 % or 0, and below the mean of the noise it lies between.
    """
    near = np.minimum(delta, noise.mean) / noise.mean
    if above:
        z = _Z90 + (_Z95 - _Z90) * near
    else:
        # Within 0.05 of the quantile at 5 % times `near`, down to 0.05 %.
        z = -np.sqrt(_Z95**2 - 1.64 * np.log(np.maximum(near, np.finfo(np.float64).tiny)))
    along = 4 * delta * noise.along
    mean, variance = delta + noise.mean, along + noise.variance
    # The variance of the noise is a mean over many directions, so it is better known than that in one direction.
    share = along / np.maximum(variance, np.finfo(np.float64).tiny)
    z = np.sign(z) * np.sqrt(share * student(z, noise.freedom) ** 2 + (1 - share) * z**2)
    scatter = mean - np.sqrt(np.maximum(mean**2 - variance / 2, 0.0))
    root = np.sqrt(np.maximum(mean - scatter, 0.0)) + z * np.sqrt(scatter)
    quantile: Array = np.maximum(root, 0.0) ** 2
    return quantile


def student(z: Array, freedom: Array) -> Array:
    """Return the quantile of Student's t at the level of a normal quantile z, by a series (Fisher and Cornish 1960)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    quantile: Array = z + sum(term / freedom**k for k, term in enumerate(terms, start=1))
    return quantile


def _noise(
    square: Array, statistic: Statistic, group: Indices, model: Indices, chosen: Indices, draws: int, power: int
) -> _Noise:
    """Estimate the noise of the pairs of `chosen` groups with these squared distances, from draws of models."""
    left, right = np.triu_indices(len(chosen), 1)
    total, total_square = np.zeros((2, len(left)))
    own, own_square = np.zeros((2, len(chosen)))
    actual = np.stack([statistic.states[group == label].sum(axis=0) for label in chosen]).astype(np.float32)
    for sums in _resampled(statistic.states, group, model, chosen, draws):
        drawn = statistic.matrices(sums)[:, left, right] ** power
        total += drawn.sum(axis=0)
        total_square += (drawn**2).sum(axis=0)
        flat = sums.reshape(-1, sums.shape[2]).astype(np.float32)
        distances = statistic.pairs(flat, np.tile(actual, (len(sums), 1))).astype(np.float64)
        apart = distances.reshape(-1, len(chosen)) ** power
        own += apart.sum(axis=0)
        own_square += (apart**2).sum(axis=0)
    tiny = np.finfo(np.float64).tiny
    inflation, freedom = _replication(statistic.states[:, 0], group, model, chosen)
    excess = np.maximum(total / draws - square, tiny)
    scatter = np.maximum(total_square / draws - (total / draws) ** 2, 0.0)
    # The variance of a group about itself is 2 tr Σ². With Σ of both groups proportional, the roots of tr Σ² add up.
    deviation = np.sqrt(np.maximum(own_square / draws - (own / draws) ** 2, 0.0))
    relative = (deviation[left] + deviation[right]) / np.maximum((own[left] + own[right]) / draws, tiny)
    variance = (relative * excess) ** 2
    mean = inflation * excess
    # Var D* = 4 x'Σx + 2 tr Σ² with x the difference of the groups. x has noise in it, in whose directions Σ is smaller
    # on average than in that of a shift; no direction exceeds √(tr Σ²).
    along = inflation * np.maximum(scatter - variance, 0.0) / 4
    variance = inflation**2 * variance
    along = np.maximum(along - _OWN * variance / 2, 0.0) + _PRIOR * mean * np.sqrt(variance / 2)
    along /= np.maximum(square - _OWN * mean, 0.0) + _PRIOR * mean
    return _Noise(mean, variance, along, freedom)


def _replication(number: Array, group: Indices, model: Indices, chosen: Indices) -> tuple[Array, Array]:
    """Return by how much draws understate the variance of each pair, and its degrees of freedom, (pairs,) each.

    With the shares w of the models in a group, the variance of its mean is proportional to Σw², and that of drawn
    groups to Σw²(1 − 2w + Σw²): k/(k − 1) for k models of one size. The degrees of freedom are Satterthwaite's.
    """
    left, right = np.triu_indices(len(chosen), 1)
    codes, unit = np.unique(model, return_inverse=True)
    second, third, fourth = np.empty((3, len(chosen)))
    squares = np.zeros((len(chosen), len(codes)), np.float32)
    for position, label in enumerate(chosen):
        cells = group == label
        share = number[cells] / max(number[cells].sum(), 1.0)
        second[position], third[position], fourth[position] = (float((share**k).sum()) for k in (2, 3, 4))
        squares[position, unit[cells]] = share**2
    drawn = second - 2 * third + second**2
    known = second[left] + second[right]
    tiny = np.finfo(np.float64).tiny
    inflation = known / np.maximum(drawn[left] + drawn[right], tiny)
    shared = (squares @ squares.T)[left, right].astype(np.float64)
    means = np.where(shared > 0, 1, 2)  # that the models' deviations are taken from
    freedom = known**2 / np.maximum(fourth[left] + fourth[right] + 2 * shared, tiny) - means
    return inflation, np.maximum(freedom, 1.0)


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
