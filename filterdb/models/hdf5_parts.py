"""Check parts of an untrusted HDF5 file before HDF5 reads them, so that no other file is opened.

HDF5 follows links to other files, and reads datasets whose values lie in other files. It also allocates whatever size a
dataset declares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAX_CHUNK = 512 * 2**20
"""Most decoded bytes of one chunk, which HDF5 always decodes as a whole."""

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000

_MAX_RATIO = 1032
"""Highest compression ratio of Deflate; LZF's is lower."""


class RefusedPartError(ValueError):
    """A part of a file is not read: what was expected, what it is, and the remedy if there is a special one."""

    def __init__(self, expected: str, got: str, remedy: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what it was made of, so that it comes whole from another process."""
        return type(self), (self.expected, self.got, self.remedy), self.__dict__


@contextmanager
def damage_as_value_error() -> Iterator[None]:
    """Turn what h5py raises for damaged files into ValueError, which every reader of models expects."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ValueError(f"damaged HDF5: {error}") from error


def child(h5: Any, group: Any, name: bytes) -> Any | None:
    """Follow a hard link of a group; None if there is no such link. Raises RefusedPartError for another kind of link.

    `h5` is the module h5py.
    """
    links = group.id.links
    if not links.exists(name):
        return None
    kind = links.get_info(name).type
    if kind != h5.h5l.TYPE_HARD:
        got = {h5.h5l.TYPE_SOFT: "a soft link", h5.h5l.TYPE_EXTERNAL: "an external link"}
        raise RefusedPartError("data in the file itself", got.get(kind, "an odd link"))
    return group[name]


def check_inside(h5: Any, dataset: Any) -> None:
    """Raise RefusedPartError if a dataset has its values in another file.

    Call it before anything else: even asking a virtual dataset for its shape opens the other file.
    """
    plan = dataset.id.get_create_plist()
    if plan.get_layout() == h5.h5d.VIRTUAL:
        raise RefusedPartError("data in the file itself", "a virtual dataset")
    if plan.get_external_count():
        raise RefusedPartError("data in the file itself", "external storage")


def check_stored(h5: Any, dataset: Any, file_size: int, max_chunk: int = MAX_CHUNK) -> None:
    """Raise RefusedPartError if the file cannot hold the dataset's values, or if h5py cannot decode them.

    `check_inside` comes first.
    """
    plan = dataset.id.get_create_plist()
    layout = plan.get_layout()
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    odd = set(filters) - {DEFLATE, SHUFFLE, FLETCHER32, LZF}
    if odd or len(set(filters)) < len(filters) or {DEFLATE, LZF} <= set(filters):
        known = "gzip or lzf, shuffle and fletcher32, each once"
        raise RefusedPartError(known, f"HDF5 filters {filters}", "write it anew with h5repack -f NONE")
    stored = dataset.id.get_storage_size()
    most = stored * _MAX_RATIO if {DEFLATE, LZF} & set(filters) else stored
    if layout == h5.h5d.CONTIGUOUS:
        offset = dataset.id.get_offset()
        most = 0 if offset is None else min(most, file_size - offset)
    if nbytes(dataset, dataset.shape) > (0 if stored > file_size else most) and dataset.dtype.kind != "O":
        declared = f"{nbytes(dataset, dataset.shape):,} bytes as declared"
        raise RefusedPartError(declared, f"a file that stores {stored:,} of it")
    if layout == h5.h5d.CHUNKED and nbytes(dataset, dataset.chunks) > max_chunk:
        limit = f"chunks of at most {max_chunk:,} bytes"
        raise RefusedPartError(limit, f"chunks of {dataset.chunks}", "write it anew with h5repack")


def nbytes(dataset: Any, shape: tuple[int, ...]) -> int:
    """Return the bytes of this many decoded values of a dataset."""
    return math.prod(shape) * int(dataset.id.get_type().get_size())
