"""Compiled loops over filters and codes: normalise filters, find the nearest code of each, and add up by code or layer.

The scores x·c − ‖c‖²/2 of all codes are computed in single precision, which bounds their errors. Where the two best
scores are closer than these errors, distances in double precision decide, so that the code is always the one that
double precision chooses, and the lowest of several at the same distance. Sums are in double precision in the order of
the filters and may not be reassociated, so that all kinds of CPU compute the same bytes.

The compiled functions here call none of other modules, since Numba's cache does not notice a change in one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.compilation import njit

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

INLINE = {"nogil": True, "error_model": "numpy", "forceinline": True}
SCORES = {"reassoc", "contract", "nsz"}
"""Fast-math flags of the scores, whose errors are bounded in any order of the sums."""

ORDER = {"nsz", "nnan"}

LANES = 256
"""Filters that are processed at a time."""

GROUP = 4
"""Codes whose scores are computed at a time."""

FIRST = 9
"""Weights that the first loop over a code takes. The weights of a square of odd side exceed them by eights."""

STEP = 8

ROUNDING = 2.0**-24
"""Largest relative error of a rounding in single precision."""

CONSTANT = 1e-6
"""Spread of a filter's weights, as a share of its norm, below which only the rounding of its file tells them apart."""

SMALLEST = np.float32(-3e38)


@njit(**INLINE)
def _add_squares(x: Floats, m: int, total: Floats) -> None:
    """Store in `total` (lanes,) the sum of the squares of each of m filters."""
    for i in range(m):
        total[i] = 0.0
    for j in range(x.shape[0]):
        row = x[j]
        for i in range(m):
            total[i] += row[i] * row[i]


@njit(**INLINE)
def _normalise(columns: Singles, start: int, m: int, affine: bool, x: Floats, norm: Floats, mean: Floats) -> None:
    """Copy m filters to x (weights, lanes), normalised; `norm` (lanes,) is 0 for filters without a direction.

    Those become zero. `mean` (lanes,) is scratch space.
    """
    weights = columns.shape[0]
    for i in range(m):
        mean[i] = 0.0
    for j in range(weights):
        row, target = columns[j, start : start + m], x[j]
        for i in range(m):
            target[i] = row[i]
            mean[i] += target[i]
    _add_squares(x, m, norm)
    if affine:
        for i in range(m):
            mean[i] /= weights
        for j in range(weights):
            target = x[j]
            for i in range(m):
                target[i] -= mean[i]
        limit = mean
        for i in range(m):
            limit[i] = norm[i] * (CONSTANT * CONSTANT)
        _add_squares(x, m, norm)
        for i in range(m):
            norm[i] = norm[i] if norm[i] > limit[i] else 0.0
    for i in range(m):
        norm[i] = np.sqrt(norm[i])
    for j in range(weights):
        target = x[j]
        for i in range(m):
            target[i] = target[i] / norm[i] if norm[i] > 0.0 else 0.0


@njit(**INLINE, fastmath=SCORES)
def _score_nine(
    x: Singles, m: int, c: Singles, d: Singles, b: np.float32, e: np.float32, s: Singles, t: Singles
) -> None:
    """Store in s and t the scores of two codes, c and d, with the offsets b and e, on the first nine weights."""
    x0, x1, x2, x3, x4, x5, x6, x7, x8 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8]
    c0, c1, c2, c3, c4, c5, c6, c7, c8 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8]
    d0, d1, d2, d3, d4, d5, d6, d7, d8 = d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8]
    for i in range(m):
        s[i] = (b + x0[i] * c0 + x1[i] * c1 + x2[i] * c2 + x3[i] * c3 + x4[i] * c4
                + x5[i] * c5 + x6[i] * c6 + x7[i] * c7 + x8[i] * c8)  # fmt: skip
        t[i] = (e + x0[i] * d0 + x1[i] * d1 + x2[i] * d2 + x3[i] * d3 + x4[i] * d4
                + x5[i] * d5 + x6[i] * d6 + x7[i] * d7 + x8[i] * d8)  # fmt: skip


@njit(**INLINE, fastmath=SCORES)
def _score_eight(x: Singles, j: int, m: int, codes: Singles, c: int, s: Singles) -> None:
    """Add to s (4, lanes) the scores of four codes from c on, on eight weights from j on."""
    x0, x1, x2, x3, x4, x5, x6, x7 = x[j], x[j + 1], x[j + 2], x[j + 3], x[j + 4], x[j + 5], x[j + 6], x[j + 7]
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    a, b, d, e = codes[c, j:], codes[c + 1, j:], codes[c + 2, j:], codes[c + 3, j:]
    a0, a1, a2, a3, a4, a5, a6, a7 = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
    b0, b1, b2, b3, b4, b5, b6, b7 = b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
    d0, d1, d2, d3, d4, d5, d6, d7 = d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]
    e0, e1, e2, e3, e4, e5, e6, e7 = e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]
    for i in range(m):
        v0, v1, v2, v3, v4, v5, v6, v7 = x0[i], x1[i], x2[i], x3[i], x4[i], x5[i], x6[i], x7[i]
        s0[i] += v0 * a0 + v1 * a1 + v2 * a2 + v3 * a3 + v4 * a4 + v5 * a5 + v6 * a6 + v7 * a7
        s1[i] += v0 * b0 + v1 * b1 + v2 * b2 + v3 * b3 + v4 * b4 + v5 * b5 + v6 * b6 + v7 * b7
        s2[i] += v0 * d0 + v1 * d1 + v2 * d2 + v3 * d3 + v4 * d4 + v5 * d5 + v6 * d6 + v7 * d7
        s3[i] += v0 * e0 + v1 * e1 + v2 * e2 + v3 * e3 + v4 * e4 + v5 * e5 + v6 * e6 + v7 * e7


@njit(**INLINE, fastmath=SCORES)
def _score(x: Singles, m: int, codes: Singles, offsets: Singles, c: int, s: Singles) -> None:
    """Store in s (4, lanes) the scores of four codes from c on."""
    weights, j = x.shape[0], 0
    if weights >= FIRST:
        _score_nine(x, m, codes[c], codes[c + 1], offsets[c], offsets[c + 1], s[0], s[1])
        _score_nine(x, m, codes[c + 2], codes[c + 3], offsets[c + 2], offsets[c + 3], s[2], s[3])
        j = FIRST
    else:
        for q in range(GROUP):
            for i in range(m):
                s[q, i] = offsets[c + q]
    while j + STEP <= weights:
        _score_eight(x, j, m, codes, c, s)
        j += STEP
    while j < weights:
        row = x[j]
        for q in range(GROUP):
            target, weight = s[q], codes[c + q, j]
            for i in range(m):
                target[i] += row[i] * weight
        j += 1


@njit(**INLINE, fastmath=ORDER)
def _better(value, code, best, second, index):  # type: ignore[no-untyped-def]
    """Return the best two scores and the code of the best, after one more score."""
    lower = value if value > second else second
    is_better = value > best
    return value if is_better else best, best if is_better else lower, code if is_better else index


@njit(**INLINE, fastmath=ORDER)
def _keep_best(s: Singles, m: int, c: int, best: Singles, second: Singles, index: NDArray[np.int32]) -> None:
    """Update the best two scores of m filters, and the code of the best, with the scores of four codes from c on."""
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    c0, c1, c2, c3 = np.int32(c), np.int32(c + 1), np.int32(c + 2), np.int32(c + 3)
    for i in range(m):
        top, next_, code = best[i], second[i], index[i]
        top, next_, code = _better(s0[i], c0, top, next_, code)
        top, next_, code = _better(s1[i], c1, top, next_, code)
        top, next_, code = _better(s2[i], c2, top, next_, code)
        top, next_, code = _better(s3[i], c3, top, next_, code)
        best[i], second[i], index[i] = top, next_, code


@njit(**INLINE)
def _distance(x: Floats, i: int, code: Floats) -> float:
    """Return the squared distance of filter i from a code."""
    total = 0.0
    for j in range(x.shape[0]):
        d = x[j, i] - code[j]
        total += d * d
    return total


@njit(**INLINE)
def _nearest(x, m, codes, table, work, index, distance):  # type: ignore[no-untyped-def]
    """Store the nearest code of m normalised filters, and the squared distance from it."""
    x32, s, best, second = work
    singles, offsets, margin = table
    weights = x.shape[0]
    for j in range(weights):
        row, target = x[j], x32[j]
        for i in range(m):
            target[i] = np.float32(row[i])
    for i in range(m):
        best[i] = SMALLEST
        second[i] = SMALLEST
        index[i] = 0
    for c in range(0, singles.shape[0], GROUP):
        _score(x32, m, singles, offsets, c, s)
        _keep_best(s, m, c, best, second, index)
    for i in range(m):
        distance[i] = _distance(x, i, codes[index[i]])
        if best[i] - second[i] <= margin:
            code, least = 0, np.inf
            for c in range(codes.shape[0]):
                own = _distance(x, i, codes[c])
                if own < least:
                    code, least = c, own
            index[i] = code
            distance[i] = least


@njit(**INLINE)
def _buffers(weights, codes):  # type: ignore[no-untyped-def]
    """Return scratch arrays, and a table of the codes in single precision, their offsets, and the margin.

    The number of codes is filled up to a multiple of four with codes that are nearest to no filter.
    """
    x, norm, distance = np.empty((weights, LANES)), np.empty(LANES), np.empty(LANES)
    index = np.empty(LANES, np.int32)
    line = np.empty((2, LANES), np.float32)
    work = np.empty((weights, LANES), np.float32), np.empty((GROUP, LANES), np.float32), line[0], line[1]
    filled = (len(codes) + GROUP - 1) // GROUP * GROUP
    singles, offsets = np.zeros((filled, weights), np.float32), np.empty(filled, np.float32)
    for c in range(filled):
        offsets[c] = SMALLEST
    for c in range(len(codes)):
        total = 0.0
        for j in range(weights):
            singles[c, j] = codes[c, j]
            total += codes[c, j] * codes[c, j]
        offsets[c] = np.float32(-0.5 * total)
    # A score has an error of at most 1.5·(weights + 6) roundings for filters and codes of norm up to 1.
    margin = np.float32(2.5 * 1.5 * (weights + 6) * ROUNDING)
    return x, norm, distance, index, work, (singles, offsets, margin)


@njit(nogil=True, error_model="numpy")
def nearest_codes(columns: Singles, affine: bool, codes: Floats, index: Ints, distance: Floats) -> None:
    """Store the nearest code of each filter, −1 without a direction, and the squared distance from it.

    `columns` (weights, n) float32 are filters; codes (k, weights) float64; `affine` chooses the normalisation (see
    `codebook.Normalisation`); index (n,) int64 and distance (n,) float64 are the results.
    """
    weights, n = columns.shape
    x, norm, found, chosen, work, table = _buffers(weights, codes)
    for start in range(0, n, LANES):
        m = min(LANES, n - start)
        _normalise(columns, start, m, affine, x, norm, found)
        _nearest(x, m, codes, table, work, chosen, found)
        for i in range(m):
            index[start + i] = chosen[i] if norm[i] > 0.0 else -1
            distance[start + i] = found[i] if norm[i] > 0.0 else 0.0


@njit(nogil=True, error_model="numpy")
def add_to_codes(  # type: ignore[no-untyped-def]
    columns: Singles, starts: Ints, stops: Ints, rows: Ints, affine: bool, codes: Floats, state
) -> None:
    """Add the filters of each run to its row's sums by code; runs of row −1 are skipped.

    `state` is counts (rows, k) and flat (rows,) int64, sums (rows, k, weights) and inertia (rows,) float64: by nearest
    code the number of filters and their sum, the filters without a direction, and the sum of squared distances.
    """
    counts, flat, sums, inertia = state
    weights = columns.shape[0]
    x, norm, distance, index, work, table = _buffers(weights, codes)
    for r in range(starts.size):
        row = rows[r]
        if row < 0:
            continue
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            _normalise(columns, start, m, affine, x, norm, distance)
            _nearest(x, m, codes, table, work, index, distance)
            for i in range(m):
                if norm[i] > 0.0:
                    target = sums[row, index[i]]
                    counts[row, index[i]] += 1
                    inertia[row] += distance[i]
                    for j in range(weights):
                        target[j] += x[j, i]
                else:
                    flat[row] += 1


@njit(nogil=True, error_model="numpy")
def add_to_layers(  # type: ignore[no-untyped-def]
    columns: Singles, starts: Ints, stops: Ints, affine: bool, codes: Floats, thresholds: Floats, state
) -> None:
    """Add the filters of each run to the code histogram of its layer.

    `state` is counts (runs, k), flat (runs,) and within (runs, thresholds) int64, sums (runs, weights) and inertia
    (runs,) float64. `within` counts filters whose correlation with their code, x·c / ‖c‖, reaches each threshold.
    """
    counts, flat, within, sums, inertia = state
    weights = columns.shape[0]
    x, norm, distance, index, work, table = _buffers(weights, codes)
    size = np.empty(len(codes))
    for c in range(len(codes)):
        total = 0.0
        for j in range(weights):
            total += codes[c, j] * codes[c, j]
        size[c] = np.sqrt(total)
    for r in range(starts.size):
        for start in range(starts[r], stops[r], LANES):
            m = min(LANES, stops[r] - start)
            _normalise(columns, start, m, affine, x, norm, distance)
            _nearest(x, m, codes, table, work, index, distance)
            for i in range(m):
                if norm[i] > 0.0:
                    c = index[i]
                    counts[r, c] += 1
                    inertia[r] += distance[i]
                    product = 0.0
                    for j in range(weights):
                        product += x[j, i] * codes[c, j]
                        sums[r, j] += x[j, i]
                    for q in range(len(thresholds)):
                        within[r, q] += size[c] > 0.0 and product >= thresholds[q] * size[c]
                else:
                    flat[r] += 1


@njit(nogil=True, error_model="numpy")
def choose_seeds(x: Floats, draws: Floats, seeds: Ints) -> int:
    """Choose filters as first codes by greedy k-means++, and return how many; fewer than asked if no others differ.

    `x` (weights, n) are normalised filters; seeds (k,) int64 receives their numbers. The rows of `draws` (k, trials),
    uniform in [0, 1), choose the candidates for each code, with chances that grow with the squared distance from the
    codes before it; the candidate that leaves the least inertia is taken (Arthur and Vassilvitskii 2007).
    """
    weights, n = x.shape
    nearest, trial, best = np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        nearest[i] = np.inf
    inertia = np.inf
    for c in range(len(seeds)):
        if inertia <= 0.0:
            return c
        least = np.inf
        for q in range(draws.shape[1]):
            pick = int(draws[c, q] * n)
            if c > 0:
                left = draws[c, q] * inertia
                for i in range(n):
                    if nearest[i] > 0.0:
                        pick = i
                        left -= nearest[i]
                        if left < 0.0:
                            break
            for i in range(n):
                trial[i] = 0.0
            for j in range(weights):
                row, weight = x[j], x[j, pick]
                for i in range(n):
                    trial[i] += (row[i] - weight) * (row[i] - weight)
            total = 0.0
            for i in range(n):
                trial[i] = trial[i] if trial[i] < nearest[i] else nearest[i]
                total += trial[i]
            if total < least:
                least = total
                seeds[c] = pick
                trial, best = best, trial
        for i in range(n):
            nearest[i] = best[i]
        inertia = least
    return len(seeds)
