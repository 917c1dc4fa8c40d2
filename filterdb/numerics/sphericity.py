"""Test whether the filters of a layer can be told from isotropic noise (method: "Randomness").

The test looks at max-scaled filters, so it does not depend on the scale of any filter, and hence neither on the scales
of output channels nor on a batch normalisation folded into them. If the K weights of a filter are independent draws
from one symmetric distribution, the second moments of scaled filters about zero are a multiple of the identity. The
statistic measures the departure from that, as John (1971) and Nagao (1973) do for normal samples:

    D = S / tr S − I/K,    Q = n · K²/2 · (Σ_{i≠j} D_ij² / off + Σ_i D_ii² / diagonal)

Q is asymptotically χ² with K(K+1)/2 − 1 degrees of freedom, also where n is smaller than K and S is singular (Ledoit
and Wolf 2002), because S is not inverted. The variances of D_ij and D_ii depend on the fourth moments of scaled
weights, hence on the distribution of weights. They are functions of tr S, the mean squared norm of a scaled filter:
`numerics.max_scaled` computes them for any K. For K = 9 they are the simulated SQUARED_NORM, OFF and DIAGONAL.

For large K and small n, Q varies more than χ² does, because the squared norms of the filters in the sample do. Its
distance from its mean is divided by the ratio of the two standard deviations. For K = 9 the ratio is left at 1: it is
below 1.01 for n ≥ 64.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.max_scaled import Variances, variances
from filterdb.numerics.moments import Moments
from filterdb.schema import WEIGHTS

SMALLEST = 16
"""Smallest number of filters of nine weights for which the test keeps its error rate (`benchmarks/randomness.py`)."""

SQUARED_NORM = np.array(
    [1.6357, 1.8701, 2.0156, 2.2222, 2.4027, 2.5447, 2.6926, 2.7172, 2.9400, 3.1246, 3.4130, 3.6664]
)
"""Mean squared norms of max-scaled filters: 1.64 for Cauchy weights, 2.69 for normal and 3.67 for uniform ones."""

OFF = np.array([0.7681, 0.8530, 0.8663, 0.8990, 0.9232, 0.9300, 0.9352, 0.9343, 0.9436, 0.9543, 0.9598, 0.9670])
"""E[u²v²] / E[u²]² for two weights u, v of a scaled filter, at each of SQUARED_NORM."""

DIAGONAL = np.array([1.7630, 1.3519, 1.1805, 0.9718, 0.8265, 0.7408, 0.6666, 0.6565, 0.5670, 0.4987, 0.4350, 0.3868])
"""(E[u⁴] − E[u²v²]) / 2 E[u²]², at each of SQUARED_NORM. `benchmarks/randomness.py --constants` prints all three."""

_SIMULATED = Variances(SQUARED_NORM, OFF, DIAGONAL, np.zeros_like(OFF))

_SMALLEST_P = 1e-300
"""Smaller p-values count as this, because 0 has no logarithm."""


_PRECISION = 1e-15
"""Relative size of the last term of a sum."""

_MANY_TERMS = 64
"""Largest even number of degrees of freedom whose tail is computed as a finite sum."""


def freedom(weights: int) -> int:
    """Return the degrees of freedom of the statistic for filters of K weights: K(K+1)/2 − 1."""
    return weights * (weights + 1) // 2 - 1


FREEDOM = freedom(WEIGHTS)
"""Degrees of freedom for nine weights."""


def smallest_filters(weights: int) -> int:
    """Return the smallest number of filters of K weights for which the test keeps its error rate: K/2, at least 16.

    Below, the statistic of normal noise is more skewed than χ², and noise is rejected more often than stated.
    """
    return max(SMALLEST, -(-weights // 2))


def _variances(weights: int) -> Variances:
    """Return the variances for filters of K weights."""
    return _SIMULATED if weights == WEIGHTS else variances(weights)


def statistic(scaled: Moments) -> NDArray[np.float64]:
    """Return Q for moments of max-scaled filters, of any leading shape; NaN where there are no filters or only zeros.

    The mean counts as a departure from noise about zero: S is the second moment, not the covariance.
    """
    return _statistic(scaled)[0]


def _statistic(scaled: Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Q, and the ratio of its standard deviation to that of χ²."""
    weights = scaled.mean.shape[-1]
    count = np.maximum(scaled.count, 1)
    second = scaled.m2 / count[..., None, None] + scaled.mean[..., :, None] * scaled.mean[..., None, :]
    trace = np.trace(second, axis1=-2, axis2=-1)
    usable = (scaled.count > 0) & (trace > 0)
    safe = np.where(usable, trace, 1.0)
    departure = second / safe[..., None, None] - np.eye(weights) / weights
    diagonal = (np.diagonal(departure, axis1=-2, axis2=-1) ** 2).sum(axis=-1)
    rest = (departure**2).sum(axis=(-2, -1)) - diagonal
    knots = _variances(weights)
    terms = rest / np.interp(trace, knots.squared_norm, knots.off)
    terms += diagonal / np.interp(trace, knots.squared_norm, knots.diagonal)
    value: NDArray[np.float64] = np.where(usable, count * (weights**2 / 2) * terms, np.nan)
    return value, np.sqrt(1 + np.interp(trace, knots.squared_norm, knots.excess) / count)


def p_value(scaled: Moments) -> NDArray[np.float64]:
    """Return the probability that isotropic noise departs from sphericity at least as far as these filters.

    NaN where there are fewer than `smallest_filters`, or only zeros.
    """
    weights = scaled.mean.shape[-1]
    number = freedom(weights)
    value, ratio = _statistic(scaled)
    if weights != WEIGHTS:
        value = number + (value - number) / ratio
    return np.where(scaled.count >= smallest_filters(weights), chi_squared_tail(value, number), np.nan)


def chi_squared_tail(value: NDArray[np.float64], freedom: int = FREEDOM) -> NDArray[np.float64]:
    """Return P(χ² > value) for a number of degrees of freedom.

    For an even number ν it equals P(N < ν/2), where N is a Poisson variable of mean value/2.
    """
    mean = np.asarray(value, np.float64) / 2
    if freedom % 2 or freedom > _MANY_TERMS:
        return _upper_gamma(freedom / 2, mean)
    log_mean = np.log(np.where(mean > 0, mean, 1.0))
    terms = [np.exp(k * log_mean - math.lgamma(k + 1) - mean) for k in range(freedom // 2)]
    tail: NDArray[np.float64] = np.where(mean > 0, np.minimum(sum(terms), 1.0), np.where(np.isnan(mean), np.nan, 1.0))
    return tail


def _upper_gamma(shape: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the regularised upper incomplete gamma function Q(shape, x); 1 for x ≤ 0, NaN for NaN.

    A power series below shape + 1, Legendre's continued fraction above (Abramowitz and Stegun 6.5.29 and 6.5.31).
    """
    tail = np.where(np.isnan(x), np.nan, np.where(x > 0, 0.0, 1.0)).reshape(-1)
    places = np.flatnonzero(np.isfinite(x.reshape(-1)) & (x.reshape(-1) > 0))
    values = x.reshape(-1)[places]
    front = np.exp(shape * np.log(values) - values - math.lgamma(shape))
    low = values < shape + 1
    tail[places[low]] = 1 - front[low] * _series(shape, values[low])
    tail[places[~low]] = front[~low] * _fraction(shape, values[~low])
    return np.clip(tail, 0.0, 1.0).reshape(x.shape)


def _series(shape: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Σ_k x^k / (shape (shape+1) … (shape+k)); every term is smaller than the one before."""
    term = np.full_like(x, 1 / shape)
    total = term.copy()
    k = 0
    while (term > _PRECISION * total).any():
        k += 1
        term = term * x / (shape + k)
        total += term
    return total


def _fraction(shape: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1/(x+1−shape − 1·(1−shape)/(x+3−shape − 2·(2−shape)/(x+5−shape − …))) by Lentz's method."""
    lowest = np.finfo(np.float64).tiny
    b = x + 1 - shape
    c = np.full_like(x, 1 / lowest)
    d = 1 / np.maximum(b, lowest)
    total, change, k = d.copy(), np.zeros_like(x), 0
    while (np.abs(change - 1) > _PRECISION).any():
        k += 1
        factor = -k * (k - shape)
        b = b + 2
        d, c = factor * d + b, b + factor / c
        d = 1 / np.where(np.abs(d) < lowest, lowest, d)
        c = np.where(np.abs(c) < lowest, lowest, c)
        change = d * c
        total *= change
    return total


def joint_p_values(p_value: NDArray[np.float64], owner: NDArray[np.int64], models: int) -> NDArray[np.float64]:
    """Return the p-value of each model's layers together by Fisher's method, (models,); 1 for none.

    `p_value` (layers,) is that of each layer, and `owner` (layers,) the number of its model.
    """
    number = np.bincount(owner, minlength=models)
    # Half of Fisher's statistic, whose tail at 2L degrees of freedom is that of a Poisson variable below L.
    half = np.bincount(owner, -np.log(np.maximum(p_value, _SMALLEST_P)), models)
    return np.array([_poisson_below(layers, mean) for layers, mean in zip(number.tolist(), half.tolist(), strict=True)])


def _poisson_below(number: int, mean: float) -> float:
    """Return the probability that a Poisson variable is smaller than a number."""
    if mean <= 0:
        return 1.0
    return math.fsum(math.exp(k * math.log(mean) - math.lgamma(k + 1) - mean) for k in range(number))


def relative_spread(raw: Moments) -> NDArray[np.float64]:
    """Return √(tr Σ) / |μ| for moments of raw filters: how far filters are from their mean, compared with its norm.

    Near 0 all filters are nearly equal. Infinite where the mean is 0, NaN where all filters are 0.
    """
    # Divide by the largest entry first, so that squares of tiny or huge weights neither underflow nor overflow.
    spread = np.sqrt(np.maximum(np.trace(raw.m2, axis1=-2, axis2=-1), 0.0) / np.maximum(raw.count, 1))
    largest = np.abs(raw.mean).max(axis=-1)
    norm = largest * np.linalg.norm(raw.mean / np.where(largest > 0, largest, 1.0)[..., None], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(spread / norm, np.float64)
