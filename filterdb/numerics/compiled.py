"""The compiled loops over filters. All in one module: Numba's cache does not see a change in another.

A block comes with its columns first, (9, n) float32, as it lies in a chunk; `starts` and `stops` (runs,) int64 cut
it into runs, one per layer. Every sum is float64. Sums may be reassociated (they vectorise), always in the same
way on one machine; the projection may not, so that extremes and histograms see the same coefficients bit for bit.
Division is never replaced by a reciprocal.

Inner loops run along one-dimensional views: with two indices Numba checks each for being negative, and LLVM gives up
vectorising. Minima and maxima are plain comparisons (there is no NaN among stored filters) for the same reason.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from filterdb.schema import WEIGHTS

LANES = 256
"""Filters handled at a time: their 9 columns in float64 fill 18 KiB of the first-level cache."""

NEAR = 1e-6
"""How near to an edge, in bins, a coefficient's bin is looked up in the edges: far above rounding (1e-13)."""

_SUMS = {"reassoc", "contract", "nsz"}
_ORDER = {"reassoc", "nsz", "nnan"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_ORDER)
def _bounds(columns, start, m, low, high, peak):
    """Smallest and largest weight and largest |w| of each of m filters; gives the extremes of the last."""
    for i in range(m):
        a = columns[0, start + i]
        b = a
        for j in range(1, WEIGHTS):
            w = columns[j, start + i]
            a = w if w < a else a
            b = w if w > b else b
        low[i] = a
        high[i] = b
    smallest = np.float32(np.finfo(np.float32).max)
    largest = np.float32(0)
    for i in range(m):
        p = high[i] if high[i] > -low[i] else -low[i]
        peak[i] = p
        smallest = p if p < smallest else smallest
        largest = p if p > largest else largest
    return smallest, largest


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _spans(low, high, m):
    """Σ(max w − min w) of m filters."""
    total = 0.0
    for i in range(m):
        total += np.float64(high[i]) - np.float64(low[i])
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _load(columns, start, m, out):
    """m filters as float64 columns."""
    for j in range(WEIGHTS):
        row = columns[j, start : start + m]
        to = out[j]
        for i in range(m):
            to[i] = row[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _load_scaled(columns, start, m, peak, divisor, out):
    """m filters as float64 columns, divided by their peaks; an all-zero filter stays zero."""
    for i in range(m):
        divisor[i] = peak[i] if peak[i] > 0 else 1.0
    for j in range(WEIGHTS):
        row = columns[j, start : start + m]
        to = out[j]
        for i in range(m):
            to[i] = np.float64(row[i]) / divisor[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _split(columns, start, m, peak, threshold, clean, sparse):
    """m filters as float64 columns, those whose peak is below the threshold apart; gives the numbers of both."""
    cleans = 0
    sparses = 0
    for i in range(m):
        if peak[i] < threshold:
            for j in range(WEIGHTS):
                sparse[j, sparses] = columns[j, start + i]
            sparses += 1
        else:
            for j in range(WEIGHTS):
                clean[j, cleans] = columns[j, start + i]
            cleans += 1
    return cleans, sparses


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

    Returns counts (runs, 2) int64, means (runs, 3, 9), m2 (runs, 3, 9, 9), peaks (runs,), spans (runs,): the second
    axis is clean (raw filters that are not sparse), sparse (raw), scaled; spans is Σ(max w − min w) over filters.
    """
    runs = starts.size
    counts = np.zeros((runs, 3))
    means = np.zeros((runs, 3, WEIGHTS))
    m2 = np.zeros((runs, 3, WEIGHTS, WEIGHTS))
    peaks = np.zeros(runs)
    spans = np.zeros(runs)
    f = np.empty((WEIGHTS, LANES))
    g = np.empty((WEIGHTS, LANES))
    divisor = np.empty(LANES)
    low = np.empty(LANES, np.float32)
    high = np.empty(LANES, np.float32)
    peak = np.empty(LANES, np.float32)
    for r in range(runs):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            smallest, largest = _bounds(columns, start, m, low, high, peak)
            peaks[r] = max(peaks[r], np.float64(largest))
            spans[r] += _spans(low, high, m)
            if smallest >= thresholds[r]:
                _load(columns, start, m, f)
                _accumulate(f, m, counts[r, 0:1], means[r, 0], m2[r, 0])
            else:
                clean, sparse = _split(columns, start, m, peak, thresholds[r], f, g)
                _accumulate(f, clean, counts[r, 0:1], means[r, 0], m2[r, 0])
                _accumulate(g, sparse, counts[r, 1:2], means[r, 1], m2[r, 1])
            _load_scaled(columns, start, m, peak, divisor, f)
            _accumulate(f, m, counts[r, 2:3], means[r, 2], m2[r, 2])
        for s in range(3):
            _mirror(m2[r, s])
    return counts[:, :2].astype(np.int64), means, m2, peaks, spans


@njit(cache=True, nogil=True, error_model="numpy")
def _project(f, m, mean, components, out):
    """Coefficients (f − mean)·Vᵀ of m filters (columns of f, overwritten) into the rows of out."""
    for j in range(WEIGHTS):
        row = f[j]
        centre = mean[j]
        for i in range(m):
            row[i] -= centre
    f0, f1, f2, f3, f4, f5, f6, f7, f8 = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8]
    for k in range(WEIGHTS):
        v = components[k]
        v0, v1, v2, v3, v4, v5, v6, v7, v8 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]
        to = out[k]
        for i in range(m):
            # In this order, one rounding after the other: nothing here may be reassociated or contracted.
            first = ((f0[i] * v0 + f1[i] * v1) + f2[i] * v2) + f3[i] * v3
            to[i] = ((((first + f4[i] * v4) + f5[i] * v5) + f6[i] * v6) + f7[i] * v7) + f8[i] * v8


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_ORDER)
def _range(row, m, low, high):
    for i in range(m):
        v = row[i]
        low = v if v < low else low
        high = v if v > high else high
    return low, high


@njit(cache=True, nogil=True, error_model="numpy")
def extremes(columns, starts, stops, mean, components, scaled):
    """Smallest and largest coefficient of each run and component: two (runs, 9) float64."""
    runs = starts.size
    smallest = np.full((runs, WEIGHTS), np.finfo(np.float64).max)
    largest = np.full((runs, WEIGHTS), -np.finfo(np.float64).max)
    f = np.empty((WEIGHTS, LANES))
    c = np.empty((WEIGHTS, LANES))
    divisor = np.empty(LANES)
    low = np.empty(LANES, np.float32)
    high = np.empty(LANES, np.float32)
    peak = np.empty(LANES, np.float32)
    for r in range(runs):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            if scaled:
                _bounds(columns, start, m, low, high, peak)
                _load_scaled(columns, start, m, peak, divisor, f)
            else:
                _load(columns, start, m, f)
            _project(f, m, mean, components, c)
            for k in range(WEIGHTS):
                smallest[r, k], largest[r, k] = _range(c[k], m, smallest[r, k], largest[r, k])
    return smallest, largest


@njit(cache=True, nogil=True, error_model="numpy")
def _count(row, m, edges, place, counts):
    """Count m coefficients, at least one of them outside the edges or near one, as numpy.histogram does."""
    bins = edges.size - 1
    under = 0
    over = 0
    for i in range(m):
        v = row[i]
        if v < edges[0]:
            under += 1
        elif v > edges[bins]:
            over += 1
        else:
            b = min(np.int64(place[i]), bins - 1)
            if v < edges[b]:
                b -= 1
            elif v >= edges[b + 1] and b != bins - 1:
                b += 1
            counts[b] += 1
    return under, over


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_ORDER)
def _is_clear(place, m, bins):
    """Whether all m places, in bins, are inside and off the edges by more than NEAR."""
    worst = 1.0
    for i in range(m):
        p = place[i]
        inside = p if p < bins - p else bins - p
        away = p - np.floor(p)
        away = away if away < 1 - away else 1 - away
        worst = away if away < worst else worst
        worst = inside if inside < worst else worst
    return worst > NEAR


@njit(cache=True, nogil=True, error_model="numpy")
def histograms(columns, starts, stops, mean, components, scaled, edges):
    """Counts of each run and component over uniform bins, and what lies outside.

    `edges` (bins + 1,) float64 is np.linspace; the right edge is closed, and the bin of a value is corrected against
    the edges as np.histogram does it. Returns counts (runs, 9, bins), underflow (runs, 9), overflow (runs, 9), int64.
    """
    runs = starts.size
    bins = edges.size - 1
    first = edges[0]
    width = edges[bins] - first
    counts = np.zeros((runs, WEIGHTS, bins), np.int64)
    underflow = np.zeros((runs, WEIGHTS), np.int64)
    overflow = np.zeros((runs, WEIGHTS), np.int64)
    f = np.empty((WEIGHTS, LANES))
    c = np.empty((WEIGHTS, LANES))
    divisor = np.empty(LANES)
    place = np.empty(LANES)
    index = np.empty(LANES, np.int32)
    low = np.empty(LANES, np.float32)
    high = np.empty(LANES, np.float32)
    peak = np.empty(LANES, np.float32)
    # Neighbouring filters fall into the same bins: four counters, so that one addition need not wait for the other.
    part = np.zeros((4, WEIGHTS, bins), np.int64)
    for r in range(runs):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            if scaled:
                _bounds(columns, start, m, low, high, peak)
                _load_scaled(columns, start, m, peak, divisor, f)
            else:
                _load(columns, start, m, f)
            _project(f, m, mean, components, c)
            for k in range(WEIGHTS):
                row = c[k]
                for i in range(m):
                    place[i] = (row[i] - first) / width * bins
                if _is_clear(place, m, bins):
                    for i in range(m):
                        index[i] = np.int32(place[i])
                    p0, p1, p2, p3 = part[0, k], part[1, k], part[2, k], part[3, k]
                    whole = m - m % 4
                    for i in range(0, whole, 4):
                        p0[np.uint32(index[i])] += 1
                        p1[np.uint32(index[i + 1])] += 1
                        p2[np.uint32(index[i + 2])] += 1
                        p3[np.uint32(index[i + 3])] += 1
                    for i in range(whole, m):
                        p0[np.uint32(index[i])] += 1
                else:
                    under, over = _count(row, m, edges, place, part[0, k])
                    underflow[r, k] += under
                    overflow[r, k] += over
        for k in range(WEIGHTS):
            for b in range(bins):
                for p in range(4):
                    counts[r, k, b] += part[p, k, b]
                    part[p, k, b] = 0
    return counts, underflow, overflow
