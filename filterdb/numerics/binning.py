"""Inlined parts of the compiled loops: the bins of coefficients, and the counts of filters by bin.

Numba's cache notices changes of the module of a loop only, so `compiled.py` names the SHA-256 of this file too.
"""

from __future__ import annotations

import numpy as np

from filterdb.numerics.blocks import INLINE
from filterdb.numerics.compilation import njit


@njit(**INLINE)
def bin_of(v, edges, slack):
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


@njit(**INLINE)
def clear_bins(values, m, scale, shift, margin, bins, index):
    """Store the bins of m coefficients, −1 where unclear; return whether all are clear and within the edges.

    A bin is unclear for a coefficient below the edges, within `margin` bins of an edge, or not a number. Truncation
    towards zero cannot make a coefficient below the edges look clear: it is never within half a bin of bin 0's centre.
    """
    half = type(margin)(0.5)
    reach = half - margin
    signs = np.int32(0)
    last = np.int32(bins - 1)
    for i in range(m):
        position = values[i] * scale + shift
        b = np.int32(position)
        b = b if np.abs(position - type(margin)(b) - half) < reach else np.int32(-1)
        index[i] = b
        signs |= b | (last - b)
    return signs >= 0


@njit(**INLINE)
def tally(index, m, t0, t1, t2, t3):
    """Count m bins in four tallies in turn: neighbours share bins, and additions to one counter wait for each other."""
    whole = m - m % 4
    for i in range(0, whole, 4):
        t0[np.uint32(index[i])] += 1
        t1[np.uint32(index[i + 1])] += 1
        t2[np.uint32(index[i + 2])] += 1
        t3[np.uint32(index[i + 3])] += 1
    for i in range(whole, m):
        t0[np.uint32(index[i])] += 1


@njit(**INLINE)
def bin_line(edges):
    """Return scale, shift and margin: v·scale + shift is a coefficient's position in bins, good to the margin."""
    bins = edges.size - 1
    width = edges[bins] - edges[0]
    scale = bins / width
    return scale, -edges[0] * scale, 1e-6 * (1 + abs(edges[0]) / width)


@njit(**INLINE)
def rough_bin_line(edges, doubt):
    """Return `bin_line` in single precision, and whether its margin is small enough to be of use.

    The rounding of positions themselves, which are up to the number of bins, comes on top of the doubt.
    """
    bins = edges.size - 1
    width = edges[bins] - edges[0]
    scale, shift, _ = bin_line(edges)
    margin = (doubt / width + 4 * 2.0**-24 * (1 + abs(edges[0]) / width)) * bins
    return (np.float32(scale), np.float32(shift), np.float32(margin)), margin < 0.01


@njit(**INLINE)
def count_value(v, edges, slack, counts, underflow, overflow, on_edge, k):
    """Count one coefficient on component k by comparing it with the edges; arrays are those of one run."""
    b = bin_of(v, edges, slack)
    if b < 0:
        underflow[k] += 1
    elif b == edges.size - 1:
        overflow[k] += 1
    else:
        counts[k, b] += 1
        on_edge[k] += b > 0 and v <= edges[b] + slack


@njit(**INLINE)
def move_tallies(tallies, kernel, counts):
    """Add the four tallies (4, weights, bins + 1) of a run to its counts and reset them. The last is of no bin."""
    weights = len(kernel)
    for k in range(weights):
        for b in range(counts.shape[1]):
            counts[k, b] += tallies[0, k, b] + tallies[1, k, b] + tallies[2, k, b] + tallies[3, k, b]
    tallies[:] = 0
