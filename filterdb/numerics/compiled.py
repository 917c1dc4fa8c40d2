"""The compiled loops over filters. All in one module: Numba's cache does not see a change in another.

A block comes with its columns first, (9, n) float32, as it lies in a chunk; `starts` and `stops` (runs,) int64 cut
it into runs, one per layer, whose states are changed in place. Every sum is float64. Sums may be reassociated (they
vectorise), always in the same way on one machine; the projection may not, so that extremes and histograms see the same
coefficients bit for bit. Division is never replaced by a reciprocal. Single precision serves only to find out that
double precision is not needed.

Inner loops run along one-dimensional views: with two indices Numba checks each for being negative, and LLVM gives up
vectorising. Minima and maxima are plain comparisons (there is no NaN among stored filters) for the same reason.
"""

from __future__ import annotations

import numpy as np

from filterdb.numerics.compilation import njit
from filterdb.schema import WEIGHTS

LANES = 256
"""Filters handled at a time: their 9 columns in float64 fill 18 KiB of the first-level cache."""

_INLINE = {"cache": True, "nogil": True, "error_model": "numpy", "forceinline": True}
"""Of the helpers. Not inlined, one would run as compiled by itself in the process that compiles, and as compiled with
its caller in those that take the caller from Numba's cache: the same source, other last digits."""

_SUMS = {"reassoc", "contract", "nsz"}
_ORDER = {"reassoc", "nsz", "nnan"}


@njit(**_INLINE, fastmath=_ORDER)
def _bounds(columns, start, m, low, high, peak):
    """Smallest and largest weight and largest |w| of each of m filters; gives the extremes of the last."""
    for j in range(0, WEIGHTS, 3):
        r0, r1, r2 = columns[j, start : start + m], columns[j + 1, start : start + m], columns[j + 2, start : start + m]
        for i in range(m):
            a, b = (r0[i], r0[i]) if j == 0 else (low[i], high[i])
            a = r0[i] if r0[i] < a else a
            b = r0[i] if r0[i] > b else b
            a = r1[i] if r1[i] < a else a
            b = r1[i] if r1[i] > b else b
            a = r2[i] if r2[i] < a else a
            b = r2[i] if r2[i] > b else b
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


@njit(**_INLINE, fastmath=_SUMS)
def _spans(low, high, m):
    """Σ(max w − min w) of m filters."""
    total = 0.0
    for i in range(m):
        total += np.float64(high[i]) - np.float64(low[i])
    return total


@njit(**_INLINE)
def _load(columns, start, m, out):
    """m filters as float64 columns."""
    for j in range(WEIGHTS):
        row = columns[j, start : start + m]
        to = out[j]
        for i in range(m):
            to[i] = row[i]


@njit(**_INLINE)
def _load_scaled(columns, start, m, peak, divisor, out):
    """m filters as float64 columns, divided by their peaks; an all-zero filter stays zero."""
    for i in range(m):
        divisor[i] = peak[i] if peak[i] > 0 else 1.0
    for j in range(WEIGHTS):
        row = columns[j, start : start + m]
        to = out[j]
        for i in range(m):
            to[i] = np.float64(row[i]) / divisor[i]


@njit(**_INLINE)
def _take_sparse(columns, start, m, peak, threshold, f, places, sparse, held):
    """Move the filters whose peak is below the threshold out of f (9, m) to the end of `sparse` (9, …), which has
    `held`; gives how many. The last filters of f fill the gaps.
    """
    found = 0
    for i in range(m):
        places[found] = i
        found += peak[i] < threshold
    for k in range(found - 1, -1, -1):  # from behind: what fills a gap is not sparse itself
        m -= 1
        for j in range(WEIGHTS):
            sparse[j, held] = columns[j, start + places[k]]
            f[j, places[k]] = f[j, m]
        held += 1
    return found


@njit(**_INLINE, fastmath=_SUMS)
def _accumulate(f, m, count, mean, m2):
    """Merge m filters (columns of f, overwritten) into the moments of `count`; gives m.

    mean (9,) and m2 (9, 9; upper triangle) are changed in place. Everything is taken from the mean so far (at first
    from the first filter) on, so that equal filters give exactly zero and no digits are lost where the mean is large
    against the spread; with d the mean of what is left, m2 grows by Σff − d·d·m²/(n + m), which is Chan's update
    (Chan, Golub, LeVeque 1979) of the block's own moments.
    """
    if m == 0:
        return 0
    n = np.float64(count)
    shift = np.empty(WEIGHTS)
    for j in range(WEIGHTS):
        row = f[j]
        origin = row[0] if count == 0 else mean[j]
        total = 0.0
        for i in range(m):
            row[i] -= origin
            total += row[i]
        mean[j] = origin + total / (n + m)
        shift[j] = total / m
    weight = m * (m / (n + m))
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
            m2[j, k] += s00 - weight * shift[j] * shift[k]
            m2[j, k + 1] += s01 - weight * shift[j] * shift[k + 1]
            m2[j, k + 2] += s02 - weight * shift[j] * shift[k + 2]
            m2[j + 1, k] += s10 - weight * shift[j + 1] * shift[k]
            m2[j + 1, k + 1] += s11 - weight * shift[j + 1] * shift[k + 1]
            m2[j + 1, k + 2] += s12 - weight * shift[j + 1] * shift[k + 2]
            m2[j + 2, k] += s20 - weight * shift[j + 2] * shift[k]
            m2[j + 2, k + 1] += s21 - weight * shift[j + 2] * shift[k + 1]
            m2[j + 2, k + 2] += s22 - weight * shift[j + 2] * shift[k + 2]
    return m


@njit(**_INLINE)
def _mirror(m2):
    for j in range(WEIGHTS):
        for k in range(j):
            m2[j, k] = m2[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def moments(columns, starts, stops, thresholds, counts, means, m2, peaks, spans):
    """Add each run to its state; `thresholds` (runs,) float64: a filter whose |w| are all below it is sparse.

    The state, changed in place: counts (runs, 2) int64, means (runs, 3, 9), m2 (runs, 3, 9, 9), peaks (runs,), spans
    (runs,). Their second axis is clean (raw filters that are not sparse), sparse (raw), scaled; spans is
    Σ(max w − min w) over filters.
    """
    f = np.empty((WEIGHTS, LANES))
    sparse = np.empty((WEIGHTS, 2 * LANES))
    places = np.empty(LANES, np.int32)
    divisor = np.empty(LANES)
    scratch = np.empty((3, LANES), np.float32)
    low, high, peak = scratch[0], scratch[1], scratch[2]
    for r in range(starts.size):
        held = 0
        before = counts[r, 0] + counts[r, 1]
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            smallest, largest = _bounds(columns, start, m, low, high, peak)
            peaks[r] = max(peaks[r], np.float64(largest))
            spans[r] += _spans(low, high, m)
            _load(columns, start, m, f)
            taken = 0
            if smallest < thresholds[r]:
                taken = _take_sparse(columns, start, m, peak, thresholds[r], f, places, sparse, held)
                held += taken
            counts[r, 0] += _accumulate(f, m - taken, counts[r, 0], means[r, 0], m2[r, 0])
            if held >= LANES:
                counts[r, 1] += _accumulate(sparse, held, counts[r, 1], means[r, 1], m2[r, 1])
                held = 0
            _load_scaled(columns, start, m, peak, divisor, f)
            before += _accumulate(f, m, before, means[r, 2], m2[r, 2])
        counts[r, 1] += _accumulate(sparse, held, counts[r, 1], means[r, 1], m2[r, 1])
        for s in range(3):
            _mirror(m2[r, s])


@njit(**_INLINE)
def _project(f, m, mean, v, out):
    """Coefficients (f − mean)·v of m filters (columns of f) on one component."""
    f0, f1, f2, f3, f4, f5, f6, f7, f8 = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8]
    c0, c1, c2, c3, c4, c5, c6, c7, c8 = mean
    v0, v1, v2, v3, v4, v5, v6, v7, v8 = v
    for i in range(m):
        # In this order, one rounding after the other: nothing here may be reassociated or contracted.
        first = (((f0[i] - c0) * v0 + (f1[i] - c1) * v1) + (f2[i] - c2) * v2) + (f3[i] - c3) * v3
        second = ((first + (f4[i] - c4) * v4) + (f5[i] - c5) * v5) + (f6[i] - c6) * v6
        out[i] = (second + (f7[i] - c7) * v7) + (f8[i] - c8) * v8


@njit(**_INLINE)
def _scale_roughly(columns, start, m, peak, out):
    """m filters divided by their peaks, in single precision."""
    for i in range(m):
        peak[i] = peak[i] if peak[i] > 0 else np.float32(1)
    for j in range(WEIGHTS):
        row = columns[j, start : start + m]
        to = out[j]
        for i in range(m):
            to[i] = row[i] / peak[i]


@njit(**_INLINE, fastmath=_SUMS)
def _project_roughly(f, m, v, offset, out):
    """f·Vᵀ + offset of m filters in single precision, eight at a time; at most `doubt` away from the coefficients."""
    for k in range(0, WEIGHTS, 3):
        to0, to1, to2 = out[k], out[k + 1], out[k + 2]
        for j in range(0, WEIGHTS, 3):
            f0, f1, f2 = f[j], f[j + 1], f[j + 2]
            v00, v01, v02 = v[k, j], v[k, j + 1], v[k, j + 2]
            v10, v11, v12 = v[k + 1, j], v[k + 1, j + 1], v[k + 1, j + 2]
            v20, v21, v22 = v[k + 2, j], v[k + 2, j + 1], v[k + 2, j + 2]
            if j == 0:
                for i in range(m):
                    to0[i] = offset[k] + f0[i] * v00 + f1[i] * v01 + f2[i] * v02
                    to1[i] = offset[k + 1] + f0[i] * v10 + f1[i] * v11 + f2[i] * v12
                    to2[i] = offset[k + 2] + f0[i] * v20 + f1[i] * v21 + f2[i] * v22
            else:
                for i in range(m):
                    to0[i] += f0[i] * v00 + f1[i] * v01 + f2[i] * v02
                    to1[i] += f0[i] * v10 + f1[i] * v11 + f2[i] * v12
                    to2[i] += f0[i] * v20 + f1[i] * v21 + f2[i] * v22


@njit(**_INLINE)
def _rough_axes(mean, components):
    """Components and −mean·Vᵀ in single precision, and how far a rough coefficient of a scaled filter may be off.

    With u = 2⁻²⁴ and |f| ≤ 1: the division and the component's own rounding 2u‖v‖₁, the nine products and sums
    10u‖v‖₁ in any order, the offset 2u‖v‖₁|mean| (Higham 2002, §3.1); twice as much is allowed.
    """
    offsets = np.empty(WEIGHTS, np.float32)
    reach = 0.0
    for k in range(WEIGHTS):
        total = 0.0
        size = 0.0
        for j in range(WEIGHTS):
            total -= mean[j] * components[k, j]
            size += (1 + abs(mean[j])) * abs(components[k, j])
        offsets[k] = total
        reach = max(reach, size)
    return components.astype(np.float32), offsets, 28 * reach * 2.0**-24


@njit(**_INLINE, fastmath=_ORDER)
def _range(row, m, low, high):
    for i in range(m):
        v = row[i]
        low = v if v < low else low
        high = v if v > high else high
    return low, high


@njit(cache=True, nogil=True, error_model="numpy")
def extremes(columns, starts, stops, mean, components, scaled, smallest, largest):
    """Widen smallest and largest (runs, 9) float64, in place, by the coefficients of each run.

    Scaled filters are projected in single precision first, and in double only where they could be a new extreme.
    """
    rough_components, offsets, doubt = _rough_axes(mean, components)
    f = np.empty((WEIGHTS, LANES))
    c = np.empty(LANES)
    rough = np.empty((WEIGHTS, LANES), np.float32)
    about = np.empty((WEIGHTS, LANES), np.float32)
    divisor = np.empty(LANES)
    scratch = np.empty((3, LANES), np.float32)
    low, high, peak = scratch[0], scratch[1], scratch[2]
    top = np.float32(np.finfo(np.float32).max)
    for r in range(starts.size):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            loaded = False
            if scaled:
                _bounds(columns, start, m, low, high, peak)
                _scale_roughly(columns, start, m, peak, rough)
                _project_roughly(rough, m, rough_components, offsets, about)
            for k in range(WEIGHTS):
                if scaled:
                    a, b = _range(about[k], m, top, -top)
                    if a - doubt > smallest[r, k] and b + doubt < largest[r, k]:
                        continue
                if not loaded:
                    loaded = True
                    if scaled:
                        _load_scaled(columns, start, m, peak, divisor, f)
                    else:
                        _load(columns, start, m, f)
                _project(f, m, mean, components[k], c)
                smallest[r, k], largest[r, k] = _range(c, m, smallest[r, k], largest[r, k])


@njit(**_INLINE)
def _bin(v, edges, slack):
    """Return the bin of a coefficient: −1 below the edges, the number of bins above them.

    As numpy.histogram, but a coefficient up to `slack` below an edge counts as on it: it goes to the bin above, at the
    ends to the outermost bin. See `histogram.EDGE_TOLERANCE`.
    """
    bins = edges.size - 1
    if not v >= edges[0] - slack:
        return -1
    if not v <= edges[bins] + slack:
        return bins
    b = min(np.int64((v - edges[0]) / (edges[bins] - edges[0]) * bins), bins - 1)
    if b > 0 and v < edges[b] - slack:
        return b - 1
    if b != bins - 1 and v >= edges[b + 1] - slack:
        return b + 1
    return b


@njit(**_INLINE)
def _places(about, m, scale, shift, near, bins, index):
    """Bins of m coefficients, −1 where in doubt; gives whether all are within the edges and none is in doubt.

    In doubt: below the edges, or within `near` bins of one, or no number. What is truncated towards zero from below
    the edges is never within half a bin.
    """
    half = type(near)(0.5)
    far = half - near
    for i in range(m):
        place = about[i] * scale + shift
        b = np.int32(place)
        index[i] = b if np.abs(place - type(near)(b) - half) < far else np.int32(-1)
    signs = np.int32(0)
    last = np.int32(bins - 1)
    for i in range(m):
        signs |= index[i] | (last - index[i])
    return signs >= 0


@njit(**_INLINE)
def _tally(index, m, p0, p1, p2, p3):
    """Count m bins in four counters: neighbours fall into the same bins, and one addition need not wait for another."""
    whole = m - m % 4
    for i in range(0, whole, 4):
        p0[np.uint32(index[i])] += 1
        p1[np.uint32(index[i + 1])] += 1
        p2[np.uint32(index[i + 2])] += 1
        p3[np.uint32(index[i + 3])] += 1
    for i in range(whole, m):
        p0[np.uint32(index[i])] += 1


@njit(**_INLINE)
def _one(columns, i, peak, mean, v):
    """The coefficient of one scaled filter, bit for bit that of `_project`."""
    p = np.float64(peak)
    first = (columns[0, i] / p - mean[0]) * v[0]
    for j in range(1, WEIGHTS):
        first += (columns[j, i] / p - mean[j]) * v[j]
    return first


@njit(cache=True, nogil=True, error_model="numpy")
def histograms(columns, starts, stops, mean, components, scaled, edges, slack, counts, underflow, overflow, on_edge):
    """Count the coefficients of each run over uniform bins, what lies outside, and what lies on an inner edge.

    `edges` (bins + 1,) float64 is np.linspace, the right one closed; `slack`: how near to an edge is on it (`_bin`).
    counts (runs, 9, bins), underflow, overflow and on_edge (runs, 9), int64, are added to in place.

    Scaled filters are projected in single precision first. Those so near to an edge that their bin is in doubt are
    projected again in double, as the others would be: the counts are those of double precision.
    """
    bins = edges.size - 1
    width = edges[bins] - edges[0]
    rough_components, offsets, doubt = _rough_axes(mean, components)
    scale = bins / width
    shift = -edges[0] * scale
    # In bins; the rounding of a place itself, up to `bins`, is added.
    near = (doubt / width + 4 * 2.0**-24 * (1 + abs(edges[0]) / width)) * bins
    roughly = scaled and near < 0.01
    near = near if roughly else 1e-6 * (1 + abs(edges[0]) / width)
    f = np.empty((WEIGHTS, LANES))
    c = np.empty(LANES)
    rough = np.empty((WEIGHTS, LANES), np.float32)
    about = np.empty((WEIGHTS, LANES), np.float32)
    index = np.empty(LANES, np.int32)
    divisor = np.empty(LANES)
    scratch = np.empty((3, LANES), np.float32)
    low, high, peak = scratch[0], scratch[1], scratch[2]
    part = np.zeros((4, WEIGHTS, bins), np.int32)
    for r in range(starts.size):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            if scaled:
                _bounds(columns, start, m, low, high, peak)
            if roughly:
                _scale_roughly(columns, start, m, peak, rough)
                _project_roughly(rough, m, rough_components, offsets, about)
            elif scaled:
                _load_scaled(columns, start, m, peak, divisor, f)
            else:
                _load(columns, start, m, f)
            for k in range(WEIGHTS):
                if roughly:
                    clear = _places(about[k], m, np.float32(scale), np.float32(shift), np.float32(near), bins, index)
                else:
                    _project(f, m, mean, components[k], c)
                    clear = _places(c, m, scale, shift, near, bins, index)
                if clear:
                    _tally(index, m, part[0, k], part[1, k], part[2, k], part[3, k])
                    continue
                for i in range(m):
                    if 0 <= index[i] < bins:
                        part[0, k, index[i]] += 1
                    else:
                        v = _one(columns, start + i, peak[i], mean, components[k]) if roughly else c[i]
                        b = _bin(v, edges, slack)
                        if b < 0:
                            underflow[r, k] += 1
                        elif b == bins:
                            overflow[r, k] += 1
                        else:
                            counts[r, k, b] += 1
                            on_edge[r, k] += b > 0 and v <= edges[b] + slack
        for k in range(WEIGHTS):
            for b in range(bins):
                counts[r, k, b] += part[0, k, b] + part[1, k, b] + part[2, k, b] + part[3, k, b]
        part[:] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def densities(columns, starts, stops, groups, mean, components, scaled, edges, slack, pairs, counts, outside):
    """Count pairs of coefficients of each run over a square of uniform bins, by group.

    `groups` (runs,) int64: where a run is counted, −1 for nowhere; pairs (p, 2) int64: first and second component.
    counts (p, groups, bins, bins) and outside (p, groups), int64, are added to in place; outside: filters of which
    either coefficient lies outside the edges. Coefficients and bins are those of `histograms`, bit for bit.
    """
    bins = edges.size - 1
    width = edges[bins] - edges[0]
    scale = bins / width
    shift = -edges[0] * scale
    near = 1e-6 * (1 + abs(edges[0]) / width)
    f = np.empty((WEIGHTS, LANES))
    c = np.empty(LANES)
    index = np.empty((WEIGHTS, LANES), np.int32)
    divisor = np.empty(LANES)
    scratch = np.empty((3, LANES), np.float32)
    low, high, peak = scratch[0], scratch[1], scratch[2]
    wanted = np.zeros(WEIGHTS, np.bool_)
    for component in pairs.flat:
        wanted[component] = True
    for r in range(starts.size):
        g = groups[r]
        if g < 0:
            continue
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            if scaled:
                _bounds(columns, start, m, low, high, peak)
                _load_scaled(columns, start, m, peak, divisor, f)
            else:
                _load(columns, start, m, f)
            for k in range(WEIGHTS):
                if wanted[k]:
                    _project(f, m, mean, components[k], c)
                    if not _places(c, m, scale, shift, near, bins, index[k]):
                        for i in range(m):
                            if not 0 <= index[k, i] < bins:
                                index[k, i] = _bin(c[i], edges, slack)
            for p in range(pairs.shape[0]):
                first, second = index[pairs[p, 0]], index[pairs[p, 1]]
                square = counts[p, g]
                for i in range(m):
                    a, b = first[i], second[i]
                    if 0 <= a < bins and 0 <= b < bins:
                        square[a, b] += 1
                    else:
                        outside[p, g] += 1
