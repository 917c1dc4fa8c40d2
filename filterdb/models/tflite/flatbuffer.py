"""Read a FlatBuffer from an untrusted file: every offset, length and string is checked before it is used.

The `flatbuffers` library trusts what it reads, and its generated code follows any offset. Only its number types are
used here. What is read is counted as well: offsets may lead to the same table a million times.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flatbuffers import number_types

from filterdb.errors import ModelError

MAX_TABLES = 200_000
"""Most tables that are read of a file. Reading one takes 15 µs; a model with 1,000 convolutions has some 10,000."""

MAX_INTEGERS = 5_000_000
"""Most numbers of vectors that become Python integers: shapes, and the inputs and outputs of operators."""

MAX_BYTES = 2**31 - 1
"""Most bytes of a FlatBuffer. Offsets are signed 32-bit integers; a larger file has its weights behind the end."""

UINT8 = number_types.Uint8Flags
INT8 = number_types.Int8Flags
UINT16 = number_types.Uint16Flags
INT32 = number_types.Int32Flags
UINT32 = number_types.Uint32Flags
UINT64 = number_types.Uint64Flags


class FlatBufferError(ValueError):
    """An offset or a length leads out of the file, or a table is invalid."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of the file: from `start` on, `length` of them."""

    start: int
    length: int


@dataclass(slots=True)
class FlatBuffer:
    """The bytes of a file, and how much more may be read of them. `path` is for messages."""

    data: mmap.mmap | bytes
    path: Path
    size: int = field(init=False)
    _tables_left: int = field(default=MAX_TABLES, repr=False)
    _integers_left: int = field(default=MAX_INTEGERS, repr=False)

    def __post_init__(self) -> None:
        self.size = len(self.data)

    def root(self) -> Table:
        """Return the root table."""
        return self.table(self.offset(0))

    def number(self, position: int, kind: Any) -> int:
        """Return the number of a type (`number_types`) at a position."""
        if not 0 <= position <= self.size - kind.bytewidth:
            self.require(position, kind.bytewidth)
        number: int = kind.packer_type.unpack_from(self.data, position)[0]
        return number

    def offset(self, position: int) -> int:
        """Return the position that the offset at `position` leads to."""
        return position + self.number(position, UINT32)

    def require(self, position: int, length: int) -> None:
        """Raise FlatBufferError unless `length` bytes from `position` on are inside the file."""
        if not 0 <= position <= position + length <= self.size:
            raise FlatBufferError(f"{length:,} bytes at {position:,} are outside the file's {self.size:,} bytes")

    def table(self, position: int) -> Table:
        """Return the table at a position, after checking its list of fields."""
        self._tables_left -= 1
        if self._tables_left < 0:
            raise ModelError(f"{self.path}: expected at most {MAX_TABLES:,} tables and operators, got more")
        fields = position - self.number(position, INT32)
        length = self.number(fields, UINT16)
        if length < 4 or length % 2:
            raise FlatBufferError(f"the table at {position:,} has a list of fields of {length} bytes")
        self.require(fields, length)
        size = self.number(fields + 2, UINT16)
        if size < 4:
            raise FlatBufferError(f"the table at {position:,} has {size} bytes")
        self.require(position, size)
        return Table(self, position, size, fields, length)

    def count(self, integers: int) -> None:
        """Count numbers that become Python integers. Raises ModelError if there are too many."""
        self._integers_left -= integers
        if self._integers_left < 0:
            raise ModelError(f"{self.path}: expected at most {MAX_INTEGERS:,} inputs, outputs and sizes, got more")


@dataclass(frozen=True, slots=True)
class Table:
    """A table: `size` bytes at `position`, whose list of fields has `length` bytes at `fields`."""

    buffer: FlatBuffer = field(repr=False)
    position: int
    size: int
    fields: int
    length: int

    def _place(self, index: int, width: int) -> int | None:
        """Return the position of a field of `width` bytes by its number in the schema; None if it is missing."""
        entry = 4 + 2 * index
        if entry + 2 > self.length:
            return None
        inside = self.buffer.number(self.fields + entry, UINT16)
        if not inside:
            return None
        if not 4 <= inside <= self.size - width:
            raise FlatBufferError(f"field {index} of the table at {self.position:,} is outside the table")
        return self.position + inside

    def number(self, index: int, kind: Any, default: int = 0) -> int:
        """Return a field that is a number of a type."""
        place = self._place(index, kind.bytewidth)
        return default if place is None else self.buffer.number(place, kind)

    def _target(self, index: int) -> int | None:
        """Return the position that a field with an offset leads to; None if the field is missing."""
        place = self._place(index, 4)
        return None if place is None else self.buffer.offset(place)

    def table(self, index: int) -> Table | None:
        """Return a field that is a table; None if it is missing."""
        target = self._target(index)
        return None if target is None else self.buffer.table(target)

    def span(self, index: int, width: int = 1) -> Span | None:
        """Return where the items of a vector are, each of `width` bytes; None if the field is missing."""
        target = self._target(index)
        if target is None:
            return None
        length = width * self.buffer.number(target, UINT32)
        self.buffer.require(target + 4, length)
        return Span(target + 4, length)

    def numbers(self, index: int, dtype: str) -> np.ndarray:
        """Return a vector of numbers; empty if the field is missing. The array is a view of the file."""
        kind = np.dtype(dtype)
        span = self.span(index, kind.itemsize)
        if span is None:
            return np.empty(0, kind)
        return np.frombuffer(self.buffer.data, kind, span.length // kind.itemsize, span.start)

    def integers(self, index: int) -> list[int]:
        """Return a vector of 32-bit integers as a list, which is counted; empty if the field is missing."""
        numbers = self.numbers(index, "<i4")
        self.buffer.count(len(numbers))
        return [int(number) for number in numbers.tolist()]

    def text(self, index: int, most: int = 4_096) -> str:
        """Return a string of at most `most` bytes; empty if it is missing. Bytes that are not UTF-8 are replaced."""
        span = self.span(index)
        if span is None:
            return ""
        return bytes(self.buffer.data[span.start : span.start + min(span.length, most)]).decode("utf-8", "replace")

    def tables(self, index: int) -> Tables:
        """Return a vector of tables; empty if the field is missing."""
        span = self.span(index, 4)
        return Tables(self.buffer, 0, 0) if span is None else Tables(self.buffer, span.start, span.length // 4)


@dataclass(frozen=True, slots=True)
class Tables:
    """A vector of tables, each of which is read when it is asked for."""

    buffer: FlatBuffer = field(repr=False)
    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Table:
        if not 0 <= index < self.count:
            raise FlatBufferError(f"table {index:,} of a vector of {self.count:,}")
        return self.buffer.table(self.buffer.offset(self.start + 4 * index))

    def __iter__(self) -> Iterator[Table]:
        return (self[index] for index in range(self.count))
