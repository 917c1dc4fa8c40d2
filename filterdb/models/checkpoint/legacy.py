"""Read the form of checkpoints before PyTorch 1.6: pickles one after the other, and the storages behind them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, cast

from filterdb.errors import ModelError
from filterdb.models.checkpoint.archive import damaged
from filterdb.models.checkpoint.pickles import MAX_BYTES, Name, load
from filterdb.models.checkpoint.storages import FUNCTIONS, Storage, storage_of
from filterdb.models.data_files import read_exactly

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

_STEP = 2**20
"""Bytes of pickles that are read at a time."""


@dataclass(slots=True)
class Storages:
    """Where the storages lie, by key; filled when all are known."""

    whole: dict[str, Storage] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def persistent(self, pid: Any) -> Any:
        """Return what stands for a persistent id: a storage, or the name of a module's class."""
        if type(pid) is tuple and pid[:1] == ("module",) and len(pid) == 4 and isinstance(pid[1], Name):
            return pid[1]
        storage = storage_of(pid)
        root = storage_of((*pid[:5], None))
        if self.whole.setdefault(root.key, root) != root:
            raise ValueError("a storage of two sizes or types")
        return storage

    def read(self, file: BinaryIO, storage: Storage, first: int, length: int) -> bytes:
        """Return bytes of a storage. Raises ValueError if the file states another size for it."""
        place, whole = self.places[storage.key], self.whole[storage.key]
        count = int.from_bytes(read_exactly(file, place, 8), "little", signed=True)
        if count != whole.count or first + length > whole.count * whole.item_bytes:
            raise ValueError(f"expected a storage of {whole.count:,} numbers, got {count:,}")
        return read_exactly(file, place + 8 + first, length)


def read_pickles(file: BinaryIO, size: int, where: str) -> tuple[Any, Storages]:
    """Return what the checkpoint holds, and its storages. Raises ModelError, or one of PARSE_ERRORS."""
    stream = cast("IO[bytes]", _Pickles(file, size))
    magic, protocol = (load(stream, {}, _no_persistent) for _ in range(2))
    if magic != MAGIC or protocol != PROTOCOL:
        raise damaged(where, f"protocol {PROTOCOL}", f"{protocol!r}"[:40])
    load(stream, {}, _no_persistent)  # facts about the machine; storages are always little-endian
    storages = Storages()
    content = load(stream, FUNCTIONS, storages.persistent)
    keys = load(stream, {}, _no_persistent)
    _place(storages, keys, stream.tell(), size, where)
    return content, storages


def _place(storages: Storages, keys: Any, position: int, size: int, where: str) -> None:
    """Set where each storage lies: one behind the other from `position` on, each after its count."""
    if not isinstance(keys, list) or not all(type(key) in (str, int) for key in keys):
        raise damaged(where, "a list of storages behind the pickle", type(keys).__name__)
    names = [str(key) for key in keys]
    if len(set(names)) < len(names) or set(names) != storages.whole.keys():
        raise damaged(where, "the list of the storages that the tensors use", "another list")
    for name in names:
        storages.places[name] = position
        position += 8 + storages.whole[name].count * storages.whole[name].item_bytes
    if position > size:
        raise ModelError(
            f"{where}: expected at least {position:,} bytes for its storages, got {size:,}; download or save it again"
        )


def _no_persistent(pid: Any) -> Any:
    raise ValueError("a persistent id where there should be none")


class _Pickles(io.RawIOBase):
    """The pickles at the start of a file, of which no more is read than they need."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._most = min(size, MAX_BYTES)
        self._buffer = b""
        self._start = 0
        self._position = 0

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        begin = self._position - self._start
        if size < 0 or begin + size > len(self._buffer):
            self._fill(size)
            begin = self._position - self._start
        data = self._buffer[begin : begin + size]
        self._position += len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = bytearray()
        while (part := self.read(1)) and not line.endswith(b"\n"):
            line += part
            if part == b"\n":
                break
        return bytes(line)

    def _fill(self, size: int) -> None:
        """Read on from the position, in large steps."""
        length = min(max(size, _STEP), self._most - self._position)
        if size < 0 or size > self._most - self._position:
            raise ValueError(f"pickles that do not end within {self._most:,} bytes")
        self._buffer = read_exactly(self._file, self._position, length)
        self._start = self._position
