"""Keep the filters of scanned models in memory until they are written, so that their files are read only once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from filterdb.schema import WEIGHTS

MAX_BYTES = 2**30
"""Most bytes that an ingest keeps. Models beyond that are read again when they are written."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Spool:
    """Filters of models, by model and layer, within `room` bytes.

    It belongs to the process of the ingest: a copy that is sent to another process is empty and keeps nothing.
    """

    room: int = MAX_BYTES
    _layers: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what an empty spool is made of."""
        return Spool, (0,)

    def reserve(self, filters: int) -> np.ndarray | None:
        """Return an array for so many filters, (n, 9) float32, or None if there is no room for them.

        Its bytes are free again once nothing refers to the array.
        """
        nbytes = filters * WEIGHTS * 4
        with self._lock:
            if nbytes > self.room:
                return None
            self.room -= nbytes
        try:
            rows = np.empty((filters, WEIGHTS), np.float32)
        except MemoryError:
            self._release(nbytes)
            return None
        weakref.finalize(rows, self._release, nbytes).atexit = False
        return rows

    def _release(self, nbytes: int) -> None:
        with self._lock:
            self.room += nbytes

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
