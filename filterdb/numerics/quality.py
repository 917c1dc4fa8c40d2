"""Degeneration of a layer: variance entropy, randomness threshold, orthogonality (P1 §4, torchconvquality)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.schema import WEIGHTS

SPARSE_FRACTION = 100
"""A filter is sparse if its |w| are all strictly below the layer's peak divided by this."""


_WEIGHTS = 131_072
"""Weights in float64 that are scaled at a time (1 MB). They stay in a core's cache."""


class Sigmoid(NamedTuple):
    """Constants of T_H(n) = span/(1 + exp(−rate(log₂ n − centre))) + offset; L, k, x₀ and b of P1 eq. 8.

    The defaults are P1's own fit to the smallest entropy of random layers, unrounded. `numerics.threshold` fits others.
    """

    span: float = 1.2618047
    rate: float = 0.88767525
    centre: float = 2.30436435
    offset: float = -0.31050834


P1 = Sigmoid()

NO_THRESHOLD = Sigmoid(*[float("nan")] * 4)
"""The threshold where there is none: NaN for layers of any size."""


def paper_threshold(weights: int) -> Sigmoid:
    """Return P1's threshold for filters of nine weights; for any other number P1 has none."""
    return P1 if weights == WEIGHTS else NO_THRESHOLD


def variance_entropy(ratio: np.ndarray) -> NDArray[np.float64]:
    """Return H = −Σ âᵢ log₁₀ âᵢ over the last axis, with 0·log 0 = 0 (P1 eq. 7); it is in [0, log₁₀ K].

    K is the length of that axis, the number of weights of a filter. H of different kernels compares as H / log₁₀ K.
    """
    safe = np.where(ratio > 0, ratio, 1.0)
    entropy: NDArray[np.float64] = -(ratio * np.log10(safe)).sum(axis=-1)
    positive: NDArray[np.float64] = np.maximum(entropy, 0.0)
    return positive


def randomness_threshold(filters: np.ndarray, fit: Sigmoid = P1) -> NDArray[np.float64]:
    """Return T_H(n) = L/(1 + exp(−k(log₂ n − x₀))) + b for layers of n ≥ 1 filters (P1 eq. 8)."""
    size = np.log2(np.asarray(filters, dtype=np.float64))
    threshold: NDArray[np.float64] = fit.span / (1 + np.exp(-fit.rate * (size - fit.centre))) + fit.offset
    return threshold


def paper_thresholds(filters: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return T_H of each layer, (layers,); NaN for filters of another number of weights than P1's."""
    threshold = np.full(len(filters), np.nan)
    for number in np.unique(weights[weights > 0]).tolist():
        here = weights == number
        threshold[here] = randomness_threshold(filters[here], paper_threshold(number))
    return threshold


def orthogonality(filters: NDArray[np.float32], out_channels: int, rows: int = 1024) -> float:
    """Return 1 − Σ|ŴŴᵀ − I| / (c(c−1)) over the c output channels with unit rows; NaN for c = 1 (torchconvquality).

    `filters` (n, weights) float32 are those of a whole layer; a row of zeros stays zero. Computed in float64, `rows`
    channels at a time.
    """
    if out_channels < 2:
        return float("nan")
    channels = filters.reshape(out_channels, -1)
    weights = np.empty(channels.shape)
    step = max(1, _WEIGHTS // channels.shape[1])
    for start in range(0, out_channels, step):
        block = weights[start : start + step]
        block[:] = channels[start : start + step]
        # Scale first, so that squares of tiny or huge weights neither underflow nor overflow.
        peak = np.maximum(block.max(axis=1, keepdims=True), -block.min(axis=1, keepdims=True))
        block /= np.where(peak > 0, peak, 1.0)
        norm = np.linalg.norm(block, axis=1, keepdims=True)
        block /= np.where(norm > 0, norm, 1.0)
    total = 0.0
    for start in range(0, out_channels, rows):
        product = weights[start : start + rows] @ weights.T
        index = np.arange(len(product))
        product[index, start + index] -= 1.0
        total += float(np.abs(product, out=product).sum())
    return 1.0 - total / (out_channels * (out_channels - 1))
