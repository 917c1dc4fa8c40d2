"""Sketch the weights of a layer: 128 sums whose distances and cosines estimate those of the weights.

This is the count-sketch of Charikar, Chen and Farach-Colton (2002). Each weight, by its position in the layer, is added
to one of 128 sums with a sign; both come from a hash of the position. A sketch is linear in the weights, so parts of a
layer add up, and ‖S − S′‖² is an unbiased estimate of ‖W − W′‖² with a relative standard deviation of √(2/128), 12.5 %
(6 % of the distance itself). The cosine of two unrelated layers has a standard deviation of about √(1/128), 0.09.

Sums are NumPy's, in the order of the filters, so that all kinds of CPU compute the same bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from filterdb.schema import WEIGHTS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BUCKETS = 128
"""Sums of a sketch."""

SEED = 0x66696C7465726462
"""Seed of the hash (ASCII "filterdb"). Sketches of different seeds cannot be compared."""

_BITS = 7
"""Bits of a bucket's number; nine of them fit into one hash of 64 bits."""

_FILTERS = 65_536
"""Filters that are hashed at a time."""


def add(sketch: Floats, columns: NDArray[np.float32], first: int) -> None:
    """Add filters to the sketch (128,) of their layer, in place.

    `columns` (9, n) are consecutive filters; the first of them is number `first` of its layer.
    """
    for start in range(0, columns.shape[1], _FILTERS):
        part = columns[:, start : start + _FILTERS]
        for weights, codes in zip(part, _codes(first + start, part.shape[1]), strict=True):
            sketch += _signed(np.bincount(codes, weights, 2 * BUCKETS))


def of_repeated(filters: Floats, sizes: Ints) -> Floats:
    """Return the sketches (layers, 128) of layers in which all filters are equal.

    `filters` (layers, 9) is the filter of each layer, `sizes` (layers,) is how often the layer has it.
    """
    sketches = np.zeros((len(sizes), BUCKETS))
    ones, done = np.zeros((WEIGHTS, BUCKETS), np.int64), 0  # of weight j being 1 and all others 0
    for size in np.unique(sizes).tolist():
        for start in range(done, size, _FILTERS):
            for j, codes in enumerate(_codes(start, min(_FILTERS, size - start))):
                ones[j] += _signed(np.bincount(codes, minlength=2 * BUCKETS))
        done, of_size = size, sizes == size
        sketches[of_size] = filters[of_size] @ ones
    return sketches


def _codes(first: int, count: int) -> list[Ints]:
    """Return the code of each weight of consecutive filters, nine arrays (count,): its bucket, + 128 if subtracted."""
    number = np.arange(first, first + count, dtype=np.uint64)
    buckets, signs = _hash(2 * number), _hash(2 * number + np.uint64(1))
    mask = np.uint64(BUCKETS - 1)
    return [
        (
            ((buckets >> np.uint64(_BITS * j)) & mask) | (((signs >> np.uint64(j)) & np.uint64(1)) << np.uint64(_BITS))
        ).astype(np.int64)
        for j in range(WEIGHTS)
    ]


def _hash(number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64 of each number (Steele, Lea, Flood 2014)."""
    mixed = (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _signed[T: (np.int64, np.float64)](sums: NDArray[T]) -> NDArray[T]:
    """Return the sums of added weights minus those of subtracted weights, (128,)."""
    return sums[:BUCKETS] - sums[BUCKETS:]
