"""Summaries in memory, up to a number of bytes: the least recently used ones are dropped first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any

from filterdb.store.summary import Arrays, Key

Place = tuple[str, Key]
"""A segment's id and the key of a summary of it."""

CACHE_BYTES = 512 * 2**20
"""Enough for four times the histograms of the published data set (21,436 layers, 108 MB)."""


class SummaryCache:
    """A mapping from places to arrays that holds at most `limit` bytes, or the newest entry alone if it is larger.

    What is dropped is read or computed again when it is needed. A caller that needs several summaries at once keeps
    its own references: storing one may drop another.
    """

    def __init__(self, limit: int = CACHE_BYTES, entries: Iterable[tuple[Place, Arrays]] = ()) -> None:
        self.limit = limit
        self._entries: OrderedDict[Place, Arrays] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        for place, arrays in entries:
            self[place] = arrays

    def __contains__(self, place: object) -> bool:
        return place in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, place: Place) -> Arrays:
        with self._lock:
            self._entries.move_to_end(place)
            return self._entries[place]

    def get(self, place: Place) -> Arrays | None:
        """Return the arrays of a place; None where it has none, or none any more."""
        with self._lock:
            if place in self._entries:
                self._entries.move_to_end(place)
            return self._entries.get(place)

    def clear(self) -> None:
        """Drop all entries."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def __setitem__(self, place: Place, arrays: Arrays) -> None:
        with self._lock:
            self._bytes += _size(arrays) - _size(self._entries.pop(place, {}))
            self._entries[place] = arrays
            while self._bytes > self.limit and len(self._entries) > 1:
                self._bytes -= _size(self._entries.popitem(last=False)[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays that it holds."""
        return self._bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return SummaryCache, (self.limit, list(self._entries.items()))


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
