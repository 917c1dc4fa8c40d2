"""Keep the filters of scanned models in memory until they are written, so that their files are read only once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_BYTES = 2**30
"""Most bytes that an ingest keeps. Models beyond that are read again when they are written."""


_SLAB = 2**25
"""Bytes that are allocated at a time: NumPy asks for huge pages, which take a fraction of the time."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Spool:
    """Filters of models, by model and layer, within `room` bytes.

    It belongs to the process of the ingest: a copy that is sent to another process is empty and keeps nothing.
    """

    room: int = MAX_BYTES
    _layers: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)
    _slab: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8), repr=False)
    """What is left of the slab from which arrays are cut."""
    _freed: list[int] = field(default_factory=list, repr=False)
    """Sizes of freed slabs. They are not added at once, since Python may free one while the lock is held."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what an empty spool is made of."""
        return Spool, (0,)

    def reserve(self, filters: int, weights: int) -> np.ndarray | None:
        """Return an array for so many filters, (filters, weights) float32, or None if there is no room for them.

        Arrays are cut from slabs. The bytes of a slab are free again once nothing refers to its arrays.
        """
        nbytes = filters * weights * 4
        with self._lock:
            if len(self._slab) < nbytes:
                self._slab = np.empty(0, np.uint8)  # so that its slab is freed, if nothing else refers to it
                self._collect()
                size = max(nbytes, min(_SLAB, self.room))
                if size > self.room:
                    return None
                try:
                    self._slab = np.empty(size, np.uint8)
                except MemoryError:
                    return None
                self.room -= size
                weakref.finalize(self._slab, self._freed.append, size).atexit = False
            rows, self._slab = self._slab[:nbytes], self._slab[nbytes:]
        return rows.view(np.float32).reshape(filters, weights)

    def _collect(self) -> None:
        """Add the bytes of freed slabs to the room."""
        while self._freed:
            self.room += self._freed.pop()

    def keep(self, model: str, names: Sequence[str], layers: Sequence[np.ndarray]) -> None:
        """Keep all layers of a model until `drop`."""
        self._layers[model] = dict(zip(names, layers, strict=True))

    def layers(self, model: str) -> dict[str, np.ndarray] | None:
        """Return the layers of a model by name; None if they are not kept."""
        return self._layers.get(model)

    def drop(self, models: Iterable[str]) -> None:
        """Keep nothing of these models any more."""
        for model in models:
            self._layers.pop(model, None)
