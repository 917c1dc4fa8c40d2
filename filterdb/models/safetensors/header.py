"""List the tensors of a safetensors file from its header, and read them.

A file is the header's length (8 bytes, little-endian), the header as JSON, and the tensors' bytes without gaps. Every
offset is checked against the file's size and the tensor's shape before anything is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from filterdb.errors import ModelError
from filterdb.models.data_files import read_exactly
from filterdb.models.parse_errors import MAX_NAME, NotStoredError, shortened, without_repeats
from filterdb.models.tensors import Open, Tensor

MAX_HEADER = 100_000_000
"""Most bytes of a header, as in the safetensors library."""

MAX_RANK = 64

METADATA = "__metadata__"

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "BOOL": np.dtype(np.bool_),
    "C64": np.dtype("<c8"),
    **{f"{sign.upper()}{8 * size}": np.dtype(f"<{sign}{size}") for sign in "iu" for size in (1, 2, 4, 8)},
}
"""The types by their names in a header."""


class Entry(NamedTuple):
    """What a header says of a tensor; the bytes are [first, last) behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


def list_tensors(opening: Open, size: int, where: str) -> list[Tensor]:
    """Return the tensors of a file of `size` bytes, in the header's order. Raises ModelError if it is damaged.

    `where` names the file in messages.
    """
    with opening() as file:
        if size < 8:
            raise _damaged(where, "at least 8 bytes", f"{size}")
        length = int.from_bytes(read_exactly(file, 0, 8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise _damaged(where, f"a header of 2 to {min(MAX_HEADER, size - 8):,} bytes", f"{length:,}")
        text = read_exactly(file, 8, length)
    start = 8 + length
    entries = _entries(text, where)
    _check_layout(entries, size - start, where)
    return [_tensor(entry, opening, start) for entry in entries]


def _entries(text: bytes, where: str) -> list[Entry]:
    try:
        header = json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise _damaged(where, "a JSON header", shortened(" ".join(str(error).split()), 100)) from error
    if not isinstance(header, dict):
        raise _damaged(where, "a JSON object as its header", type(header).__name__)
    header.pop(METADATA, None)
    return [_entry(name, value, where) for name, value in header.items()]


def _entry(name: str, value: Any, where: str) -> Entry:
    shown = repr(shortened(name, 100))
    if len(name) > MAX_NAME or not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(where, "a dtype, a shape and data_offsets for each tensor", f"others for {shown}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or not _are_counts(shape) or len(shape) > MAX_RANK:
        raise _damaged(where, "a type and a shape of whole numbers", f"others for {shown}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(where, "two offsets, the second not below the first", f"others for {shown}")
    known = DTYPES.get(dtype)
    if known is not None and offsets[1] - offsets[0] != math.prod(shape) * known.itemsize:
        stated = f"{offsets[1] - offsets[0]:,} bytes for {shown}, {dtype} of shape {shape}"
        raise _damaged(where, f"{math.prod(shape) * known.itemsize:,} bytes", stated)
    return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_layout(entries: Sequence[Entry], size: int, where: str) -> None:
    """Raise ModelError unless the tensors fill the file without overlaps and gaps, as the format requires."""
    spans = sorted((entry.first, entry.last) for entry in entries)
    end = max((last for _, last in spans), default=0)
    if end > size:
        raise _damaged(where, f"{end:,} bytes of tensors as its header says", f"{size:,}: it is cut off")
    for (_, end), (start, _) in pairwise([(0, 0), *spans, (size, size)]):
        if start != end:
            what = "tensors that overlap" if start < end else f"{start - end:,} bytes that no tensor has"
            raise _damaged(where, f"tensors that fill {size:,} bytes without gaps", what)


def _tensor(entry: Entry, opening: Open, start: int) -> Tensor:
    known = DTYPES.get(entry.dtype)
    name = entry.dtype if known is None else known.name
    return Tensor(entry.name, entry.shape, name, partial(_read, entry, opening, start), (id(opening), entry.first))


def _read(entry: Entry, opening: Open, start: int) -> np.ndarray:
    """Read the values of a tensor. Raises NotStoredError for a type that is not known."""
    known = DTYPES.get(entry.dtype)
    if known is None:
        raise NotStoredError("dtype", f"the tensor has dtype {shortened(entry.dtype, 20)}, which is not read")
    with opening() as file:
        data = read_exactly(file, start + entry.first, entry.last - entry.first)
    return np.frombuffer(data, known).reshape(entry.shape)


def _damaged(where: str, expected: str, got: str) -> ModelError:
    return ModelError(f"{where}: not a safetensors file: expected {expected}, got {got}; download or save it again")
