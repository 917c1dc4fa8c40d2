"""Compiled loops over filters. Keep helpers here, in `blocks.py` or `binning.py`, see BLOCKS.

A block has its columns first, (weights, n) float32, as chunks store them. `starts` and `stops` (runs,) int64 cut it in
runs, one for each layer; the states of the runs are updated in place. Every sum is float64. Sums may be reassociated,
so that they vectorise; on one machine that always happens in the same way. The projection may not be reassociated:
extremes and histograms must see the same coefficients, bit for bit. Scaled weights are those of division, bit for bit
(`blocks.quotient`). Single precision is only used to show that double precision is not needed.

Inner loops run along one-dimensional views: with two indices Numba checks each of them for negative values, and LLVM
does not vectorise the loop. Minima and maxima are plain comparisons for the same reason; stored filters have no NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from filterdb.numerics.binning import bin_line, bin_of, clear_bins, count_value, move_tallies, rough_bin_line, tally
from filterdb.numerics.blocks import (
    INLINE,
    ORDER,
    SUMS,
    add_products,
    bounds,
    buffers,
    by_threes,
    find_peaks,
    invert,
    lanes,
    load,
    load_scaled,
    mirror,
    shift_loaded,
    shift_raw,
    shift_scaled,
    spans,
    take_sparse,
)
from filterdb.numerics.compilation import njit, read_only
from filterdb.schema import WEIGHTS

BLOCKS = "4a9e7d9fb20b42af846de559c3e390d20cbd3cae094db91b0909cf0c53e44071"
"""SHA-256 of `blocks.py`, checked by a test. Numba's cache notices a change of this file only."""

BINNING = "96e81cc3921be876cf2806655ebe5628ae82ae0a3bef38b4b440e3981d00f3c1"
"""The same of `binning.py`."""

NINE = (0,) * WEIGHTS
"""The kernel of the loops that are compiled for filters of nine weights (see `blocks`)."""

State = tuple[np.ndarray | float, ...]


@njit(**INLINE)
def _load(columns, kernel, start, m, scaled, peak, work):
    """Copy m filters, scaled or raw, to the weights of `work`."""
    if scaled:
        load_scaled(columns, kernel, start, m, peak, work[1], work[2], work[0])
    else:
        load(columns, kernel, start, m, work[0])


@njit(**INLINE)
def _add_loaded(f, kernel, m, r, s, state, shift, lost):
    """Add m raw filters (columns of f, overwritten) to the moments of run r, clean (s = 0) or sparse (s = 1)."""
    _, counts, means, m2, _, _ = state
    if m > 0:
        shift_loaded(f, kernel, m, counts[r, s], means[r, s], shift)
        add_products(f, kernel, m, counts[r, s], shift, lost, m2[r, s])
        counts[r, s] += m


@njit(**INLINE)
def _add_moments(columns, kernel, start, m, r, begun, held, state, scratch, work, low, high, peak):
    """Add m filters of run r to its moments; return how many sparse filters now wait in the scratch space.

    `begun` is the number of filters in the scaled state so far, `held` that of sparse filters that wait.
    """
    thresholds, counts, means, m2, peaks, widths = state
    sparse, positions, shift, lost = scratch
    f, inverse, rest = work
    smallest, largest = bounds(columns, kernel, start, m, low, high, peak)
    peaks[r] = max(peaks[r], np.float64(largest))
    widths[r] += spans(low, high, m)
    if smallest < thresholds[r]:
        load(columns, kernel, start, m, f)
        taken = take_sparse(columns, kernel, start, m, peak, thresholds[r], f, positions, sparse, held)
        held += taken
        _add_loaded(f, kernel, m - taken, r, 0, state, shift, lost)
        if held >= lanes(kernel):
            _add_loaded(sparse, kernel, held, r, 1, state, shift, lost)
            held = 0
    else:
        shift_raw(columns, kernel, start, m, f, counts[r, 0], means[r, 0], shift)
        add_products(f, kernel, m, counts[r, 0], shift, lost, m2[r, 0])
        counts[r, 0] += m
    invert(peak, m, inverse, rest)
    shift_scaled(columns, kernel, start, m, inverse, rest, f, begun, means[r, 2], shift)
    add_products(f, kernel, m, begun, shift, lost, m2[r, 2])
    return held


@njit(**INLINE)
def _finish_moments(kernel, r, held, state, scratch):
    """Add the sparse filters that wait, and fill the lower triangles of run r."""
    sparse, _, shift, lost = scratch
    _add_loaded(sparse, kernel, held, r, 1, state, shift, lost)
    for s in range(3):
        mirror(state[3][r, s], kernel)


@njit(**INLINE)
def _project(f, kernel, m, mean, v, out):
    """Store the coefficients (f − mean)·v of m filters (columns of f) on one component v."""
    weights = len(kernel)
    # Keep this order of roundings, that of the weights: do not allow reassociation or contraction here.
    if weights == 9:
        _project_nine(f, m, mean, v, out)
        return
    row, c, d = f[0], mean[0], v[0]
    for i in range(m):
        out[i] = (row[i] - c) * d
    paired = 1 + (weights - 1) // 2 * 2
    for j in range(1, paired, 2):
        f0, f1, c0, c1, v0, v1 = f[j], f[j + 1], mean[j], mean[j + 1], v[j], v[j + 1]
        for i in range(m):
            out[i] = (out[i] + (f0[i] - c0) * v0) + (f1[i] - c1) * v1
    for j in range(paired, weights):
        row, c, d = f[j], mean[j], v[j]
        for i in range(m):
            out[i] += (row[i] - c) * d


@njit(**INLINE)
def _project_nine(f, m, mean, v, out):
    """Store what `_project` does, for filters of nine weights, without intermediate results in memory."""
    f0, f1, f2, f3, f4, f5, f6, f7, f8 = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8]
    c0, c1, c2, c3, c4, c5, c6, c7, c8 = mean[0], mean[1], mean[2], mean[3], mean[4], mean[5], mean[6], mean[7], mean[8]
    v0, v1, v2, v3, v4, v5, v6, v7, v8 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]
    for i in range(m):
        first = (((f0[i] - c0) * v0 + (f1[i] - c1) * v1) + (f2[i] - c2) * v2) + (f3[i] - c3) * v3
        second = ((first + (f4[i] - c4) * v4) + (f5[i] - c5) * v5) + (f6[i] - c6) * v6
        out[i] = (second + (f7[i] - c7) * v7) + (f8[i] - c8) * v8


@njit(**INLINE)
def _invert_roughly(peak, m, inverse):
    """Store 1/peak in single precision, replace peaks of 0 by 1; return whether `_project_roughly` keeps its bound.

    Between 2⁻¹⁰⁰ and 2¹⁰⁰ no sum overflows, and what underflows is far less than the bound.
    """
    outside = np.int32(0)
    for i in range(m):
        p = peak[i] if peak[i] > 0 else np.float32(1)
        peak[i] = p
        inverse[i] = np.float32(1) / p
        outside |= np.int32(p < np.float32(2.0**-100)) | np.int32(p > np.float32(2.0**100))
    return outside == 0


@njit(**INLINE)
def _rough_axes(mean, components):
    """Return the components and −mean·Vᵀ in single precision, and the largest error of a scaled filter's coefficient.

    With u = 2⁻²⁴, peak p and K weights, the rounding of the component contributes up to u‖v‖₁, the K products and sums
    of w·v/p, in any order, K·u‖v‖₁, the reciprocal of p, the product with it and the last sum 3u‖v‖₁, the offset
    2u‖v‖₁|mean| (Higham 2002, §3.1): less than (K + 5)u·Σ(1 + |mean|)|v|. The returned bound is twice that.
    """
    weights = len(mean)
    offsets = np.empty(weights, np.float32)
    reach = 0.0
    for k in range(weights):
        total = size = 0.0
        for j in range(weights):
            total -= mean[j] * components[k, j]
            size += (1 + abs(mean[j])) * abs(components[k, j])
        offsets[k] = total
        reach = max(reach, size)
    return components.astype(np.float32), offsets, (2 * weights + 10) * reach * 2.0**-24


@njit(**INLINE, fastmath=SUMS)
def _project_roughly(columns, kernel, start, m, inverse, rough, out):
    """Store w·Vᵀ/peak + offset of m filters in single precision, at most `doubt` off the coefficients."""
    weights = len(kernel)
    v, offset, _ = rough
    end = start + m
    for k in range(0, by_threes(kernel), 3):
        out0, out1, out2 = out[k], out[k + 1], out[k + 2]
        for j in range(0, by_threes(kernel), 3):
            f0, f1, f2 = columns[j, start:end], columns[j + 1, start:end], columns[j + 2, start:end]
            v00, v01, v02 = v[k, j], v[k, j + 1], v[k, j + 2]
            v10, v11, v12 = v[k + 1, j], v[k + 1, j + 1], v[k + 1, j + 2]
            v20, v21, v22 = v[k + 2, j], v[k + 2, j + 1], v[k + 2, j + 2]
            if j == 0:
                for i in range(m):
                    out0[i] = f0[i] * v00 + f1[i] * v01 + f2[i] * v02
                    out1[i] = f0[i] * v10 + f1[i] * v11 + f2[i] * v12
                    out2[i] = f0[i] * v20 + f1[i] * v21 + f2[i] * v22
            elif j + 3 < weights:
                for i in range(m):
                    out0[i] += f0[i] * v00 + f1[i] * v01 + f2[i] * v02
                    out1[i] += f0[i] * v10 + f1[i] * v11 + f2[i] * v12
                    out2[i] += f0[i] * v20 + f1[i] * v21 + f2[i] * v22
            else:
                for i in range(m):
                    out0[i] = (out0[i] + f0[i] * v00 + f1[i] * v01 + f2[i] * v02) * inverse[i] + offset[k]
                    out1[i] = (out1[i] + f0[i] * v10 + f1[i] * v11 + f2[i] * v12) * inverse[i] + offset[k + 1]
                    out2[i] = (out2[i] + f0[i] * v20 + f1[i] * v21 + f2[i] * v22) * inverse[i] + offset[k + 2]
    _project_rest(columns, kernel, start, m, inverse, rough, out)


@njit(**INLINE, fastmath=SUMS)
def _project_rest(columns, kernel, start, m, inverse, rough, out):
    """Add the rows, and store the components, that remain when they go by threes in `_project_roughly`."""
    weights = len(kernel)
    v, offset, _ = rough
    whole = by_threes(kernel)
    for k in range(weights):
        first = whole if k < whole else 0
        target, shift = out[k], offset[k]
        for j in range(first, weights):
            row, factor = columns[j, start : start + m], v[k, j]
            for i in range(m):
                before = np.float32(0) if j == 0 else target[i]
                target[i] = before + row[i] * factor
        if first < weights or weights == 3:
            for i in range(m):
                target[i] = target[i] * inverse[i] + shift


@njit(**INLINE, fastmath=ORDER)
def _range(row, m, low, high):
    """Return the smallest and largest of low, high and m numbers."""
    for i in range(m):
        v = row[i]
        low = v if v < low else low
        high = v if v > high else high
    return low, high


@njit(**INLINE)
def _leaves(row, m, low, high):
    """Return whether one of m numbers is below low or above high. Unlike `_range`, LLVM vectorises this loop."""
    outside = np.int32(0)
    for i in range(m):
        outside |= np.int32(row[i] < low) | np.int32(row[i] > high)
    return outside != 0


@njit(**INLINE)
def _extend(columns, kernel, start, m, r, axes, doubt, is_rough, about, state, peak, work):
    """Update the extremes of run r with m filters; return whether their weights were loaded to do so.

    They are if one of the coefficients in single precision, `about`, could be a new extreme.
    """
    weights = len(kernel)
    mean, components, scaled = axes
    smallest, largest = state
    c = work[1]
    loaded = False
    for k in range(weights):
        if is_rough and not _leaves(about[k], m, smallest[r, k] + doubt, largest[r, k] - doubt):
            continue
        if not loaded:
            loaded = True
            _load(columns, kernel, start, m, scaled, peak, work)
        _project(work[0], kernel, m, mean, components[k], c)
        if _leaves(c, m, smallest[r, k], largest[r, k]):
            smallest[r, k], largest[r, k] = _range(c, m, smallest[r, k], largest[r, k])
    return loaded


@njit(**INLINE)
def _coefficient(columns, kernel, i, peak, mean, v):
    """Return the coefficient of one scaled filter, bit for bit that of `_project`."""
    weights = len(kernel)
    p = np.float64(peak)
    total = (columns[0, i] / p - mean[0]) * v[0]
    for j in range(1, weights):
        total += (columns[j, i] / p - mean[j]) * v[j]
    return total


@njit(**INLINE)
def _count(columns, kernel, start, m, r, axes, rough_line, is_rough, about, state, tallies, index, peak, work):
    """Count the coefficients of m filters of run r: those of `work`, or if `is_rough` those of `about`.

    Filters so near to an edge that their bin is unclear in single precision are projected again in double precision, so
    that the counts are always those of double precision.
    """
    weights = len(kernel)
    mean, components, _ = axes
    edges, slack, counts, underflow, overflow, on_edge = state
    bins = edges.size - 1
    scale, shift, margin = bin_line(edges)
    c = work[1]
    for k in range(weights):
        if is_rough:
            clear = clear_bins(about[k], m, rough_line[0], rough_line[1], rough_line[2], bins, index)
        else:
            _project(work[0], kernel, m, mean, components[k], c)
            clear = clear_bins(c, m, scale, shift, margin, bins, index)
        if not clear:
            for i in range(m):
                if not 0 <= index[i] < bins:
                    v = c[i]
                    if is_rough:
                        v = _coefficient(columns, kernel, start + i, peak[i], mean, components[k])
                    count_value(v, edges, slack, counts[r], underflow[r], overflow[r], on_edge[r], k)
                    index[i] = bins
        tally(index, m, tallies[0, k], tallies[1, k], tallies[2, k], tallies[3, k])


@njit(**INLINE)
def _reduce_runs(columns, kernel, starts, stops, axes, moments, extremes, histograms):
    """Add each run to the states that are not None."""
    weights = len(kernel)
    work_weights, high_part, low_part, low, high, peak = buffers(kernel)
    work = work_weights, high_part, low_part
    size = lanes(kernel)
    held = begun = 0
    is_rough = loaded = False
    if moments is not None:
        sparse, positions, pair = np.empty((weights, 2 * size)), np.empty(size, np.int32), np.empty((2, weights))
        scratch = sparse, positions, pair[0], pair[1]
    if axes is not None:
        rough = _rough_axes(axes[0], axes[1])
        about = np.empty((weights, size), np.float32)
    if histograms is not None:
        index = np.empty(size, np.int32)
        tallies = np.zeros((4, weights, histograms[0].size), np.int32)
        rough_line, is_fine = rough_bin_line(histograms[0], rough[2])
    for r in range(starts.size):
        if moments is not None:
            held, begun = 0, moments[1][r, 0] + moments[1][r, 1]
        for start in range(starts[r], stops[r], size):
            m = min(size, stops[r] - start)
            if moments is not None:
                total = begun + start - starts[r]
                held = _add_moments(columns, kernel, start, m, r, total, held, moments, scratch, work, low, high, peak)
            if axes is not None:
                if moments is None and axes[2]:
                    find_peaks(columns, kernel, start, m, peak)
                is_rough = axes[2] and _invert_roughly(peak, m, low)
                if is_rough:
                    _project_roughly(columns, kernel, start, m, low, rough, about)
            if extremes is not None:
                loaded = _extend(columns, kernel, start, m, r, axes, rough[2], is_rough, about, extremes, peak, work)
            if histograms is not None:
                fine = is_rough and is_fine
                if not fine and not loaded:
                    _load(columns, kernel, start, m, axes[2], peak, work)
                line = rough_line
                _count(columns, kernel, start, m, r, axes, line, fine, about, histograms, tallies, index, peak, work)
        if moments is not None:
            _finish_moments(kernel, r, held, moments, scratch)
        if histograms is not None:
            move_tallies(tallies, kernel, histograms[2][r])


@njit(cache=True, nogil=True, error_model="numpy")
def _reduce_nine(columns, starts, stops, axes, moments, extremes, histograms):
    """Reduce filters of nine weights. Numba compiles a loop for each combination of states, without other parts."""
    _reduce_runs(columns, NINE, starts, stops, axes, moments, extremes, histograms)


@njit(cache=True, nogil=True, error_model="numpy")
def _reduce_any(columns, starts, stops, axes, moments, extremes, histograms):
    """Reduce filters of any number of weights."""
    _reduce_runs(columns, columns[:, 0], starts, stops, axes, moments, extremes, histograms)


def _reduce(columns: np.ndarray, *arguments: Any) -> None:
    """Add each run to the states that are not None."""
    (_reduce_nine if columns.shape[0] == WEIGHTS else _reduce_any)(read_only(columns), *arguments)


def reduce_together(
    columns: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    axes: tuple[np.ndarray, np.ndarray, bool] | None = None,
    **states: State,
) -> None:
    """Add each run to several states in one loop, byte for byte as the functions of their names do.

    `axes` are mean, components and `scaled`, for extremes and histograms. A state, `moments`, `extremes` or
    `histograms`, is the tuple of the last arguments of the function with this name, `state`.
    """
    _reduce(columns, starts, stops, axes, *(states.get(name) for name in ("moments", "extremes", "histograms")))


def moments(columns: np.ndarray, starts: np.ndarray, stops: np.ndarray, *state: Any) -> None:
    """Add each run to its moments. A filter whose |w| are all below the run's threshold is sparse.

    `state`: thresholds (runs,) float64, and updated in place counts (runs, 2) int64, means (runs, 3, 9), m2
    (runs, 3, 9, 9), peaks (runs,) and spans (runs,), the sum of max w − min w over filters. The second axis is clean
    (raw filters that are not sparse), sparse (raw), scaled.
    """
    _reduce(columns, starts, stops, None, state, None, None)


def extremes(columns: np.ndarray, starts: np.ndarray, stops: np.ndarray, *axes_and_state: Any) -> None:
    """Update the extremes of each run's coefficients in the axes (mean, components, scaled).

    `state`: smallest and largest (runs, 9) float64, updated in place. Scaled filters are projected in single precision
    first, in double only if one of them could be a new extreme.
    """
    _reduce(columns, starts, stops, axes_and_state[:3], None, axes_and_state[3:], None)


def histograms(columns: np.ndarray, starts: np.ndarray, stops: np.ndarray, *axes_and_state: Any) -> None:
    """Count the coefficients of each run, in the axes (mean, components, scaled), in uniform bins and outside of them.

    `state`: edges (bins + 1,) float64 from np.linspace, the last bin includes its right edge; slack, see `bin_of`; and
    counts (runs, 9, bins), underflow, overflow and on_edge, near inner edges, (runs, 9), int64, which are added to in
    place. Scaled filters are projected in single precision first.
    """
    _reduce(columns, starts, stops, axes_and_state[:3], None, None, axes_and_state[3:])


@njit(**INLINE)
def _count_pairs(columns, kernel, starts, stops, groups, axes, edges, slack, pairs, counts, outside):
    """Count pairs as `densities` does."""
    weights = len(kernel)
    mean, components, scaled = axes
    bins = edges.size - 1
    scale, shift, margin = bin_line(edges)
    f, c, part, _, _, peak = buffers(kernel)
    size = lanes(kernel)
    index = np.empty((weights, size), np.int32)
    wanted = np.zeros(weights, np.bool_)
    for component in pairs.flat:
        wanted[component] = True
    for r in range(starts.size):
        g = groups[r]
        if g < 0:
            continue
        for start in range(starts[r], stops[r], size):
            m = min(size, stops[r] - start)
            if scaled:
                find_peaks(columns, kernel, start, m, peak)
            _load(columns, kernel, start, m, scaled, peak, (f, c, part))
            for k in range(weights):
                if wanted[k]:
                    _project(f, kernel, m, mean, components[k], c)
                    if not clear_bins(c, m, scale, shift, margin, bins, index[k]):
                        for i in range(m):
                            if not 0 <= index[k, i] < bins:
                                index[k, i] = bin_of(c[i], edges, slack)
            for p in range(pairs.shape[0]):
                first, second = index[pairs[p, 0]], index[pairs[p, 1]]
                square = counts[p, g]
                for i in range(m):
                    a, b = first[i], second[i]
                    if 0 <= a < bins and 0 <= b < bins:
                        square[a, b] += 1
                    else:
                        outside[p, g] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _densities_nine(columns, starts, stops, groups, axes, edges, slack, pairs, counts, outside):
    """Count pairs of filters of nine weights."""
    _count_pairs(columns, NINE, starts, stops, groups, axes, edges, slack, pairs, counts, outside)


@njit(cache=True, nogil=True, error_model="numpy")
def _densities_any(columns, starts, stops, groups, axes, edges, slack, pairs, counts, outside):
    """Count pairs of filters of any number of weights."""
    _count_pairs(columns, columns[:, 0], starts, stops, groups, axes, edges, slack, pairs, counts, outside)


def densities(
    columns: np.ndarray, starts: np.ndarray, stops: np.ndarray, groups: np.ndarray, *axes_and_state: Any
) -> None:
    """Count pairs of coefficients of each run in a square of uniform bins, by group.

    `groups` (runs,) int64: each run's group, −1 for none. The axes are those of `histograms`. `state`: edges and slack;
    pairs (p, 2) int64 of components; and counts (p, groups, bins, bins) and outside (p, groups), int64, filters with
    either coefficient outside the edges, which are added to in place. Coefficients and bins are those of `histograms`,
    bit for bit.
    """
    count = _densities_nine if columns.shape[0] == WEIGHTS else _densities_any
    count(read_only(columns), starts, stops, groups, axes_and_state[:3], *axes_and_state[3:])
