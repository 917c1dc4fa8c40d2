"""The formats of model files: how to recognise a file, and which module reads it in the child process.

To add a format, write a package or module with a class that implements `model.ModelFile` and a function
`serve(channel)` that calls `reading.serve` with it, and add a `Format` to `FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 4096
"""Bytes that are read from the start of a file to recognise its format."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of model files."""

    name: str
    suffix: str
    """File name suffix, used to search folders."""
    reader: str
    """Module whose `serve(channel)` reads a file in a child process. The parent process never imports it."""
    head: re.Pattern[bytes] | None = None
    """Pattern of the first bytes; None for a format without magic bytes, which is tried last."""
    max_bytes: int | None = None
    """Largest file size that the format allows."""


ONNX = Format("ONNX", ".onnx", "filterdb.models.onnx.reading", max_bytes=2**31 - 1)
"""ONNX files are protobufs: no magic bytes, and at most 2 GiB. Larger models keep their weights as external data."""

_HDF5 = re.compile(rb"\x89HDF\r\n\x1a\n")

PUBLISHED = Format("the published data set", ".h5", "filterdb.models.published.reading", _HDF5)
"""One HDF5 file with hundreds of models. Its reader has its own requests (see `published.file`)."""

FORMATS: tuple[Format, ...] = (ONNX,)
"""The formats of files with one model each, in the order in which they are tried."""


def format_of(path: Path, formats: Iterable[Format] | None = None) -> Format:
    """Return the format that matches the first bytes of a file, or else the format without magic bytes.

    Raises OSError if the file cannot be read.
    """
    formats = FORMATS if formats is None else tuple(formats)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for candidate in formats:
        if candidate.head is not None and candidate.head.match(head):
            return candidate
    return next(candidate for candidate in formats if candidate.head is None)
