"""Sets of byte ranges [start, stop) of a file: which are present, which are missing, which to fetch together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]
"""The bytes from the first number up to, not including, the second."""


class Ranges:
    """A set of bytes of a file, as disjoint ranges in ascending order.

    Examples
    --------
    >>> present = Ranges([(0, 10), (10, 20), (40, 50)])
    >>> list(present)
    [(0, 20), (40, 50)]
    >>> present.missing(15, 45)
    [(20, 40)]
    """

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._stops, strict=True)

    def add(self, start: int, stop: int) -> None:
        """Add a range, and join it with those that it touches."""
        if start >= stop:
            return
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last], self._stops[first:last] = [start], [stop]

    def missing(self, start: int, stop: int) -> list[Range]:
        """Return the parts of a range that are not in the set."""
        gaps = []
        for position in range(bisect_right(self._stops, start), len(self._starts)):
            if start >= stop or self._starts[position] >= stop:
                break
            if start < self._starts[position]:
                gaps.append((start, self._starts[position]))
            start = self._stops[position]
        return [*gaps, (start, stop)] if start < stop else gaps

    @property
    def bytes(self) -> int:
        """Number of bytes in the set."""
        return sum(self._stops) - sum(self._starts)


def merged(ranges: Iterable[Range], gap: int) -> list[Range]:
    """Return the ranges in ascending order, those joined whose distance is at most `gap`.

    Examples
    --------
    >>> merged([(30, 40), (0, 10), (12, 20)], gap=2)
    [(0, 20), (30, 40)]
    """
    joined: list[Range] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def pieces(ranges: Iterable[Range], size: int) -> list[Range]:
    """Cut ranges into pieces of at most `size` bytes."""
    return [(first, min(first + size, stop)) for start, stop in ranges for first in range(start, stop, size)]
