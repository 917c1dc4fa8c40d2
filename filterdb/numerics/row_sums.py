"""Add chosen rows of a matrix: the compiled loop behind permutations of models between groups.

A permutation takes some of the rows. Where a few rows are added, one loop over them is much faster than a product with
a matrix of zeros and ones. Sums of whole numbers are exact in any order, so that both have the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.compilation import njit

EXACT = {"f": 2**24, "d": 2**53}
"""Whole numbers below which all sums are exact, by dtype."""


@njit(nogil=True, error_model="numpy")
def add_rows(
    sums: NDArray[np.floating], states: NDArray[np.floating], rows: NDArray[np.int64], bounds: NDArray[np.int64]
) -> None:
    """Store in `sums` (sets, columns) the sum of the rows of each set.

    `rows` are positions in `states` (n, columns), one set after the other; `bounds` (sets + 1,) are the ends of sets.
    """
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            sums[i, j] = 0
        for k in range(bounds[i], bounds[i + 1]):
            row = rows[k]
            for j in range(sums.shape[1]):
                sums[i, j] += states[row, j]


def is_exact(states: NDArray[np.floating]) -> bool:
    """Return whether the sums of any rows of `states` (n, columns) are exact in its dtype, in any order."""
    if not np.array_equal(states, np.rint(states)):
        return False
    return bool((np.abs(states).sum(axis=0, dtype=np.float64) < EXACT[states.dtype.char]).all())
