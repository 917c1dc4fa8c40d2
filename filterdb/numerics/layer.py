"""A layer whose filters are all in memory: its moments, sparse filters, output channels, repeated filters."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.moments import Moments, merge
from filterdb.numerics.quality import SPARSE_FRACTION

BLOCK = 65_536
"""Filters converted to double precision at a time (5 MB)."""

_FACTORS = np.random.default_rng(0).integers(0, 2**64, 256, np.uint64) | np.uint64(1)
"""Odd 64-bit numbers without a pattern, as hash functions use them, one for each weight of the largest filters."""


def moments(filters: NDArray[np.float32], peaks: NDArray[np.float32] | None = None) -> Moments:
    """Return count, mean and m2 of filters (n, weights) float32, in float64, by blocks (Chan, Golub, LeVeque 1979).

    With `peaks` (n,), the largest |w| of each filter, filters are divided by them; an all-zero filter stays zero.
    """
    weights = filters.shape[1]
    total = Moments(np.array(0), np.zeros(weights), np.zeros((weights, weights)))
    for start in range(0, len(filters), BLOCK):
        block = filters[start : start + BLOCK].T.astype(np.float64, order="C")  # columns first: sums run along memory
        if peaks is not None:
            divisor = peaks[start : start + BLOCK]
            block /= np.where(divisor > 0, divisor, 1.0)
        # Subtract the first filter, so that equal filters have exactly no spread.
        origin = block[:, :1].copy()
        block -= origin
        shift = block.mean(axis=1, keepdims=True)
        block -= shift
        total = merge(total, Moments(np.array(block.shape[1]), (origin + shift)[:, 0], block @ block.T))
    return total


class Channels(NamedTuple):
    """Facts about a layer's output channels: counts of filters and channels, and how large the largest channel is."""

    prunable_filters: int
    """Filters whose |w| are all zero or strictly below a hundredth of their own output channel's peak."""

    zero_channels: int
    """Output channels whose weights are all zero."""

    small_channels: int
    """Other output channels whose weights are all strictly below a hundredth of the layer's peak."""

    outlier_ratio: float
    """The layer's peak divided by the upper quartile of its channels' peaks; NaN for an all-zero layer."""


def filter_peaks(filters: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest |w| of each of the filters (n, weights) float32, (n,) float32."""
    peaks = np.empty(len(filters), np.float32)
    for start in range(0, len(filters), BLOCK):
        # By columns: a reduction along a short axis takes five times as long.
        peaks[start : start + BLOCK] = np.abs(filters[start : start + BLOCK].T).max(axis=0)
    return peaks


def largest_weight(filters: NDArray[np.float32]) -> float:
    """Return the largest |w| of filters (n, weights) float32; 0 without filters; NaN or ∞ if one of the weights is."""
    extremes = [np.float32(0)]
    for start in range(0, len(filters), BLOCK):
        block = filters[start : start + BLOCK]
        extremes += [block.max(), -block.min()]
    return abs(float(np.max(extremes)))  # the largest of zeros may be a negative one


def norm(filters: NDArray[np.float32]) -> float:
    """Return √Σw² of filters (n, weights) float32; NaN or infinite if one of the weights is."""
    step = _rows(filters.shape[1])
    blocks = (filters[start : start + step].astype(np.float64).ravel() for start in range(0, len(filters), step))
    with np.errstate(invalid="ignore"):
        return math.sqrt(sum(float(block @ block) for block in blocks))


def sparse_filters(peaks: NDArray[np.float32], peak: float) -> NDArray[np.bool_]:
    """Return which filters have peaks (n,) strictly below peak/100, (n,) bool. In an all-zero layer all filters do.

    `peak` is the largest |w| of the layer. P1's sparsity is the share of these filters.
    """
    if not peak > 0:
        return np.ones(len(peaks), bool)
    sparse: NDArray[np.bool_] = peaks.astype(np.float64) < peak / SPARSE_FRACTION
    return sparse


def channels(peaks: NDArray[np.float32], out_channels: int) -> Channels:
    """Compare filters with their own output channel, given the filters' peaks (n,) by output channel.

    Each channel has its own scale, because a batch normalisation or the next layer may undo the scale of a whole
    channel: compared with one large channel, a healthy channel looks small. The upper quartile of the channels' peaks,
    taken without interpolation, is moved neither by a few large channels nor by many that are nearly zero; all-zero
    channels do not count. For a layer with a single channel, the peaks of its filters take the place of the channels'
    peaks.
    """
    by_channel = peaks.reshape(out_channels, -1).astype(np.float64)
    own = by_channel.max(axis=1)
    peak = float(own.max(initial=0.0))
    small = (by_channel < own[:, None] / SPARSE_FRACTION) | (by_channel == 0)
    compared = own if out_channels > 1 else by_channel[0]
    compared = compared[compared > 0]
    # In double precision, because a ratio in single precision may overflow.
    ratio = peak / float(np.quantile(compared, 0.75, method="lower")) if len(compared) else math.nan
    zero = int((own == 0).sum())
    return Channels(int(small.sum()), zero, int((own < peak / SPARSE_FRACTION).sum()) - (zero if peak else 0), ratio)


def repeated_filters(filters: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of the filters (n, weights) float32 equal an earlier one, number by number, (n,) bool.

    Filters are compared number by number only where a multilinear hash of their words agrees.
    """
    keys = np.empty(len(filters), np.uint64)
    factors, step = _factors(filters.shape[1]), _rows(filters.shape[1])
    for start in range(0, len(filters), step):
        # A matrix product of integers, without BLAS, takes four times as long for wide rows.
        keys[start : start + step] = np.einsum("ij,j->i", _words(filters[start : start + step]), factors)
    repeated = np.zeros(len(filters), bool)
    ordered = np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():  # the usual case; a plain sort is several times faster than argsort
        return repeated
    order = np.argsort(keys, kind="stable")
    new = np.ones(len(filters), bool)
    new[1:] = keys[order][1:] != keys[order][:-1]
    # The first of each run of equal keys is the earliest filter, because the sort is stable.
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(filters)), 0))]
    rest, earlier = order[~new], first[~new]
    for start in range(0, len(rest), step):
        some, other = rest[start : start + step], earlier[start : start + step]
        repeated[some] = (_words(filters[some]) == _words(filters[other])).all(axis=1)
    return repeated


def _factors(weights: int) -> NDArray[np.uint64]:
    """Return so many of the factors, of which _FACTORS are the first."""
    if weights <= len(_FACTORS):
        return _FACTORS[:weights]
    return np.random.default_rng(0).integers(0, 2**64, weights, np.uint64) | np.uint64(1)


def _rows(weights: int) -> int:
    """Return how many filters of so many weights are as large as BLOCK filters of 16 weights; BLOCK for fewer."""
    return max(1, BLOCK * 16 // max(weights, 16))


class Contents(NamedTuple):
    """Facts about the weights of a layer whose filters are not stored: 1×1 kernels, and those of too many weights."""

    peak: float
    """The largest |w| of the finite weights; 0 if there are none."""

    sparse_filters: int
    """Filters whose |w| are all strictly below a hundredth of the peak. In an all-zero layer all filters are."""

    duplicate_filters: int
    """Filters that equal an earlier one and are not sparse. Where filters have one weight: output channels."""

    nonfinite: int
    """Weights that are NaN or infinite."""


def contents(filters: NDArray[np.float32], out_channels: int) -> Contents:
    """Return facts about filters (n, weights) float32 in the order of their output channels, of any finiteness.

    A filter of one weight is equal to many others by chance, at low precision, so whole output channels are compared.
    """
    peak, nonfinite = 0.0, 0
    is_sparse = np.empty(len(filters), bool)
    step = _rows(filters.shape[1])
    for start in range(0, len(filters), step):
        block = np.abs(filters[start : start + step])
        finite = np.isfinite(block)
        nonfinite += block.size - int(np.count_nonzero(finite))
        peak = max(peak, float(block.max(where=finite, initial=0)))
    for start in range(0, len(filters), step):
        # NaN and infinities are not small: they make a filter's largest |w| NaN or infinite.
        peaks = np.abs(filters[start : start + step]).max(axis=1)
        is_sparse[start : start + step] = sparse_filters(peaks, peak) & np.isfinite(peaks)
    compared, small = filters, is_sparse
    if filters.shape[1] == 1:
        compared, small = filters.reshape(out_channels, -1), is_sparse.reshape(out_channels, -1).all(axis=1)
    duplicates = int((repeated_filters(compared) & ~small).sum())
    return Contents(peak, int(is_sparse.sum()), duplicates, nonfinite)


def _words(filters: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the bits of each number, (n, weights) uint64; adding 0 makes negative zeros equal to positive ones."""
    words: NDArray[np.uint64] = (filters + np.float32(0)).view(np.uint32).astype(np.uint64)
    return words
