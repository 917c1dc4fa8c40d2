"""The compiled loops over filters. All in one module: Numba's cache does not see a change in another.

A block comes with its columns first, (9, n) float32, as it lies in a chunk; `starts` and `stops` (runs,) int64 cut
it into runs, one per layer. Every sum is float64. Sums may be reassociated (they vectorise), always in the same
way on one machine; the projection may not, so that extremes and histograms see the same coefficients bit for bit.
Division is never replaced by a reciprocal.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from filterdb.schema import WEIGHTS

LANES = 256
"""Filters handled at a time: their 9 columns in float64 fill 18 KiB of the first-level cache."""

_SUMS = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy")
def _peaks(columns, start, m, peak):
    """Largest |w| of each of m filters."""
    for i in range(m):
        peak[i] = abs(columns[0, start + i])
    for j in range(1, WEIGHTS):
        for i in range(m):
            w = abs(columns[j, start + i])
            peak[i] = w if w > peak[i] else peak[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _load(columns, start, m, peak, scaled, out):
    """m filters as float64 columns, divided by their peaks if `scaled`."""
    if scaled:
        for i in range(m):
            if peak[i] == 0:
                peak[i] = 1.0
        for j in range(WEIGHTS):
            for i in range(m):
                out[j, i] = np.float64(columns[j, start + i]) / peak[i]
    else:
        for j in range(WEIGHTS):
            for i in range(m):
                out[j, i] = columns[j, start + i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _accumulate(f, m, count, mean, m2):
    """Merge m filters (columns of f, overwritten) into count (1,), mean (9,), m2 (9, 9; upper triangle).

    Centred twice: sums are taken from the first filter on, so that equal filters give exactly zero, products from the
    block's own mean; then Chan's update (Chan, Golub, LeVeque 1979).
    """
    if m == 0:
        return
    delta = np.empty(WEIGHTS)
    for j in range(WEIGHTS):
        row = f[j]
        origin = row[0]
        total = 0.0
        for i in range(m):
            total += row[i] - origin
        centre = origin + total / m
        for i in range(m):
            row[i] -= centre
        delta[j] = centre - mean[j]
    n = count[0]
    weight = n * (m / (n + m))
    for j in range(0, WEIGHTS, 3):
        a0, a1, a2 = f[j], f[j + 1], f[j + 2]
        for k in range(j, WEIGHTS, 3):
            b0, b1, b2 = f[k], f[k + 1], f[k + 2]
            s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = 0.0
            for i in range(m):
                s00 += a0[i] * b0[i]
                s01 += a0[i] * b1[i]
                s02 += a0[i] * b2[i]
                s10 += a1[i] * b0[i]
                s11 += a1[i] * b1[i]
                s12 += a1[i] * b2[i]
                s20 += a2[i] * b0[i]
                s21 += a2[i] * b1[i]
                s22 += a2[i] * b2[i]
            m2[j, k] += s00 + weight * delta[j] * delta[k]
            m2[j, k + 1] += s01 + weight * delta[j] * delta[k + 1]
            m2[j, k + 2] += s02 + weight * delta[j] * delta[k + 2]
            m2[j + 1, k] += s10 + weight * delta[j + 1] * delta[k]
            m2[j + 1, k + 1] += s11 + weight * delta[j + 1] * delta[k + 1]
            m2[j + 1, k + 2] += s12 + weight * delta[j + 1] * delta[k + 2]
            m2[j + 2, k] += s20 + weight * delta[j + 2] * delta[k]
            m2[j + 2, k + 1] += s21 + weight * delta[j + 2] * delta[k + 1]
            m2[j + 2, k + 2] += s22 + weight * delta[j + 2] * delta[k + 2]
    for j in range(WEIGHTS):
        mean[j] += delta[j] * (m / (n + m))
    count[0] = n + m


@njit(cache=True, nogil=True, error_model="numpy")
def _mirror(m2):
    for j in range(WEIGHTS):
        for k in range(j):
            m2[j, k] = m2[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def moments(columns, starts, stops, thresholds):
    """Moments of each run; `thresholds` (runs,) float64: a filter whose |w| are all below it is sparse.

    Returns counts (runs, 2) int64, means (runs, 3, 9), m2 (runs, 3, 9, 9), peaks (runs,), ranges (runs,): the second
    axis is clean (raw filters that are not sparse), sparse (raw), scaled; ranges is Σ(max w − min w) over filters.
    """
    runs = starts.size
    counts = np.zeros((runs, 3))
    means = np.zeros((runs, 3, WEIGHTS))
    m2 = np.zeros((runs, 3, WEIGHTS, WEIGHTS))
    peaks = np.zeros(runs)
    ranges = np.zeros(runs)
    f = np.empty((WEIGHTS, LANES))
    g = np.empty((WEIGHTS, LANES))
    peak = np.empty(LANES, np.float32)
    low = np.empty(LANES, np.float32)
    high = np.empty(LANES, np.float32)
    for r in range(runs):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            for i in range(m):
                low[i] = columns[0, start + i]
                high[i] = low[i]
            for j in range(1, WEIGHTS):
                for i in range(m):
                    w = columns[j, start + i]
                    low[i] = w if w < low[i] else low[i]
                    high[i] = w if w > high[i] else high[i]
            largest = np.float32(0)
            smallest = np.float32(np.inf)
            for i in range(m):
                peak[i] = high[i] if high[i] > -low[i] else -low[i]
                largest = peak[i] if peak[i] > largest else largest
                smallest = peak[i] if peak[i] < smallest else smallest
            peaks[r] = max(peaks[r], np.float64(largest))
            total = 0.0
            for i in range(m):
                total += np.float64(high[i]) - np.float64(low[i])
            ranges[r] += total
            if smallest >= thresholds[r]:
                _load(columns, start, m, peak, False, f)
                _accumulate(f, m, counts[r, 0:1], means[r, 0], m2[r, 0])
            else:
                clean = 0
                sparse = 0
                for i in range(m):
                    if peak[i] < thresholds[r]:
                        for j in range(WEIGHTS):
                            g[j, sparse] = columns[j, start + i]
                        sparse += 1
                    else:
                        for j in range(WEIGHTS):
                            f[j, clean] = columns[j, start + i]
                        clean += 1
                _accumulate(f, clean, counts[r, 0:1], means[r, 0], m2[r, 0])
                _accumulate(g, sparse, counts[r, 1:2], means[r, 1], m2[r, 1])
            _load(columns, start, m, peak, True, f)
            _accumulate(f, m, counts[r, 2:3], means[r, 2], m2[r, 2])
        for s in range(3):
            _mirror(m2[r, s])
    return counts[:, :2].astype(np.int64), means, m2, peaks, ranges


@njit(cache=True, nogil=True, error_model="numpy")
def _project(f, m, mean, components, out):
    """Coefficients (f − mean)·Vᵀ of m filters (columns of f, overwritten) into the rows of out."""
    for j in range(WEIGHTS):
        for i in range(m):
            f[j, i] -= mean[j]
    for k in range(WEIGHTS):
        for i in range(m):
            out[k, i] = f[0, i] * components[k, 0]
        for j in range(1, WEIGHTS):
            for i in range(m):
                out[k, i] += f[j, i] * components[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def extremes(columns, starts, stops, mean, components, scaled):
    """Smallest and largest coefficient of each run and component: two (runs, 9) float64."""
    runs = starts.size
    smallest = np.full((runs, WEIGHTS), np.inf)
    largest = np.full((runs, WEIGHTS), -np.inf)
    f = np.empty((WEIGHTS, LANES))
    c = np.empty((WEIGHTS, LANES))
    peak = np.empty(LANES, np.float32)
    for r in range(runs):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            _peaks(columns, start, m, peak)
            _load(columns, start, m, peak, scaled, f)
            _project(f, m, mean, components, c)
            for k in range(WEIGHTS):
                low = smallest[r, k]
                high = largest[r, k]
                for i in range(m):
                    v = c[k, i]
                    low = v if v < low else low
                    high = v if v > high else high
                smallest[r, k] = low
                largest[r, k] = high
    return smallest, largest


@njit(cache=True, nogil=True, error_model="numpy")
def histograms(columns, starts, stops, mean, components, scaled, edges):
    """Counts of each run and component over uniform bins, and what lies outside.

    `edges` (bins + 1,) float64 is np.linspace; the right edge is closed, and the bin of a value is corrected against
    the edges as np.histogram does it. Returns counts (runs, 9, bins), underflow (runs, 9), overflow (runs, 9), int64.
    """
    runs = starts.size
    bins = edges.size - 1
    first = edges[0]
    last = edges[bins]
    width = last - first
    counts = np.zeros((runs, WEIGHTS, bins), np.int64)
    underflow = np.zeros((runs, WEIGHTS), np.int64)
    overflow = np.zeros((runs, WEIGHTS), np.int64)
    f = np.empty((WEIGHTS, LANES))
    c = np.empty((WEIGHTS, LANES))
    peak = np.empty(LANES, np.float32)
    for r in range(runs):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            _peaks(columns, start, m, peak)
            _load(columns, start, m, peak, scaled, f)
            _project(f, m, mean, components, c)
            for k in range(WEIGHTS):
                for i in range(m):
                    v = c[k, i]
                    if v < first:
                        underflow[r, k] += 1
                    elif v > last:
                        overflow[r, k] += 1
                    else:
                        b = min(np.int64((v - first) / width * bins), bins - 1)
                        if v < edges[b]:
                            b -= 1
                        elif v >= edges[b + 1] and b != bins - 1:
                            b += 1
                        counts[r, k, b] += 1
    return counts, underflow, overflow
