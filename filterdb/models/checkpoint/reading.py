"""Read PyTorch checkpoints in the child process."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from filterdb.errors import ModelError
from filterdb.models import reading
from filterdb.models.checkpoint import legacy
from filterdb.models.checkpoint.archive import Archive, damaged, list_members
from filterdb.models.checkpoint.pickles import MAX_BYTES, load
from filterdb.models.checkpoint.storages import FUNCTIONS, Storage, StoredTensor, storage_of
from filterdb.models.checkpoint.walking import Found, find_tensors
from filterdb.models.data_files import read_exactly
from filterdb.models.graphless import read_tensors
from filterdb.models.model import Model, Request
from filterdb.models.parse_errors import PARSE_ERRORS, one_line
from filterdb.models.sandbox import Channel
from filterdb.models.tensors import Open, Tensor

PYTORCH = "PyTorch"
"""The format's name, as stored."""

Read = Callable[[BinaryIO, Storage, int, int], bytes]
"""Reads bytes of a storage from the open file: the storage, the first byte and how many."""


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A checkpoint whose pickle has been read (`model.ModelFile`)."""

    tensors: list[Tensor]
    request: Request

    @classmethod
    def parse(cls, path: Path, request: Request) -> CheckpointFile:
        """Read the pickle. Raises ModelError if the file is no readable checkpoint."""
        return cls(list_tensors(lambda: path.open("rb"), path.stat().st_size, str(path)), request)

    def external_files(self) -> dict[str, int]:
        """Return no files: the storages are in the file itself."""
        return {}

    def model(self) -> Model:
        """List its convolutions. Raises ModelError if it has none, or several networks."""
        # A module registers its layers in the order in which its author wrote them, mostly that of the execution.
        return read_tensors(self.tensors, self.request, source_format=PYTORCH, ordered=True)


def list_tensors(opening: Open, size: int, where: str) -> list[Tensor]:
    """Return the tensors of a checkpoint of `size` bytes, in its order. Raises ModelError if it is not readable.

    `where` names the file in messages.
    """
    with opening() as file:
        try:
            if read_exactly(file, 0, min(size, 2)) == b"PK":
                archive = list_members(file, size, where)
                content = _content(file, archive, where)
                read: Read = partial(_read_member, archive)
                is_big_endian = archive.is_big_endian
            else:
                content, storages = legacy.read_pickles(file, size, where)
                read, is_big_endian = storages.read, False
            found = find_tensors(content)
        except (MemoryError, ModelError):
            raise
        except PARSE_ERRORS as error:
            raise damaged(where, "a pickle of tensors", one_line(error, Path(where).parent)) from error
    return [_tensor(item, opening, read, is_big_endian=is_big_endian) for item in found]


def _content(file: BinaryIO, archive: Archive, where: str) -> Any:
    """Return what the pickle of an archive describes."""
    member = archive.members["data.pkl"]
    if member.size > MAX_BYTES:
        raise damaged(where, f"a pickle of at most {MAX_BYTES:,} bytes", f"{member.size:,}")

    def persistent(pid: Any) -> Storage:
        storage = storage_of(pid)
        if archive.storage(storage.key) is None:
            raise ValueError("a storage that the archive does not have")
        return storage

    return load(io.BytesIO(member.read(file, 0, member.size)), FUNCTIONS, persistent)


def _read_member(archive: Archive, file: BinaryIO, storage: Storage, first: int, length: int) -> bytes:
    """Read bytes of a storage that is a member of an archive."""
    return archive.members[f"data/{storage.key}"].read(file, first, length)


def _tensor(found: Found, opening: Open, read: Read, *, is_big_endian: bool) -> Tensor:
    stored = found.tensor
    key = None if stored.storage is None else (stored.storage.key, stored.storage.start)
    place = (id(opening), key, stored.offset, stored.shape, stored.strides)
    values = partial(_values, stored, opening, read, is_big_endian)
    return Tensor(found.key, stored.shape, stored.dtype, values, place, found.container, found.stated)


def _values(stored: StoredTensor, opening: Open, read: Read, is_big_endian: bool) -> np.ndarray:
    """Read the values of a tensor. Raises NotStoredError, or one of PARSE_ERRORS."""
    with opening() as file:
        return stored.values(partial(read, file), is_big_endian=is_big_endian)


def serve(channel: Channel) -> None:
    """Answer one request about one checkpoint."""
    reading.serve(channel, CheckpointFile.parse)
