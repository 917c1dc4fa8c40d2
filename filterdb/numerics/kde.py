"""Estimate smooth densities from histograms with a Gaussian kernel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

POINTS_PER_BIN = 4
"""Points at which a density is evaluated, for each bin of the histogram."""

_REACH, _STEPS = 8.0, 16_001
_GRID = np.linspace(-_REACH, _REACH, _STEPS)


def points(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points at which `kernel_density` evaluates a histogram with these edges (bins + 1,)."""
    return np.linspace(edges[0], edges[-1], POINTS_PER_BIN * (len(edges) - 1) + 1)


def bandwidths(count: np.ndarray, std: np.ndarray, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Scott's bandwidth σ·n^(−1/5), at least half a bin, of samples with these counts and standard deviations.

    With a narrower kernel the estimate would show the steps of the histogram.
    """
    half_bin = float(edges[-1] - edges[0]) / (len(edges) - 1) / 2
    width: NDArray[np.float64] = np.maximum(std * np.maximum(count, 1) ** -0.2, half_bin)
    return width


def kernel_density(counts: np.ndarray, edges: NDArray[np.float64], bandwidth: np.ndarray) -> NDArray[np.float64]:
    """Return the Gaussian kernel density estimate of histograms at `points(edges)`.

    Samples count as spread evenly over their bin, and the convolution of that with the kernel is exact. So details
    narrower than a bin are lost, however small the bandwidth is.

    Parameters
    ----------
    counts : ndarray (…, bins) of int
        Samples in each bin.
    edges : ndarray (bins + 1,) of float64
        Edges of the bins.
    bandwidth : ndarray (…) of float64
        Standard deviation of each histogram's kernel; at 0 the estimate is the histogram itself.

    Returns
    -------
    ndarray (…, points) of float64
        Zero for a histogram without samples.
    """
    at, width = points(edges), np.diff(edges)
    flat = counts.reshape(-1, counts.shape[-1])
    density = np.zeros((len(flat), len(at)))
    smallest = 1e-9 * float(edges[-1] - edges[0])
    normal = _normal_cdf()
    for row, (heights, own) in enumerate(zip(flat, np.broadcast_to(bandwidth, counts.shape[:-1]).ravel(), strict=True)):
        total = heights.sum()
        if total:
            cdf = np.interp((at[:, None] - edges) / max(float(own), smallest), _GRID, normal)
            density[row] = (cdf[:, :-1] - cdf[:, 1:]) @ (heights / total / width)
    return density.reshape(*counts.shape[:-1], len(at))


def _normal_cdf() -> NDArray[np.float64]:
    """Return the normal distribution function at _GRID; linear interpolation between its points is exact to 3e-8."""
    return np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in _GRID.tolist()])
