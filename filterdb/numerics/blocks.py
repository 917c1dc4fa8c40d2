"""Inlined parts of the compiled loops: copy and scale a block of filters, find its peaks, add it to moments.

A block has its columns first, (weights, n) float32, as chunks store them; a part handles m filters from `start` on, at
most `lanes(kernel)`. `kernel` has an element for each weight of a filter. If it is a tuple, their number is a constant
of the loop; if it is an array, one loop serves all kernels. Rows go three at a time, so that sums stay in registers;
those that remain go alone.

Numba's cache notices changes of the module of a loop only. `compiled.py` therefore names the SHA-256 of this file, so
that it changes too. Parts of `compiled.py` itself stay there for the same reason.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from filterdb.numerics.compilation import njit

CACHED = 2_304
"""Weights that are processed at a time: in float64 they fill 18 KiB of the first-level cache."""

INLINE = {"cache": True, "nogil": True, "error_model": "numpy", "forceinline": True}
"""Numba options of the helpers. A helper that is not inlined is compiled by itself in the process that compiles it, and
together with its caller in processes that load the caller from Numba's cache; the last digits could then differ."""

SUMS = {"reassoc", "contract", "nsz"}  # fast-math flags of helpers that add
ORDER = {"reassoc", "nsz", "nnan"}  # … that only compare


@njit(**INLINE)
def lanes(kernel):
    """Return how many filters are processed at a time: 256 of nine weights."""
    weights = len(kernel)
    return min(256, max(64, CACHED // weights // 8 * 8))


@njit(**INLINE)
def by_threes(kernel):
    """Return how many rows go three at a time."""
    weights = len(kernel)
    return weights - weights % 3


@intrinsic
def has_fma(typing_context):
    """Return whether the processor that Numba compiles for has the instruction of `fma`, as a constant."""

    def generate(context, builder, signature, arguments):
        triple, _, features = context.codegen().magic_tuple()
        has = triple.startswith(("aarch64", "arm64")) or "+fma" in features.split(",")
        return context.get_constant(types.boolean, has)

    return types.boolean(), generate


@intrinsic
def fma(typing_context, a, b, c):
    """Return a·b + c, rounded once. Without the instruction LLVM calls a slow function: ask `has_fma` first."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


@njit(**INLINE)
def invert(peak, m, high, low):
    """Store in two parts the reciprocals of the peaks of m filters, for `quotient`; those of all-zero filters are 1.

    Without fused multiply-add, `high` are the peaks themselves.
    """
    for i in range(m):
        p = np.float64(peak[i]) if peak[i] > 0 else 1.0
        if has_fma():
            r = 1.0 / p
            high[i] = r * (1 - 2.0**-50)
            low[i] = fma(-p, high[i], 1.0) * r
        else:
            high[i] = p
            low[i] = 0.0


@njit(**INLINE)
def quotient(w, high, low):
    """Return the float32 number w divided by the peak p that `invert` took, with the bits of IEEE division.

    With r = 1/p rounded, high = r·(1 − 2⁻⁵⁰) and low = (1 − p·high)·r, the quotient is the rounded sum of w·high, exact
    within the fused operation, and w·low, rounded. Proof that this is w/p, correctly rounded:

    - 1 − p·high is exact: it is less than 2⁻⁴⁹ and a multiple of the last place of p (24 bits) times that of high (53
      bits), which is at least 2⁻⁷⁷, as p·high is near 1. Since |r − 1/p| ≤ 2⁻⁵³/p, |high + low − 1/p| ≤ 2⁻⁴⁹·2⁻⁵²/p.
      Rounding w·low adds at most 2⁻⁴⁹·2⁻⁵³|w|/p. Before its last rounding, the sum is less than 2⁻¹⁰⁰|w/p| off.
    - w/p is never that near to a midpoint of two neighbouring doubles. For w ≠ 0, w/p = ±A/P·2ᵉ with whole numbers A
      and P, 2²³ ≤ A, P < 2²⁴ (subnormal numbers too, shifted). Midpoints near A/P are M·2⁻ᵗ with odd M and t = 53 if
      A ≥ P, else 54. A/P − M·2⁻ᵗ = (A·2ᵗ − M·P)/(P·2ᵗ) is not 0, since 2ᵗ does not divide M·P, so it is at least
      2⁻⁵⁴/P, which is 2⁻⁵⁴/A > 2⁻⁷⁸ of A/P. No midpoint lies between the sum and w/p, so both round to the same double.
    - In double nothing overflows or underflows: |w| and p lie in 2⁻¹⁴⁹…2¹²⁸, the smallest term is w·low > 2⁻⁴⁰⁰. Since
      low > 0, ±0 stays ±0.
    """
    return fma(w, high, w * low) if has_fma() else w / high


@njit(**INLINE)
def buffers(kernel):
    """Return buffers for a part: weights, the two parts of reciprocals, and the three results of `bounds`."""
    weights = len(kernel)
    doubles, floats = np.empty((2, lanes(kernel))), np.empty((3, lanes(kernel)), np.float32)
    return np.empty((weights, lanes(kernel))), doubles[0], doubles[1], floats[0], floats[1], floats[2]


@njit(**INLINE, fastmath=ORDER)
def bounds(columns, kernel, start, m, low, high, peak):
    """Store the smallest and largest weight and the largest |w| of each of m filters; return the extremes of |w|."""
    weights = len(kernel)
    for j in range(0, by_threes(kernel), 3):
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
    for j in range(by_threes(kernel), weights):
        row = columns[j, start : start + m]
        for i in range(m):
            a, b = (row[i], row[i]) if j == 0 else (low[i], high[i])
            low[i] = row[i] if row[i] < a else a
            high[i] = row[i] if row[i] > b else b
    smallest = np.float32(np.finfo(np.float32).max)
    largest = np.float32(0)
    for i in range(m):
        p = high[i] if high[i] > -low[i] else -low[i]
        peak[i] = p
        smallest = p if p < smallest else smallest
        largest = p if p > largest else largest
    return smallest, largest


@njit(**INLINE, fastmath=ORDER)
def find_peaks(columns, kernel, start, m, peak):
    """Store the largest |w| of each of m filters."""
    weights = len(kernel)
    for j in range(0, by_threes(kernel), 3):
        r0, r1, r2 = columns[j, start : start + m], columns[j + 1, start : start + m], columns[j + 2, start : start + m]
        for i in range(m):
            p = np.float32(0) if j == 0 else peak[i]
            a, b, c = abs(r0[i]), abs(r1[i]), abs(r2[i])
            p = a if a > p else p
            p = b if b > p else p
            peak[i] = c if c > p else p
    for j in range(by_threes(kernel), weights):
        row = columns[j, start : start + m]
        for i in range(m):
            p = np.float32(0) if j == 0 else peak[i]
            a = abs(row[i])
            peak[i] = a if a > p else p


@njit(**INLINE, fastmath=SUMS)
def spans(low, high, m):
    """Return Σ(max w − min w) over m filters."""
    total = 0.0
    for i in range(m):
        total += np.float64(high[i]) - np.float64(low[i])
    return total


@njit(**INLINE)
def load(columns, kernel, start, m, out):
    """Copy m filters to `out` (weights, …) as float64."""
    weights = len(kernel)
    for j in range(weights):
        row = columns[j, start : start + m]
        target = out[j]
        for i in range(m):
            target[i] = row[i]


@njit(**INLINE)
def load_scaled(columns, kernel, start, m, peak, high, low, out):
    """Copy m filters, divided by their peaks, to `out` (weights, …) as float64; an all-zero filter stays zero."""
    weights = len(kernel)
    invert(peak, m, high, low)
    for j in range(weights):
        row = columns[j, start : start + m]
        target = out[j]
        for i in range(m):
            target[i] = quotient(np.float64(row[i]), high[i], low[i])


@njit(**INLINE)
def take_sparse(columns, kernel, start, m, peak, threshold, f, positions, sparse, held):
    """Move filters whose peak is below the threshold from f (weights, m) to `sparse`, and return their number.

    `sparse` already has `held` filters. The last filters of f fill the gaps; `positions` is scratch space.
    """
    weights = len(kernel)
    taken = 0
    for i in range(m):
        positions[taken] = i
        taken += peak[i] < threshold
    for k in range(taken - 1, -1, -1):  # last to first, so that the filter that fills a gap is not sparse itself
        m -= 1
        for j in range(weights):
            sparse[j, held] = columns[j, start + positions[k]]
            f[j, positions[k]] = f[j, m]
        held += 1
    return taken


@njit(**INLINE, fastmath=SUMS)
def shift_loaded(f, kernel, m, count, mean, shift):
    """Replace m filters (columns of f) by their differences from the mean of the `count` filters before them.

    That mean is then updated. If there are none before, the first filter takes its place. Equal filters then have
    exactly zero spread, and no digits are lost where the mean is large compared with the spread. `shift` (weights,)
    receives the mean of the differences.
    """
    weights = len(kernel)
    n = np.float64(count)
    for j in range(weights):
        row = f[j]
        origin = row[0] if count == 0 else mean[j]
        total = 0.0
        for i in range(m):
            row[i] -= origin
            total += row[i]
        mean[j] = origin + total / (n + m)
        shift[j] = total / m


@njit(**INLINE, fastmath=SUMS)
def shift_raw(columns, kernel, start, m, f, count, mean, shift):
    """Copy m filters to f and shift them, like `load` and `shift_loaded`."""
    weights = len(kernel)
    n = np.float64(count)
    for j in range(weights):
        row = columns[j, start : start + m]
        target = f[j]
        origin = np.float64(row[0]) if count == 0 else mean[j]
        total = 0.0
        for i in range(m):
            d = np.float64(row[i]) - origin
            target[i] = d
            total += d
        mean[j] = origin + total / (n + m)
        shift[j] = total / m


@njit(**INLINE, fastmath=SUMS)
def shift_scaled(columns, kernel, start, m, high, low, f, count, mean, shift):
    """Copy m filters, scaled, to f and shift them, like `load_scaled` and `shift_loaded`."""
    weights = len(kernel)
    n = np.float64(count)
    for j in range(weights):
        row = columns[j, start : start + m]
        target = f[j]
        origin = quotient(np.float64(row[0]), high[0], low[0]) if count == 0 else mean[j]
        total = 0.0
        for i in range(m):
            d = quotient(np.float64(row[i]), high[i], low[i]) - origin
            target[i] = d
            total += d
        mean[j] = origin + total / (n + m)
        shift[j] = total / m


@njit(**INLINE)
def settle(products, total, lost, shift):
    """Return products + total − lost·shift. Without fast-math, so that LLVM does it in the same order everywhere."""
    return fma(-lost, shift, products + total) if has_fma() else products + total - lost * shift


@njit(**INLINE)
def weigh(shift, kernel, weight, out):
    """Store weight·shift (weights,). Without fast-math, so that LLVM rounds squares as it does products."""
    weights = len(kernel)
    for j in range(weights):
        out[j] = weight * shift[j]


@njit(**INLINE, fastmath=SUMS)
def _add_three_corners(f, m, shift, lost, m2):
    """Add what `_add_corners` adds for nine weights, which have three corners, nine sums at a time."""
    f0, f1, f2, f3, f4, f5 = f[0], f[1], f[2], f[3], f[4], f[5]
    s00 = s01 = s02 = s11 = s12 = s22 = s33 = s34 = s35 = 0.0
    for i in range(m):
        s00 += f0[i] * f0[i]
        s01 += f0[i] * f1[i]
        s02 += f0[i] * f2[i]
        s11 += f1[i] * f1[i]
        s12 += f1[i] * f2[i]
        s22 += f2[i] * f2[i]
        s33 += f3[i] * f3[i]
        s34 += f3[i] * f4[i]
        s35 += f3[i] * f5[i]
    m2[0, 0] = settle(m2[0, 0], s00, lost[0], shift[0])
    m2[0, 1] = settle(m2[0, 1], s01, lost[0], shift[1])
    m2[0, 2] = settle(m2[0, 2], s02, lost[0], shift[2])
    m2[1, 1] = settle(m2[1, 1], s11, lost[1], shift[1])
    m2[1, 2] = settle(m2[1, 2], s12, lost[1], shift[2])
    m2[2, 2] = settle(m2[2, 2], s22, lost[2], shift[2])
    m2[3, 3] = settle(m2[3, 3], s33, lost[3], shift[3])
    m2[3, 4] = settle(m2[3, 4], s34, lost[3], shift[4])
    m2[3, 5] = settle(m2[3, 5], s35, lost[3], shift[5])
    f4, f5, f6, f7, f8 = f[4], f[5], f[6], f[7], f[8]
    s44 = s45 = s55 = s66 = s67 = s68 = s77 = s78 = s88 = 0.0
    for i in range(m):
        s44 += f4[i] * f4[i]
        s45 += f4[i] * f5[i]
        s55 += f5[i] * f5[i]
        s66 += f6[i] * f6[i]
        s67 += f6[i] * f7[i]
        s68 += f6[i] * f8[i]
        s77 += f7[i] * f7[i]
        s78 += f7[i] * f8[i]
        s88 += f8[i] * f8[i]
    m2[4, 4] = settle(m2[4, 4], s44, lost[4], shift[4])
    m2[4, 5] = settle(m2[4, 5], s45, lost[4], shift[5])
    m2[5, 5] = settle(m2[5, 5], s55, lost[5], shift[5])
    m2[6, 6] = settle(m2[6, 6], s66, lost[6], shift[6])
    m2[6, 7] = settle(m2[6, 7], s67, lost[6], shift[7])
    m2[6, 8] = settle(m2[6, 8], s68, lost[6], shift[8])
    m2[7, 7] = settle(m2[7, 7], s77, lost[7], shift[7])
    m2[7, 8] = settle(m2[7, 8], s78, lost[7], shift[8])
    m2[8, 8] = settle(m2[8, 8], s88, lost[8], shift[8])


@njit(**INLINE, fastmath=SUMS)
def _add_corners(f, kernel, m, shift, lost, m2):
    """Add what `add_products` adds to the corners of m2 on its diagonal, and to the columns of the rows that remain."""
    weights = len(kernel)
    for j in range(0, by_threes(kernel), 3):
        f0, f1, f2 = f[j], f[j + 1], f[j + 2]
        s00 = s01 = s02 = s11 = s12 = s22 = 0.0
        for i in range(m):
            s00 += f0[i] * f0[i]
            s01 += f0[i] * f1[i]
            s02 += f0[i] * f2[i]
            s11 += f1[i] * f1[i]
            s12 += f1[i] * f2[i]
            s22 += f2[i] * f2[i]
        m2[j, j] = settle(m2[j, j], s00, lost[j], shift[j])
        m2[j, j + 1] = settle(m2[j, j + 1], s01, lost[j], shift[j + 1])
        m2[j, j + 2] = settle(m2[j, j + 2], s02, lost[j], shift[j + 2])
        m2[j + 1, j + 1] = settle(m2[j + 1, j + 1], s11, lost[j + 1], shift[j + 1])
        m2[j + 1, j + 2] = settle(m2[j + 1, j + 2], s12, lost[j + 1], shift[j + 2])
        m2[j + 2, j + 2] = settle(m2[j + 2, j + 2], s22, lost[j + 2], shift[j + 2])
    for k in range(by_threes(kernel), weights):
        row = f[k]
        for j in range(0, by_threes(kernel), 3):
            f0, f1, f2 = f[j], f[j + 1], f[j + 2]
            s0 = s1 = s2 = 0.0
            for i in range(m):
                s0 += f0[i] * row[i]
                s1 += f1[i] * row[i]
                s2 += f2[i] * row[i]
            m2[j, k] = settle(m2[j, k], s0, lost[j], shift[k])
            m2[j + 1, k] = settle(m2[j + 1, k], s1, lost[j + 1], shift[k])
            m2[j + 2, k] = settle(m2[j + 2, k], s2, lost[j + 2], shift[k])
        for j in range(by_threes(kernel), k + 1):
            other = f[j]
            total = 0.0
            for i in range(m):
                total += other[i] * row[i]
            m2[j, k] = settle(m2[j, k], total, lost[j], shift[k])


@njit(**INLINE, fastmath=SUMS)
def add_products(f, kernel, m, count, shift, lost, m2):
    """Add m shifted filters (columns of f) to m2 (weights, weights; upper triangle), the centred products of `count`.

    With d the mean of the differences f, m2 grows by Σff − d·d·m²/(n + m), which is Chan's update (Chan, Golub, LeVeque
    1979) with the moments of the block. `lost` (weights,) is scratch space. Nine sums at a time fill the registers.
    """
    n = np.float64(count)
    weigh(shift, kernel, m * (m / (n + m)), lost)
    if len(kernel) == 9:
        _add_three_corners(f, m, shift, lost, m2)
    else:
        _add_corners(f, kernel, m, shift, lost, m2)
    for j in range(0, by_threes(kernel), 3):
        a0, a1, a2 = f[j], f[j + 1], f[j + 2]
        for k in range(j + 3, by_threes(kernel), 3):
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
            m2[j, k] = settle(m2[j, k], s00, lost[j], shift[k])
            m2[j, k + 1] = settle(m2[j, k + 1], s01, lost[j], shift[k + 1])
            m2[j, k + 2] = settle(m2[j, k + 2], s02, lost[j], shift[k + 2])
            m2[j + 1, k] = settle(m2[j + 1, k], s10, lost[j + 1], shift[k])
            m2[j + 1, k + 1] = settle(m2[j + 1, k + 1], s11, lost[j + 1], shift[k + 1])
            m2[j + 1, k + 2] = settle(m2[j + 1, k + 2], s12, lost[j + 1], shift[k + 2])
            m2[j + 2, k] = settle(m2[j + 2, k], s20, lost[j + 2], shift[k])
            m2[j + 2, k + 1] = settle(m2[j + 2, k + 1], s21, lost[j + 2], shift[k + 1])
            m2[j + 2, k + 2] = settle(m2[j + 2, k + 2], s22, lost[j + 2], shift[k + 2])


@njit(**INLINE)
def mirror(m2, kernel):
    """Copy the upper triangle of m2 to the lower one."""
    weights = len(kernel)
    for j in range(weights):
        for k in range(j):
            m2[j, k] = m2[k, j]
