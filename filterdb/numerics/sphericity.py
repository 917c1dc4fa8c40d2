"""Test whether the filters of a layer can be told from isotropic noise (method: "Randomness").

The test looks at max-scaled filters, so it does not depend on the scale of any filter, and hence neither on the scales
of output channels nor on a batch normalisation folded into them. If weights are independent draws from one symmetric
distribution, the second moments of scaled filters about zero are a multiple of the identity. The statistic measures
the departure from that, as John (1971) and Nagao (1973) do for normal samples:

    D = S / tr S − I/9,    Q = n · 81/2 · (Σ_{i≠j} D_ij² / off + Σ_i D_ii² / diagonal)

Q is asymptotically χ² with 44 degrees of freedom. The variances of D_ij and D_ii depend on the fourth moments of scaled
weights, hence on the distribution of weights. Over the distributions by which networks are initialised, and those with
heavier tails, they are functions of tr S, the mean squared norm of a scaled filter: SQUARED_NORM, OFF and DIAGONAL.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.moments import Moments
from filterdb.schema import WEIGHTS

FREEDOM = WEIGHTS * (WEIGHTS + 1) // 2 - 1
"""Degrees of freedom of the statistic; even, so that its tail is a finite sum."""

SMALLEST = 16
"""Smallest number of filters for which the test keeps its error rate (`benchmarks/randomness.py`)."""

SQUARED_NORM = np.array(
    [1.6357, 1.8701, 2.0156, 2.2222, 2.4027, 2.5447, 2.6926, 2.7172, 2.9400, 3.1246, 3.4130, 3.6664]
)
"""Mean squared norms of max-scaled filters: 1.64 for Cauchy weights, 2.69 for normal and 3.67 for uniform ones."""

OFF = np.array([0.7681, 0.8530, 0.8663, 0.8990, 0.9232, 0.9300, 0.9352, 0.9343, 0.9436, 0.9543, 0.9598, 0.9670])
"""E[u²v²] / E[u²]² for two weights u, v of a scaled filter, at each of SQUARED_NORM."""

DIAGONAL = np.array([1.7630, 1.3519, 1.1805, 0.9718, 0.8265, 0.7408, 0.6666, 0.6565, 0.5670, 0.4987, 0.4350, 0.3868])
"""(E[u⁴] − E[u²v²]) / 2 E[u²]², at each of SQUARED_NORM. `benchmarks/randomness.py --constants` prints all three."""


_SMALLEST_P = 1e-300
"""Smaller p-values count as this, because 0 has no logarithm."""


def statistic(scaled: Moments) -> NDArray[np.float64]:
    """Return Q for moments of max-scaled filters, of any leading shape; NaN where there are no filters or only zeros.

    The mean counts as a departure from noise about zero: S is the second moment, not the covariance.
    """
    count = np.maximum(scaled.count, 1)
    second = scaled.m2 / count[..., None, None] + scaled.mean[..., :, None] * scaled.mean[..., None, :]
    trace = np.trace(second, axis1=-2, axis2=-1)
    usable = (scaled.count > 0) & (trace > 0)
    safe = np.where(usable, trace, 1.0)
    departure = second / safe[..., None, None] - np.eye(WEIGHTS) / WEIGHTS
    diagonal = (np.diagonal(departure, axis1=-2, axis2=-1) ** 2).sum(axis=-1)
    rest = (departure**2).sum(axis=(-2, -1)) - diagonal
    terms = rest / np.interp(trace, SQUARED_NORM, OFF) + diagonal / np.interp(trace, SQUARED_NORM, DIAGONAL)
    value: NDArray[np.float64] = np.where(usable, count * (WEIGHTS**2 / 2) * terms, np.nan)
    return value


def p_value(scaled: Moments) -> NDArray[np.float64]:
    """Return the probability that isotropic noise departs from sphericity at least as far as these filters.

    NaN where there are fewer than SMALLEST filters, or only zeros.
    """
    tail = chi_squared_tail(statistic(scaled))
    return np.where(scaled.count >= SMALLEST, tail, np.nan)


def chi_squared_tail(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return P(χ² > value) for FREEDOM degrees of freedom.

    For an even number ν it equals P(N < ν/2), where N is a Poisson variable of mean value/2.
    """
    mean = np.asarray(value, np.float64) / 2
    log_mean = np.log(np.where(mean > 0, mean, 1.0))
    terms = [np.exp(k * log_mean - math.lgamma(k + 1) - mean) for k in range(FREEDOM // 2)]
    tail: NDArray[np.float64] = np.where(mean > 0, np.minimum(sum(terms), 1.0), np.where(np.isnan(mean), np.nan, 1.0))
    return tail


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
