"""Measure a layer whose filters are in memory, in one pass without Numba: for training loops, and for one model."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics import layer as whole
from filterdb.numerics.eigen import variance_ratio
from filterdb.numerics.moments import Moments
from filterdb.numerics.quality import variance_entropy
from filterdb.numerics.spectrum import second_moments
from filterdb.numerics.sphericity import p_value
from filterdb.schema import Kernel

BLOCK = 147_456
"""Weights in double precision at a time (1.2 MB). They stay in a core's second-level cache."""


class Measures(NamedTuple):
    """What is measured of a layer. All numbers but `filters` are NaN if a weight is NaN or infinite."""

    filters: int
    """The number of filters n."""

    sparsity: float
    """S: the share of filters whose |w| are all strictly below peak/100; 1 for an all-zero layer."""

    variance_entropy: float
    """H of the layer's own raw PCA (P1 eq. 7)."""

    p_value: float
    """The probability that isotropic noise departs from sphericity at least as far; NaN for too few filters."""

    centre_energy: float
    """The share of Σf² that is in the centre weight, (rows // 2, columns // 2); NaN for an all-zero layer."""

    norm: float
    """√Σw² over the layer."""


def measure(filters: NDArray[np.float32], kernel: Kernel) -> Measures:
    """Return the measures of a layer's filters (n, weights) float32; n is at least 1."""
    raw, scaled, peaks = _moments(filters)
    peak = float(peaks.max())
    if not math.isfinite(peak):
        return Measures(len(filters), *[math.nan] * 5)
    second = second_moments(raw)
    energy = float(np.trace(second))
    return Measures(
        filters=len(filters),
        sparsity=float(whole.sparse_filters(peaks, peak).mean()),
        variance_entropy=float(variance_entropy(variance_ratio(raw))),
        p_value=float(p_value(scaled)),
        centre_energy=centre_energy(second, kernel),
        norm=math.sqrt(energy * len(filters)),
    )


def centre_energy(second: NDArray[np.float64], kernel: Kernel) -> float:
    """Return the share of filters' energy in the centre weight from their second moments about zero, (K, K)."""
    centre, total = kernel[0] // 2 * kernel[1] + kernel[1] // 2, float(np.trace(second))
    return float(second[centre, centre]) / total if total > 0 else math.nan


def _moments(filters: NDArray[np.float32]) -> tuple[Moments, Moments, NDArray[np.float32]]:
    """Return the moments of raw and of max-scaled filters, and the largest |w| of each filter, (n,).

    The same numbers as `layer.moments` up to the order of sums, with each block converted only once.
    """
    number, weights = filters.shape
    step = max(1, BLOCK // weights)
    peaks = np.empty(number, np.float32)
    raw, scaled = _Sums(weights), _Sums(weights)
    buffer = np.empty((weights, min(step, number)))
    for start in range(0, number, step):
        block = buffer[:, : min(step, number - start)]
        block[...] = filters[start : start + step].T  # columns first: sums run along memory
        largest = np.abs(block).max(axis=0)
        peaks[start : start + step] = largest
        with np.errstate(invalid="ignore"):  # infinite weights, which the caller finds in the peaks
            scaled.add(block / np.where(largest > 0, largest, 1.0))
            raw.add(block)
    return raw.moments(), scaled.moments(), peaks


class _Sums:
    """Moments that grow by blocks of filters (Chan, Golub, LeVeque 1979)."""

    def __init__(self, weights: int) -> None:
        self.count = 0
        self.mean, self.m2 = np.zeros(weights), np.zeros((weights, weights))

    def add(self, block: NDArray[np.float64]) -> None:
        """Add filters (weights, m), which are overwritten."""
        # The first filter comes first, so that equal filters have exactly no spread.
        origin = block[:, 0].copy() if self.count == 0 else self.mean
        block -= origin[:, None]
        number = block.shape[1]
        shift = block.sum(axis=1)
        self.m2 += block @ block.T - np.outer(shift, shift) / (self.count + number)
        self.mean = origin + shift / (self.count + number)
        self.count += number

    def moments(self) -> Moments:
        """Return count, mean and m2."""
        return Moments(np.array(self.count), self.mean, self.m2)
