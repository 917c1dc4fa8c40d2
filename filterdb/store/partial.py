"""Keep a remote file on this machine of which only some parts are present. The rest of the local file are holes.

Beside the file lies a journal: a line of JSON that says what the file is (`Source.identity`), then a line for each part
that is present, with its CRC32C. A part is written before its line. So a run that was killed resumes, and a part that
the machine lost when it went down is noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crc32c

from filterdb.ranges import Range, Ranges
from filterdb.store import ranged
from filterdb.store.ranged import ChangedError, Source, changed

_BLOCK = 2**20
"""Bytes that are read at a time to check a part."""


@dataclass
class PartialFile:
    """A local file of the size of the remote one, and the ranges that are present."""

    path: Path
    journal: Path
    source: Source
    inode: int
    make_room: Callable[[int], None] = field(repr=False)
    """Called with the bytes that are to be fetched."""
    present: Ranges = field(default_factory=Ranges)

    @classmethod
    def open(cls, path: Path, journal: Path, source: Source, make_room: Callable[[int], None]) -> PartialFile:
        """Open the local file, as far as it is present, or create it. One process at a time may do so.

        Raises ChangedError if the local file is of another version, which is removed: others may be reading it.
        """
        if read_identity(journal) == source.identity and path.exists() and path.stat().st_size == source.size:
            partial = cls(path, journal, source, path.stat().st_ino, make_room)
            partial._resume()
            return partial
        if journal.exists():
            journal.unlink()
        path.unlink(missing_ok=True)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.truncate(source.size)
        journal.write_text(f"{json.dumps(source.identity)}\n")
        partial = cls(path, journal, source, path.stat().st_ino, make_room)
        partial._writing(lambda keep: keep(0, source.head))
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
        missing = [gap for start, stop in ranges for gap in self.present.missing(max(0, start), min(stop, self.size))]
        if not missing:
            return []
        self.make_room(sum(stop - start for start, stop in missing))
        fetched: list[Range] = []
        try:
            self._writing(lambda keep: fetched.extend(ranged.read_parts(self.source, missing, keep)))
        except ChangedError:
            self.journal.unlink(missing_ok=True)  # so that the next attempt begins with the new version
            raise
        return fetched

    def _writing(self, work: Callable[[Callable[[int, bytes], None]], None]) -> None:
        """Run `work` with a function that keeps a part: it writes the part and notes that it is present."""
        handle = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        journal = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            if os.fstat(handle).st_ino != self.inode:
                raise changed(self.source.url)

            def keep(start: int, data: bytes) -> None:
                _write(handle, start, data)
                os.write(journal, f"{start} {start + len(data)} {crc32c.crc32c(data)}\n".encode())
                self.present.add(start, start + len(data))

            work(keep)
        finally:
            os.close(handle)
            os.close(journal)

    def _resume(self) -> None:
        """Read from the journal which parts are present, as far as their bytes are what they were."""
        lines = self.journal.read_text("utf-8", "replace").split("\n")[1:-1]
        with self.path.open("rb") as file:
            for line in lines:
                with suppress(ValueError):
                    start, stop, checksum = map(int, line.split())
                    if 0 <= start < stop <= self.size and _checksum(file, start, stop) == checksum:
                        self.present.add(start, stop)


def _write(handle: int, position: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, position)
        view, position = view[written:], position + written


def _checksum(file: Any, start: int, stop: int) -> int:
    checksum = 0
    file.seek(start)
    while start < stop:
        data = file.read(min(_BLOCK, stop - start))
        if not data:
            return -1
        checksum = crc32c.crc32c(data, checksum)
        start += len(data)
    return checksum


def read_identity(journal: Path) -> dict[str, Any]:
    """Return what a journal says of its file; {} if there is none."""
    try:
        with journal.open("rb") as file:
            identity = json.loads(file.readline(100_000))
    except (OSError, ValueError):
        return {}
    return identity if isinstance(identity, dict) else {}
