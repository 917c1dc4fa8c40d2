"""Find the distinct pairs among rows of two columns of numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Pairs(NamedTuple):
    """Hold distinct pairs in ascending order, (pairs,) each, and the position of each row's pair, (rows,)."""

    first: Ints
    second: Ints
    of_row: Ints


def distinct_pairs(first: Ints, second: Ints) -> Pairs:
    """Return the distinct pairs of two columns of numbers of at least 0, (rows,).

    `np.unique` of both columns along an axis returns the same, but compares rows as bytes, which takes ten times as
    long.
    """
    base = int(second.max(initial=0)) + 1
    codes, of_row = np.unique(np.asarray(first, np.int64) * base + second, return_inverse=True)
    return Pairs(codes // base, codes % base, of_row.reshape(-1))
