"""The formats of model files: how a file is recognised, and which module reads it in the child process.

To add a format, write a package or module with a class that implements `model.ModelFile` and a function
`serve(channel)` that calls `reading.serve` with it, and add a `Format` to `FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 4096
"""Bytes at the start of a file that a format is recognised by."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of model files."""

    name: str
    suffix: str
    """The suffix by which files of the format are searched for below a folder."""
    reader: str
    """The module whose `serve(channel)` reads such a file in a child process. It is never imported by the parent."""
    head: re.Pattern[bytes] | None = None
    """What the first bytes match; None for a format without magic bytes, which is tried last."""
    max_bytes: int | None = None
    """The largest file that the format allows."""


ONNX = Format("ONNX", ".onnx", "filterdb.models.onnx.reading", max_bytes=2**31 - 1)
"""A protobuf, which has no magic bytes and at most 2 GiB: larger models keep their weights as external data."""

_HDF5 = re.compile(rb"\x89HDF\r\n\x1a\n")

PUBLISHED = Format("the published data set", ".h5", "filterdb.models.published.reading", _HDF5)
"""Hundreds of models in one HDF5 file: its reader has requests of its own (`published.file`), and is asked by name."""

FORMATS: tuple[Format, ...] = (ONNX,)
"""The formats of files that hold one model each, in the order in which they are tried."""


def format_of(path: Path, formats: Iterable[Format] | None = None) -> Format:
    """Return the format of a file by its first bytes, else the format that has no magic bytes.

    Raises OSError where the file cannot be read.
    """
    formats = FORMATS if formats is None else tuple(formats)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for candidate in formats:
        if candidate.head is not None and candidate.head.match(head):
            return candidate
    return next(candidate for candidate in formats if candidate.head is None)
