"""Join positions, such as those of models, into connected components."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Components:
    """Join positions into sets (union-find); the root of a set is its smallest position."""

    def __init__(self, number: int) -> None:
        self.parent = list(range(number))

    def root(self, position: int) -> int:
        """Return the smallest position of the set, and shorten the way to it."""
        while self.parent[position] != position:
            self.parent[position] = self.parent[self.parent[position]]
            position = self.parent[position]
        return position

    def join(self, left: int, right: int) -> None:
        """Join the sets of two positions."""
        low, high = sorted((self.root(left), self.root(right)))
        self.parent[high] = low

    def join_pairs(self, pairs: npt.NDArray[np.bool_]) -> None:
        """Join the two positions of each pair that a symmetric matrix (positions, positions) marks."""
        for left, right in zip(*(axis.tolist() for axis in np.nonzero(np.triu(pairs, 1))), strict=True):
            self.join(left, right)

    def share(self, values: Iterable[object]) -> None:
        """Join the positions that have the same value; None equals nothing."""
        first: dict[object, int] = {}
        for position, value in enumerate(values):
            if value is not None:
                self.join(first.setdefault(value, position), position)

    def share_rows(self, position: Ints, values: npt.NDArray[np.str_]) -> None:
        """Join positions (rows,) whose rows have the same text in `values` (rows,); an empty text equals nothing."""
        chosen = np.flatnonzero(values != "")
        order = chosen[np.lexsort((position[chosen], values[chosen]))]
        for before, after in pairwise(order.tolist()):
            if values[before] == values[after]:
                self.join(int(position[before]), int(position[after]))

    def roots(self) -> Ints:
        """Return the root of each position."""
        parent = np.array(self.parent, np.int64)
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                return parent
            parent = above
