"""Read a file of which only parts are on this machine: ask the parent process for the others.

This module runs in the child process, which has no network. The file has its full size, with holes where parts are
missing. Before a read, `require` makes sure that the part is there. Before weights are read, `fetch_weights` finds out
all the parts that they take, so that the parent can fetch them together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from filterdb.models.model import Layer
from filterdb.models.parse_errors import PARSE_ERRORS, NotStoredError
from filterdb.models.sandbox import Channel
from filterdb.ranges import Ranges

SMALL = 4096
"""Bytes up to which a part is read while planning, because it may say where another part is."""

READ_AHEAD = 65_536
"""Fewest bytes that are fetched when a part is read that was not planned."""

MAX_ROUNDS = 4
"""Most times that weights are planned. After that, parts are fetched one by one as they are read."""


class MissingPartError(Exception):
    """While planning, a weight would be read. No parser's `except` clause catches this."""


@dataclass
class _File:
    name: str
    size: int
    present: Ranges


@dataclass
class Parts:
    """The files of which only parts are present, by device and inode, and the parts that are wanted while planning."""

    channel: Channel
    folder: Path
    files: dict[tuple[int, int], _File] = field(default_factory=dict)
    wanted: dict[str, list[list[int]]] | None = None

    def add(self, table: dict[str, Any]) -> None:
        """Add files below the folder, or further parts of files: name → ranges that are present."""
        for name, ranges in table.items():
            status = (self.folder / name).stat()
            key = status.st_dev, status.st_ino
            if key not in self.files:
                self.files[key] = _File(name, status.st_size, Ranges())
            for start, stop in ranges:
                self.files[key].present.add(start, stop)

    def require(self, handle: int, offset: int, length: int) -> None:
        """Make sure that a part is present. While planning, raise MissingPartError instead of fetching it."""
        status = os.fstat(handle)
        file = self.files.get((status.st_dev, status.st_ino))
        if file is None:
            raise ValueError("the file was replaced while it was read")
        missing = file.present.missing(offset, min(offset + length, file.size))
        if self.wanted is not None:
            if missing:
                self.wanted.setdefault(file.name, []).extend([start, stop] for start, stop in missing)
            if missing or length > SMALL:
                raise MissingPartError
        elif missing:
            # What is behind it is often read next, as in a pickle.
            until = min(missing[-1][0] + READ_AHEAD, file.size)
            self.fetch({file.name: [*map(list, missing), [missing[-1][0], max(until, missing[-1][1])]]})

    def fetch(self, wanted: dict[str, list[list[int]]]) -> None:
        """Ask the parent process for parts, and wait until they are present."""
        self.channel.send({"missing": wanted})
        self.add(self.channel.receive()["parts"])


_parts: Parts | None = None


def begin(channel: Channel, folder: Path, table: dict[str, Any]) -> None:
    """Start to read a file in `folder`. `table`: the files of which only parts are present, and which."""
    global _parts  # noqa: PLW0603 - a child process reads one file, through handles that readers open themselves
    _parts = Parts(channel, folder)
    _parts.add(table)


def add(table: dict[str, Any]) -> None:
    """Add files of which only parts are present, such as shards, once they are known."""
    if _parts is not None:
        _parts.add(table)


def require(file: BinaryIO, offset: int, length: int) -> None:
    """Make sure that a part of an open file is present."""
    if _parts is not None and _parts.files:
        _parts.require(file.fileno(), offset, length)


def fetch_weights(layers: Iterable[Layer]) -> None:
    """Fetch all parts that reading these weights takes, together: try to read each, and note what is missing."""
    if _parts is None or not _parts.files:
        return
    layers = list(layers)
    for _ in range(MAX_ROUNDS):
        wanted: dict[str, list[list[int]]] = {}
        _parts.wanted = wanted
        for layer in layers:
            try:
                layer.weight()
            except (MissingPartError, NotStoredError, *PARSE_ERRORS):
                continue
        _parts.wanted = None
        if not wanted:
            return
        _parts.fetch(wanted)
