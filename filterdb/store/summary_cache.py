"""Keep summaries in memory up to a number of bytes, and drop the least recently used first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any

from filterdb.store.summary import Arrays, Key

Place = tuple[str, Key]
"""A segment's id and the key of a summary of it."""

CACHE_BYTES = 512 * 2**20
"""Default limit: more than four times the histograms of the published data set (21,436 layers, 108 MB)."""


class SummaryCache:
    """A mapping from places to arrays that holds at most `limit` bytes, or only the newest entry if that is larger.

    A dropped summary is read or computed again when needed. A caller that needs several summaries at once must keep
    its own references, because storing one may drop another.
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
        """Return the arrays of a place; None if they are not in the cache."""
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
        """Bytes of all arrays in the cache."""
        return self._bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return SummaryCache, (self.limit, list(self._entries.items()))


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
