"""Keep a remote file on this machine of which only some parts are present. The rest of the local file are holes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from filterdb.ranges import Range, Ranges
from filterdb.store import ranged
from filterdb.store.ranged import Source


@dataclass
class PartialFile:
    """A local file of the size of the remote one, and the ranges that are present."""

    path: Path
    source: Source
    present: Ranges = field(default_factory=Ranges)

    @classmethod
    def create(cls, path: Path, source: Source) -> PartialFile:
        """Create the local file with the first bytes, which are known already."""
        with path.open("wb") as file:
            file.truncate(source.size)
        partial = cls(path, source)
        partial._write({0: source.head})
        return partial

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        return self.source.size

    @property
    def is_whole(self) -> bool:
        """Whether all parts are present."""
        return not self.present.missing(0, self.size)

    def fetch(self, ranges: Iterable[Range]) -> list[Range]:
        """Fetch what is missing of the ranges, and return what was fetched, which may be more.

        Raises ChangedError if the remote file has another version now, StoreError if it cannot be read.
        """
        missing = [gap for start, stop in ranges for gap in self.present.missing(start, min(stop, self.size))]
        if not missing:
            return []
        handle = os.open(self.path, os.O_WRONLY)
        try:
            return ranged.read_parts(self.source, missing, lambda start, data: self._keep(handle, start, data))
        finally:
            os.close(handle)

    def _write(self, parts: dict[int, bytes]) -> None:
        handle = os.open(self.path, os.O_WRONLY)
        try:
            for start, data in parts.items():
                self._keep(handle, start, data)
        finally:
            os.close(handle)

    def _keep(self, handle: int, start: int, data: bytes) -> None:
        """Write a part, and note that it is present."""
        view = memoryview(data)
        position = start
        while view:
            written = os.pwrite(handle, view, position)
            view, position = view[written:], position + written
        self.present.add(start, start + len(data))
