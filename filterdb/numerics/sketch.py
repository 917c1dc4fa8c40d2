"""Sketch the weights of a layer: 128 sums whose distances and cosines estimate those of the weights.

This is the count-sketch of Charikar, Chen and Farach-Colton (2002). Each weight, by its position in the layer, is added
to one of 128 sums with a sign; both come from a hash of the position. A sketch is linear in the weights, so parts of a
layer add up, and ‖S − S′‖² is an unbiased estimate of ‖W − W′‖² with a relative standard deviation of √(2/128), 12.5 %
(6 % of the distance itself). The cosine of two unrelated layers has a standard deviation of about √(1/128), 0.09.

Sums are in float64, in the order of the filters, and may not be reassociated, so that all kinds of CPU compute the same
bytes. The compiled functions here call none of `compiled.py`, since Numba's cache does not notice a change in another
module.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.compilation import njit
from filterdb.schema import WEIGHTS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BUCKETS = 128
"""Sums of a sketch."""

SEED = 0x66696C7465726462
"""Seed of the hash (ASCII "filterdb"). Sketches of different seeds cannot be compared."""

BITS = 7
"""Bits of a bucket's number; nine of them fit into one hash of 64 bits."""

FILTERS = 65_536
"""Filters that are summed before they are added to the sketch. Another number changes the last digits of sketches."""


@njit(nogil=True, error_model="numpy", forceinline=True)
def _hash(number: np.uint64) -> np.uint64:
    """Return SplitMix64 of a number (Steele, Lea, Flood 2014)."""
    mixed = (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@njit(nogil=True, error_model="numpy", forceinline=True)
def _tally(columns: NDArray[np.float32], start: int, stop: int, first: int, sums: Floats) -> None:
    """Store in `sums` (9, 256) the sums of the filters from start to stop; the first is number `first` of its layer.

    Row j has the sums of weight j: in the first half those of added weights, in the second those of subtracted ones.
    """
    one, bits, mask = np.uint64(1), np.uint64(BITS), np.uint64(BUCKETS - 1)
    sums[:] = 0
    for i in range(start, stop):
        number = np.uint64(2 * (first + i - start))
        buckets, signs = _hash(number), _hash(number + one)
        for j in range(WEIGHTS):
            sums[j, (buckets & mask) | ((signs & one) << bits)] += columns[j, i]
            buckets >>= bits
            signs >>= one


@njit(nogil=True, error_model="numpy")
def add(sketches: Floats, columns: NDArray[np.float32], starts: Ints, stops: Ints, firsts: Ints) -> None:
    """Add each run of filters to the sketch of its layer, in place.

    `sketches` (runs, 128) float64; `columns` (9, n) float32 are filters, cut into runs by `starts` and `stops` (runs,)
    int64; `firsts` (runs,) int64 is the number, in its layer, of a run's first filter.
    """
    sums = np.empty((WEIGHTS, 2 * BUCKETS))
    for r in range(starts.size):
        for start in range(starts[r], stops[r], FILTERS):
            stop = min(start + FILTERS, stops[r])
            _tally(columns, start, stop, firsts[r] + start - starts[r], sums)
            for j in range(WEIGHTS):
                for b in range(BUCKETS):
                    sketches[r, b] += sums[j, b] - sums[j, BUCKETS + b]


@njit(nogil=True, error_model="numpy")
def add_signs(signs: Floats, columns: NDArray[np.float32], first: int) -> None:
    """Add to `signs` (9, 128) the sums for filters whose weights, `columns` (9, n), are all 1."""
    sums = np.empty((WEIGHTS, 2 * BUCKETS))
    _tally(columns, 0, columns.shape[1], first, sums)
    for j in range(WEIGHTS):
        for b in range(BUCKETS):
            signs[j, b] += sums[j, b] - sums[j, BUCKETS + b]


def of_repeated(filters: Floats, sizes: Ints) -> Floats:
    """Return the sketches (layers, 128) of layers in which all filters are equal.

    `filters` (layers, 9) is the filter of each layer, `sizes` (layers,) is how often the layer has it.
    """
    sketches = np.zeros((len(sizes), BUCKETS))
    signs, done = np.zeros((WEIGHTS, BUCKETS)), 0  # row j is the sketch of weight j being 1 and all others 0
    ones = np.ones((WEIGHTS, min(FILTERS, int(sizes.max(initial=1)))), np.float32)
    for size in np.unique(sizes).tolist():
        for start in range(done, size, FILTERS):
            add_signs(signs, ones[:, : min(FILTERS, size - start)], start)
        done, of_size = size, sizes == size
        sketches[of_size] = filters[of_size] @ signs
    return sketches
