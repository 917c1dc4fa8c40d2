"""List the members of a checkpoint's zip archive from its central directory, and read parts of them.

Nothing is unpacked: PyTorch stores members as they are, so a part of a storage is a part of the file.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from filterdb.errors import ModelError
from filterdb.models.data_files import read_exactly
from filterdb.models.parse_errors import PARSE_ERRORS, shortened

MAX_DIRECTORY = 2**24
"""Most bytes of a central directory: more than 100,000 storages."""

_HEADER = struct.Struct("<4sHHHHHIIIHH")
"""A member's header, which its name and an extra field follow."""

_ENCRYPTED, _STORED = 1, zipfile.ZIP_STORED

_OTHERS = (
    (
        re.compile(r"(.+/)?(serialized_exported_program\.json|archive_format|models/[^/]+\.json)"),
        "an exported PyTorch program (.pt2); save the module's weights instead: torch.save(module.state_dict(), …)",
    ),
    (
        re.compile(r"(.+/)?(constants\.pkl|bytecode\.pkl|code/.+)"),
        "a TorchScript archive; save its weights instead: torch.save(torch.jit.load(…).state_dict(), …)",
    ),
    (
        re.compile(r"(.+/)?\.data/(extern_modules|python_version)"),
        "a torch.package; save the weights of its module instead: torch.save(module.state_dict(), …)",
    ),
)
"""Members of archives that are no checkpoints, and what they are."""


@dataclass(frozen=True, slots=True)
class Member:
    """A stored member: its header is at `header`, and nothing of it lies at or behind `limit`."""

    name: str
    header: int
    size: int
    limit: int

    def read(self, file: BinaryIO, first: int, length: int) -> bytes:
        """Return `length` bytes of its data from `first` on. Raises ValueError if it has fewer."""
        if first < 0 or length < 0 or first + length > self.size:
            raise ValueError(f"expected {first + length:,} bytes in {shortened(self.name, 100)}, got {self.size:,}")
        head = _HEADER.unpack(read_exactly(file, self.header, _HEADER.size))
        signature, flags, method, name_length, extra_length = head[0], head[2], head[3], head[9], head[10]
        start = self.header + _HEADER.size + name_length + extra_length
        if signature != b"PK\3\4" or flags & _ENCRYPTED or method != _STORED or start + self.size > self.limit:
            raise ValueError(f"the member {shortened(self.name, 100)} is not as the archive's directory states")
        return read_exactly(file, start + first, length)


@dataclass(frozen=True, slots=True)
class Archive:
    """The members of a checkpoint by their names without the archive's own folder."""

    members: dict[str, Member]
    is_big_endian: bool

    def storage(self, key: str) -> Member | None:
        """Return the member with a storage's data; None if it is missing."""
        return self.members.get(f"data/{key}")


def list_members(file: BinaryIO, size: int, where: str) -> Archive:
    """Return the members of a checkpoint of `size` bytes. Raises ModelError if it is no readable checkpoint."""
    try:
        with zipfile.ZipFile(_Bounded(file, size)) as archive:
            entries, end = archive.infolist(), archive.start_dir
    except MemoryError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError, *PARSE_ERRORS) as error:
        raise damaged(where, "a zip archive", " ".join(str(error).split())) from error
    names = [entry.filename for entry in entries]
    for pattern, what in _OTHERS:
        if any(map(pattern.fullmatch, names)):
            raise ModelError(f"{where}: expected a checkpoint of torch.save, got {what}")
    prefix = _prefix(names, where)
    members = {member.name.removeprefix(prefix): member for member in _members(entries, end, where)}
    order = members.get("byteorder")
    text = b"little" if order is None else order.read(file, 0, min(order.size, 16))
    if text not in {b"little", b"big"}:
        raise damaged(where, "the byte order little or big", repr(text))
    return Archive(members, text == b"big")


def _prefix(names: Sequence[str], where: str) -> str:
    """Return the archive's own folder, with a slash; empty if there is none."""
    pickles = [name for name in names if name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)]
    if len(pickles) != 1:
        raise damaged(where, "one member data.pkl", f"{len(pickles):,}")
    return pickles[0].removesuffix("data.pkl")


def _members(entries: Sequence[zipfile.ZipInfo], end: int, where: str) -> list[Member]:
    """Return the members. Raises ModelError if one is compressed or encrypted, overlaps another or occurs twice."""
    if len({entry.filename for entry in entries}) < len(entries):
        raise damaged(where, "members with different names", "a name that occurs twice")
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    limits = [entry.header_offset for entry in ordered[1:]] + [end]
    for entry, limit in zip(ordered, limits, strict=True):
        shown = shortened(entry.filename, 100)
        if entry.flag_bits & _ENCRYPTED:
            raise ModelError(f"{where}: expected a checkpoint without a password, got {shown!r} encrypted; decrypt it")
        if entry.compress_type != _STORED or entry.compress_size != entry.file_size:
            raise ModelError(
                f"{where}: expected members that are stored, as torch.save writes them, got {shown!r} compressed; "
                "load it in PyTorch and save it again"
            )
        if entry.header_offset < 0 or entry.header_offset + _HEADER.size + entry.file_size > limit:
            raise damaged(where, "members that lie one behind the other", f"{shown!r}, which overlaps others")
    return [
        Member(entry.filename, entry.header_offset, entry.file_size, limit)
        for entry, limit in zip(ordered, limits, strict=True)
    ]


def damaged(where: str, expected: str, got: str) -> ModelError:
    """Return the error for a file that is no valid checkpoint."""
    return ModelError(
        f"{where}: not a PyTorch checkpoint: expected {expected}, got {shortened(got, 200)}; download or save it again"
    )


class _Bounded(io.RawIOBase):
    """A view of a file for the zipfile module that refuses to read more than a directory may have."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._position = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError("a place before the start of the file")
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        size = left if size < 0 else min(size, left)
        if size > MAX_DIRECTORY:
            raise ValueError(f"a directory of {size:,} bytes, more than {MAX_DIRECTORY:,}")
        data = read_exactly(self._file, self._position, size)
        self._position += size
        return data
