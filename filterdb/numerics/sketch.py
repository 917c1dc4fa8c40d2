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

from filterdb.numerics.compilation import njit, read_only

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BUCKETS = 128
"""Sums of a sketch."""

SEED = 0x66696C7465726462
"""Seed of the hash (ASCII "filterdb"). Sketches of different seeds cannot be compared."""

BITS = 7
"""Bits of a bucket's number."""

HASHED = 9
"""Numbers of buckets that fit into one hash of 64 bits."""

NINE = (0,) * 9
"""The kernel of the loop that is compiled for filters of nine weights (see `blocks`)."""

Kernel = tuple[int, ...] | NDArray[np.float32]

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
def _tally(columns: NDArray[np.float32], kernel: Kernel, start: int, stop: int, first: int, sums: Floats) -> None:
    """Store in `sums` (weights, 256) the sums of the filters from start to stop; the first is number `first`.

    Row j has the sums of weight j: in the first half those of added weights, in the second those of subtracted ones.
    Each nine weights take the bits of two hashes. `kernel` has an element for each weight of a filter (see `blocks`).
    """
    one, bits, mask = np.uint64(1), np.uint64(BITS), np.uint64(BUCKETS - 1)
    hashes = (len(kernel) + HASHED - 1) // HASHED
    sums[:] = 0
    for i in range(start, stop):
        for h in range(hashes):
            number = np.uint64(2 * (hashes * (first + i - start) + h))
            buckets, signs = _hash(number), _hash(number + one)
            for j in range(HASHED * h, min(HASHED * (h + 1), len(kernel))):
                sums[j, (buckets & mask) | ((signs & one) << bits)] += columns[j, i]
                buckets >>= bits
                signs >>= one


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add(
    sketches: Floats, columns: NDArray[np.float32], kernel: Kernel, starts: Ints, stops: Ints, firsts: Ints
) -> None:
    """Add each run of filters as `add` does."""
    sums = np.empty((len(kernel), 2 * BUCKETS))
    for r in range(starts.size):
        for start in range(starts[r], stops[r], FILTERS):
            stop = min(start + FILTERS, stops[r])
            _tally(columns, kernel, start, stop, firsts[r] + start - starts[r], sums)
            for j in range(len(kernel)):
                for b in range(BUCKETS):
                    sketches[r, b] += sums[j, b] - sums[j, BUCKETS + b]


@njit(nogil=True, error_model="numpy")
def add_nine(sketches: Floats, columns: NDArray[np.float32], starts: Ints, stops: Ints, firsts: Ints) -> None:
    """Add filters of nine weights, as `add` does, in a loop in which their number is a constant."""
    _add(sketches, columns, NINE, starts, stops, firsts)


@njit(nogil=True, error_model="numpy")
def add_any(sketches: Floats, columns: NDArray[np.float32], starts: Ints, stops: Ints, firsts: Ints) -> None:
    """Add filters of any number of weights, as `add` does."""
    _add(sketches, columns, columns[:, 0], starts, stops, firsts)


def add(sketches: Floats, columns: NDArray[np.float32], starts: Ints, stops: Ints, firsts: Ints) -> None:
    """Add each run of filters to the sketch of its layer, in place.

    `sketches` (runs, 128) float64; `columns` (weights, n) float32 are filters, cut into runs by `starts` and `stops`
    (runs,) int64; `firsts` (runs,) int64 is the number, in its layer, of a run's first filter.
    """
    (add_nine if len(columns) == len(NINE) else add_any)(sketches, read_only(columns), starts, stops, firsts)


@njit(nogil=True, error_model="numpy")
def add_signs(signs: Floats, columns: NDArray[np.float32], first: int) -> None:
    """Add to `signs` (weights, 128) the sums for filters whose weights, `columns` (weights, n), are all 1."""
    sums = np.empty((columns.shape[0], 2 * BUCKETS))
    _tally(columns, columns[:, 0], 0, columns.shape[1], first, sums)
    for j in range(columns.shape[0]):
        for b in range(BUCKETS):
            signs[j, b] += sums[j, b] - sums[j, BUCKETS + b]


def of_repeated(filters: Floats, sizes: Ints) -> Floats:
    """Return the sketches (layers, 128) of layers in which all filters are equal.

    `filters` (layers, weights) is the filter of each layer, `sizes` (layers,) is how often the layer has it.
    """
    sketches = np.zeros((len(sizes), BUCKETS))
    weights = filters.shape[1]
    signs, done = np.zeros((weights, BUCKETS)), 0  # row j is the sketch of weight j being 1 and all others 0
    ones = np.ones((weights, min(FILTERS, int(sizes.max(initial=1)))), np.float32)
    for size in np.unique(sizes).tolist():
        for start in range(done, size, FILTERS):
            add_signs(signs, ones[:, : min(FILTERS, size - start)], start)
        done, of_size = size, sizes == size
        sketches[of_size] = filters[of_size] @ signs
    return sketches
