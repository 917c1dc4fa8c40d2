"""Compiled loops over filters. Keep helpers here: Numba's cache does not notice a change in another module.

A block has its columns first, (9, n) float32, as chunks store them. `starts` and `stops` (runs,) int64 cut it into
runs, one for each layer; the states of the runs are updated in place. Every sum is float64. Sums may be reassociated,
so that they vectorise; on one machine that always happens in the same way. The projection may not be reassociated:
extremes and histograms must see the same coefficients, bit for bit. Division is never replaced by multiplication with
a reciprocal. Single precision is only used to show that double precision is not needed.

Inner loops run along one-dimensional views: with two indices Numba checks each of them for negative values, and LLVM
does not vectorise the loop. Minima and maxima are plain comparisons for the same reason; stored filters have no NaN.
"""

from __future__ import annotations

import numpy as np

from filterdb.numerics.compilation import njit
from filterdb.schema import WEIGHTS

LANES = 256
"""Filters processed at a time: their 9 columns in float64 fill 18 KiB of the first-level cache."""

_INLINE = {"cache": True, "nogil": True, "error_model": "numpy", "forceinline": True}
"""Numba options of the helpers. A helper that is not inlined is compiled by itself in the process that compiles it, and
together with its caller in processes that load the caller from Numba's cache; the last digits could then differ."""

_SUMS = {"reassoc", "contract", "nsz"}  # fast-math flags of helpers that add
_ORDER = {"reassoc", "nsz", "nnan"}  # … that only compare


@njit(**_INLINE)
def _buffers():
    """Return buffers for LANES filters: weights, coefficients, divisors, and the three results of `_bounds`."""
    floats = np.empty((3, LANES), np.float32)
    return np.empty((WEIGHTS, LANES)), np.empty(LANES), np.empty(LANES), floats[0], floats[1], floats[2]


@njit(**_INLINE, fastmath=_ORDER)
def _bounds(columns, start, m, low, high, peak):
    """Store the smallest and largest weight and the largest |w| of each of m filters; return the extremes of |w|."""
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
    """Return Σ(max w − min w) over m filters."""
    total = 0.0
    for i in range(m):
        total += np.float64(high[i]) - np.float64(low[i])
    return total


@njit(**_INLINE)
def _load(columns, start, m, out):
    """Copy m filters to `out` (9, …) as float64."""
    for j in range(WEIGHTS):
        row = columns[j, start : start + m]
        target = out[j]
        for i in range(m):
            target[i] = row[i]


@njit(**_INLINE)
def _load_scaled(columns, start, m, peak, divisor, out):
    """Copy m filters, divided by their peaks, to `out` (9, …) as float64; an all-zero filter stays zero."""
    for i in range(m):
        divisor[i] = peak[i] if peak[i] > 0 else 1.0
    for j in range(WEIGHTS):
        row = columns[j, start : start + m]
        target = out[j]
        for i in range(m):
            target[i] = np.float64(row[i]) / divisor[i]


@njit(**_INLINE)
def _take_sparse(columns, start, m, peak, threshold, f, positions, sparse, held):
    """Move the filters whose peak is below the threshold from f (9, m) to `sparse` (9, …) and return their number.

    `sparse` already has `held` filters. The last filters of f fill the gaps; `positions` is scratch space.
    """
    taken = 0
    for i in range(m):
        positions[taken] = i
        taken += peak[i] < threshold
    for k in range(taken - 1, -1, -1):  # last to first, so that the filter that fills a gap is not sparse itself
        m -= 1
        for j in range(WEIGHTS):
            sparse[j, held] = columns[j, start + positions[k]]
            f[j, positions[k]] = f[j, m]
        held += 1
    return taken


@njit(**_INLINE, fastmath=_SUMS)
def _accumulate(f, m, count, mean, m2):
    """Merge m filters (columns of f, overwritten) into the moments of `count` filters and return m.

    mean (9,) and m2 (9, 9; upper triangle) are updated in place. The mean so far, or at first the first filter, is
    subtracted from every filter: equal filters then have exactly zero spread, and no digits are lost where the mean is
    large compared with the spread. With d the mean of the differences f, m2 grows by Σff − d·d·m²/(n + m), which is
    Chan's update (Chan, Golub, LeVeque 1979) with the moments of the block.
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
    """Copy the upper triangle of m2 to the lower one."""
    for j in range(WEIGHTS):
        for k in range(j):
            m2[j, k] = m2[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def moments(columns, starts, stops, thresholds, counts, means, m2, peaks, spans):
    """Add each run to its moments. A filter whose |w| are all below the run's threshold is sparse.

    `thresholds` (runs,) float64. Updated in place: counts (runs, 2) int64, means (runs, 3, 9), m2 (runs, 3, 9, 9),
    peaks (runs,) and spans (runs,), the sum of max w − min w over filters. The second axis is clean (raw filters that
    are not sparse), sparse (raw), scaled.
    """
    f, _, divisor, low, high, peak = _buffers()
    sparse = np.empty((WEIGHTS, 2 * LANES))
    positions = np.empty(LANES, np.int32)
    for r in range(starts.size):
        held = 0
        total = counts[r, 0] + counts[r, 1]
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            smallest, largest = _bounds(columns, start, m, low, high, peak)
            peaks[r] = max(peaks[r], np.float64(largest))
            spans[r] += _spans(low, high, m)
            _load(columns, start, m, f)
            taken = 0
            if smallest < thresholds[r]:
                taken = _take_sparse(columns, start, m, peak, thresholds[r], f, positions, sparse, held)
                held += taken
            counts[r, 0] += _accumulate(f, m - taken, counts[r, 0], means[r, 0], m2[r, 0])
            if held >= LANES:
                counts[r, 1] += _accumulate(sparse, held, counts[r, 1], means[r, 1], m2[r, 1])
                held = 0
            _load_scaled(columns, start, m, peak, divisor, f)
            total += _accumulate(f, m, total, means[r, 2], m2[r, 2])
        counts[r, 1] += _accumulate(sparse, held, counts[r, 1], means[r, 1], m2[r, 1])
        for s in range(3):
            _mirror(m2[r, s])


@njit(**_INLINE)
def _project(f, m, mean, v, out):
    """Store the coefficients (f − mean)·v of m filters (columns of f) on one component v."""
    f0, f1, f2, f3, f4, f5, f6, f7, f8 = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8]
    c0, c1, c2, c3, c4, c5, c6, c7, c8 = mean
    v0, v1, v2, v3, v4, v5, v6, v7, v8 = v
    for i in range(m):
        # Keep this order of roundings: do not allow reassociation or contraction here.
        first = (((f0[i] - c0) * v0 + (f1[i] - c1) * v1) + (f2[i] - c2) * v2) + (f3[i] - c3) * v3
        second = ((first + (f4[i] - c4) * v4) + (f5[i] - c5) * v5) + (f6[i] - c6) * v6
        out[i] = (second + (f7[i] - c7) * v7) + (f8[i] - c8) * v8


@njit(**_INLINE)
def _scale_roughly(columns, start, m, peak, out):
    """Copy m filters, divided by their peaks, to `out` (9, …) in single precision."""
    for i in range(m):
        peak[i] = peak[i] if peak[i] > 0 else np.float32(1)
    for j in range(WEIGHTS):
        row = columns[j, start : start + m]
        target = out[j]
        for i in range(m):
            target[i] = row[i] / peak[i]


@njit(**_INLINE, fastmath=_SUMS)
def _project_roughly(f, m, v, offset, out):
    """Store f·Vᵀ + offset of m filters in single precision, at most `doubt` (`_rough_axes`) off the coefficients."""
    for k in range(0, WEIGHTS, 3):
        out0, out1, out2 = out[k], out[k + 1], out[k + 2]
        for j in range(0, WEIGHTS, 3):
            f0, f1, f2 = f[j], f[j + 1], f[j + 2]
            v00, v01, v02 = v[k, j], v[k, j + 1], v[k, j + 2]
            v10, v11, v12 = v[k + 1, j], v[k + 1, j + 1], v[k + 1, j + 2]
            v20, v21, v22 = v[k + 2, j], v[k + 2, j + 1], v[k + 2, j + 2]
            if j == 0:
                for i in range(m):
                    out0[i] = offset[k] + f0[i] * v00 + f1[i] * v01 + f2[i] * v02
                    out1[i] = offset[k + 1] + f0[i] * v10 + f1[i] * v11 + f2[i] * v12
                    out2[i] = offset[k + 2] + f0[i] * v20 + f1[i] * v21 + f2[i] * v22
            else:
                for i in range(m):
                    out0[i] += f0[i] * v00 + f1[i] * v01 + f2[i] * v02
                    out1[i] += f0[i] * v10 + f1[i] * v11 + f2[i] * v12
                    out2[i] += f0[i] * v20 + f1[i] * v21 + f2[i] * v22


@njit(**_INLINE)
def _rough_axes(mean, components):
    """Return the components and −mean·Vᵀ in single precision, and the largest error of a scaled filter's coefficient.

    With u = 2⁻²⁴ and |f| ≤ 1, the division and the rounding of the component contribute 2u‖v‖₁, the nine products and
    sums 10u‖v‖₁ in any order, the offset 2u‖v‖₁|mean| (Higham 2002, §3.1). The returned bound is twice the total.
    """
    offsets = np.empty(WEIGHTS, np.float32)
    reach = 0.0
    for k in range(WEIGHTS):
        total = size = 0.0
        for j in range(WEIGHTS):
            total -= mean[j] * components[k, j]
            size += (1 + abs(mean[j])) * abs(components[k, j])
        offsets[k] = total
        reach = max(reach, size)
    return components.astype(np.float32), offsets, 28 * reach * 2.0**-24


@njit(**_INLINE, fastmath=_ORDER)
def _range(row, m, low, high):
    """Return the smallest and largest of low, high and m numbers."""
    for i in range(m):
        v = row[i]
        low = v if v < low else low
        high = v if v > high else high
    return low, high


@njit(cache=True, nogil=True, error_model="numpy")
def extremes(columns, starts, stops, mean, components, scaled, smallest, largest):
    """Update the extremes of each run's coefficients, `smallest` and `largest` (runs, 9) float64, in place.

    Scaled filters are projected in single precision first, in double only if one of them could be a new extreme.
    """
    rough_components, offsets, doubt = _rough_axes(mean, components)
    f, c, divisor, low, high, peak = _buffers()
    rough, about = np.empty_like(f, np.float32), np.empty_like(f, np.float32)
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

    Bins are those of numpy.histogram, but a coefficient up to `slack` below an edge counts as on the edge: it goes to
    the bin above, or at the end of the range to the outermost bin. See `histogram.EDGE_TOLERANCE`.
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
def _clear_bins(values, m, scale, shift, margin, bins, index):
    """Store the bins of m coefficients, −1 where unclear; return whether all are clear and within the edges.

    A bin is unclear for a coefficient below the edges, within `margin` bins of an edge, or not a number. Truncation
    towards zero cannot make a coefficient below the edges look clear: it is never within half a bin of bin 0's centre.
    """
    half = type(margin)(0.5)
    reach = half - margin
    for i in range(m):
        position = values[i] * scale + shift
        b = np.int32(position)
        index[i] = b if np.abs(position - type(margin)(b) - half) < reach else np.int32(-1)
    signs = np.int32(0)
    last = np.int32(bins - 1)
    for i in range(m):
        signs |= index[i] | (last - index[i])
    return signs >= 0


@njit(**_INLINE)
def _tally(index, m, t0, t1, t2, t3):
    """Count m bins in four tallies in turn: neighbours share bins, and additions to one counter wait for each other."""
    whole = m - m % 4
    for i in range(0, whole, 4):
        t0[np.uint32(index[i])] += 1
        t1[np.uint32(index[i + 1])] += 1
        t2[np.uint32(index[i + 2])] += 1
        t3[np.uint32(index[i + 3])] += 1
    for i in range(whole, m):
        t0[np.uint32(index[i])] += 1


@njit(**_INLINE)
def _coefficient(columns, i, peak, mean, v):
    """Return the coefficient of one scaled filter, bit for bit that of `_project`."""
    p = np.float64(peak)
    total = (columns[0, i] / p - mean[0]) * v[0]
    for j in range(1, WEIGHTS):
        total += (columns[j, i] / p - mean[j]) * v[j]
    return total


@njit(**_INLINE)
def _bin_line(edges):
    """Return scale, shift and margin: v·scale + shift is a coefficient's position in bins, good to the margin."""
    bins = edges.size - 1
    width = edges[bins] - edges[0]
    scale = bins / width
    return scale, -edges[0] * scale, 1e-6 * (1 + abs(edges[0]) / width)


@njit(**_INLINE)
def _count_value(v, edges, slack, counts, underflow, overflow, on_edge, k):
    """Count one coefficient on component k by comparing it with the edges; arrays are those of one run."""
    b = _bin(v, edges, slack)
    if b < 0:
        underflow[k] += 1
    elif b == edges.size - 1:
        overflow[k] += 1
    else:
        counts[k, b] += 1
        on_edge[k] += b > 0 and v <= edges[b] + slack


@njit(**_INLINE)
def _move_tallies(tallies, counts):
    """Add the four tallies (4, 9, bins) of a run to its counts (9, bins) and reset them."""
    for k in range(WEIGHTS):
        for b in range(counts.shape[1]):
            counts[k, b] += tallies[0, k, b] + tallies[1, k, b] + tallies[2, k, b] + tallies[3, k, b]
    tallies[:] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def histograms(columns, starts, stops, mean, components, scaled, edges, slack, counts, underflow, overflow, on_edge):
    """Count the coefficients of each run in uniform bins, outside of the range, and on an inner edge.

    `edges` (bins + 1,) float64 come from np.linspace; the last bin includes its right edge. `slack`: see `_bin`. Counts
    are added in place to counts (runs, 9, bins), underflow, overflow and on_edge (runs, 9), int64. Scaled filters are
    projected in single precision first. Filters so near to an edge that their bin is unclear are projected again in
    double precision, so that the counts are always those of double precision.
    """
    bins = edges.size - 1
    rough_components, offsets, doubt = _rough_axes(mean, components)
    scale, shift, margin = _bin_line(edges)
    # The rounding of positions themselves, which are up to `bins`, comes on top of the doubt.
    width = edges[bins] - edges[0]
    rough_margin = (doubt / width + 4 * 2.0**-24 * (1 + abs(edges[0]) / width)) * bins
    roughly = scaled and rough_margin < 0.01
    rough_line = np.float32(scale), np.float32(shift), np.float32(rough_margin)
    f, c, divisor, low, high, peak = _buffers()
    rough, about, index = np.empty_like(f, np.float32), np.empty_like(f, np.float32), np.empty(LANES, np.int32)
    tallies = np.zeros((4, WEIGHTS, bins), np.int32)
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
                    clear = _clear_bins(about[k], m, rough_line[0], rough_line[1], rough_line[2], bins, index)
                else:
                    _project(f, m, mean, components[k], c)
                    clear = _clear_bins(c, m, scale, shift, margin, bins, index)
                if clear:
                    _tally(index, m, tallies[0, k], tallies[1, k], tallies[2, k], tallies[3, k])
                    continue
                for i in range(m):
                    if 0 <= index[i] < bins:
                        tallies[0, k, index[i]] += 1
                    else:
                        v = _coefficient(columns, start + i, peak[i], mean, components[k]) if roughly else c[i]
                        _count_value(v, edges, slack, counts[r], underflow[r], overflow[r], on_edge[r], k)
        _move_tallies(tallies, counts[r])


@njit(cache=True, nogil=True, error_model="numpy")
def densities(columns, starts, stops, groups, mean, components, scaled, edges, slack, pairs, counts, outside):
    """Count pairs of coefficients of each run in a square of uniform bins, by group.

    `groups` (runs,) int64: each run's group, −1 for none. `pairs` (p, 2) int64: two components. Added to in place are
    counts (p, groups, bins, bins) and outside (p, groups), int64: filters with either coefficient outside the edges.
    Coefficients and bins are those of `histograms`, bit for bit.
    """
    bins = edges.size - 1
    scale, shift, margin = _bin_line(edges)
    f, c, divisor, low, high, peak = _buffers()
    index = np.empty((WEIGHTS, LANES), np.int32)
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
                    if not _clear_bins(c, m, scale, shift, margin, bins, index[k]):
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
