"""Turn floors of drift into p-values, correct them for many pairs, and find the smallest drift that can be detected.

A floor is the mean and the 95 % quantile of a distribution. It is treated as a gamma distribution, whose probabilities
follow from a cube root that is nearly normal (Wilson and Hilferty 1931).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.sampling import Floor

Array = NDArray[np.float64]

LEVEL = 0.05
"""Share of false verdicts that is accepted: of all verdicts `different` in a matrix, or of matrices with `related`."""

POWER = 0.8
"""Probability of a verdict `different` at the detectable drift."""

_Z95 = NormalDist().inv_cdf(0.95)


def benjamini_yekutieli(p_values: Array) -> Array:
    """Return the q-values (tests,) of p-values (tests,), whatever their dependence (Benjamini and Yekutieli 2001).

    A q-value is the smallest false-discovery rate at which the test rejects. NaN is no test.
    """
    q = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    number = len(tested)
    if number:
        order = tested[np.argsort(p_values[tested], kind="stable")]
        scaled = p_values[order] * number * harmonic(number) / np.arange(1, number + 1)
        q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def harmonic(number: int) -> float:
    """Return 1 + 1/2 + … + 1/number, the factor by which dependent tests need smaller p-values."""
    return math.fsum(1 / k for k in range(1, number + 1))


def p_above(drift: Array, floor: Floor) -> Array:
    """Return the probability that noise alone makes a drift at least this large; NaN without a floor."""
    return _normal_tail(_as_normal(drift, floor))


def p_below(drift: Array, floor: Floor) -> Array:
    """Return the probability that noise alone makes a drift at most this large; NaN without a floor."""
    return _normal_tail(-_as_normal(drift, floor))


def detectable(floor: Floor, level: Array | float) -> Array:
    """Return the smallest drift of two populations that has the p-value `level` or less in about 80 % of the cases.

    √D varies about the root of its mean as it does under the floor, and its mean is the populations' drift and the
    floor's mean. NaN without a floor.
    """
    spread = _spread(floor)
    z = _normal_quantile(1 - np.broadcast_to(np.asarray(level, np.float64), spread.shape))
    limit = floor.mean * np.maximum(1 - spread**2 + z * spread, 0.0) ** 3
    deviation = 1.5 * spread * np.sqrt(floor.mean)  # of √D: half of the relative deviation, which is 3·spread
    drift: Array = (np.sqrt(limit) + NormalDist().inv_cdf(POWER) * deviation) ** 2 - floor.mean
    return np.maximum(drift, 0.0)


def _spread(floor: Floor) -> Array:
    """Return the deviation of the cube root of D/mean, which makes the 95 % quantile what it is."""
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.cbrt(floor.q95 / floor.mean) - 1
    spread: Array = (_Z95 - np.sqrt(np.maximum(_Z95**2 - 4 * root, 0.0))) / 2
    return spread


def _as_normal(drift: Array, floor: Floor) -> Array:
    """Return how many deviations the cube root of a drift lies above its mean under the floor."""
    spread = _spread(floor)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations: Array = (np.cbrt(drift / floor.mean) - 1 + spread**2) / spread
    return deviations


def _normal_tail(z: Array) -> Array:
    """Return the probability that a standard normal variable is at least z."""
    values = [0.5 * math.erfc(value / math.sqrt(2)) for value in np.ravel(z).tolist()]
    return np.array(values, np.float64).reshape(np.shape(z))


def _normal_quantile(probability: Array) -> Array:
    """Return the quantile of the standard normal distribution; NaN outside (0, 1)."""
    values, place = np.unique(probability, return_inverse=True)
    quantiles = [NormalDist().inv_cdf(value) if 0 < value < 1 else math.nan for value in values.tolist()]
    return np.array(quantiles, np.float64)[place].reshape(probability.shape)
