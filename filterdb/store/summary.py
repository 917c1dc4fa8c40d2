"""Summaries: results computed from a segment, stored as immutable objects that state what they were computed from.

`summaries/<segment>/<name>.npz` is a plain NumPy archive (np.load opens it) whose zip comment is the SHA-256 of
everything before it. Summaries may be deleted at any time; missing ones are computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np

from filterdb.errors import DamageError, StoreMissingError
from filterdb.store.canonical import canonical
from filterdb.store.files import Files, Reader

Arrays = dict[str, np.ndarray]
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MARK = b"sha256:"

_BLOCK = 2**20
"""Numbers that are read at a time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """Identifies a summary of a segment. `made_from` (JSON) has everything it depends on besides segment and code.

    `part` names the chunks of a partial summary while a pass over the segment is unfinished; otherwise it is empty.
    """

    kind: str
    version: int
    made_from: str = ""
    part: str = ""

    @property
    def label(self) -> str:
        """The object's name: kind, version of the code, and a digest of `made_from`."""
        digest = f"-{hashlib.sha256(self.made_from.encode()).hexdigest()[:16]}" if self.made_from else ""
        return f"{self.kind}-v{self.version}{digest}"

    @property
    def content(self) -> dict[str, object]:
        """The fields that are stored in the object itself."""
        return {"kind": self.kind, "version": self.version, "made_from": self.made_from, "part": self.part}


def name_of(segment_id: str, key: Key) -> str:
    """Return the name of a summary or of a partial summary."""
    if key.part:
        return f"{parts_name(segment_id)}/{key.label}/{key.part}.npz"
    return f"summaries/{segment_id}/{key.label}.npz"


def joined_name(page_id: str, key: Key) -> str:
    """Return the name of the object with a page's summaries, those of its segments one after the other."""
    return f"tables/{page_id}/{key.label}.npz"


def parts_name(segment_id: str) -> str:
    """Return the prefix of a segment's partial summaries."""
    return f"summaries/{segment_id}/parts"


def pack(arrays: Mapping[str, np.ndarray], segment_id: str, key: Key) -> bytes:
    """Encode arrays as a NumPy archive. Equal arrays have equal bytes."""
    about = canonical({"segment": segment_id, **key.content})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted({**arrays, "about": np.frombuffer(about, np.uint8)}.items()):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w") as member:
                plain = np.ascontiguousarray(array).reshape(np.shape(array))
                np.lib.format.write_array(member, plain, allow_pickle=False)
        archive.comment = _MARK + b"0" * 64
    with buffer.getbuffer() as view:
        digest = hashlib.sha256(view[:-64]).hexdigest().encode()
    buffer.seek(-64, io.SEEK_END)
    buffer.write(digest)
    return buffer.getvalue()


def _unpack(file: Reader, url: str, segment_id: str, key: Key, narrow: Collection[str]) -> Arrays | None:
    """Decode a summary; None if it is intact but belongs to another key. Raises DamageError if it is damaged."""
    _check_digest(file, url)
    with zipfile.ZipFile(file.stream()) as archive:
        arrays = {}
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            with archive.open(member) as stream:
                arrays[name] = _read_narrow(stream) if name in narrow else _read_array(stream)
    about = json.loads(arrays.pop("about", np.empty(0, np.uint8)).tobytes() or "null")
    expected = {"segment": segment_id, **key.content}
    if about != expected:
        log.warning("%s: expected a summary of %s, got one of %s; not used", url, expected, about)
        return None
    return arrays


def _read_array(stream: IO[bytes]) -> np.ndarray:
    """Read an array in NumPy's format."""
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _read_narrow(stream: IO[bytes]) -> np.ndarray:
    """Read an array of int64 as the smallest signed integers that hold all of its numbers.

    It is read in blocks, so that memory never holds all of it in 64 bits.
    """
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    narrow = np.zeros(math.prod(shape), np.int8)
    for start in range(0, len(narrow), _BLOCK):
        stop = min(start + _BLOCK, len(narrow))
        block = np.frombuffer(stream.read((stop - start) * dtype.itemsize), dtype)
        needed = np.result_type(narrow, *(np.min_scalar_type(-1 - abs(int(end))) for end in (block.min(), block.max())))
        narrow = narrow.astype(needed, copy=False)
        narrow[start:stop] = block
    return narrow.reshape(shape)


def _check_digest(file: Reader, url: str) -> None:
    """Raise DamageError if the SHA-256 in a summary does not match."""
    sha256, body = hashlib.sha256(), max(file.size - 64, 0)
    for piece in file.pieces(body):
        sha256.update(piece)
    stream = file.stream()
    stream.seek(body)
    if sha256.hexdigest().encode() != stream.read():
        raise DamageError(f"{url}: expected a summary with its SHA-256, got damage; delete it, it is computed again")


def problem(files: Files, name: str) -> str | None:
    """Return what is wrong with the bytes of a summary; None if they are intact."""
    try:
        _opened(files, name, lambda file: _check_digest(file, files.url(name)))
    except StoreMissingError:
        return None  # removed meanwhile, and computed again when needed
    except DamageError as error:
        return str(error)
    return None


def load(files: Files, segment_id: str, key: Key, narrow: Collection[str] = ()) -> Arrays | None:
    """Read a summary; None if it is not stored, or if the object belongs to another key.

    The arrays of int64 in `narrow` are returned as the smallest signed integers that hold all of their numbers.
    """
    return _load(files, name_of(segment_id, key), segment_id, key, narrow)


def load_joined(files: Files, page_id: str, key: Key, narrow: Collection[str] = ()) -> Arrays | None:
    """Read the summaries of a page's segments as `load` does; None also if their object is damaged."""
    try:
        return _load(files, joined_name(page_id, key), page_id, key, narrow)
    except DamageError as error:
        log.warning("%s", error)
        return None


def save_joined(files: Files, page_id: str, key: Key, arrays: Arrays) -> None:
    """Store the summaries of a page's segments, over those of another writer: the object may be deleted at any time."""
    files.put({joined_name(page_id, key): pack(arrays, page_id, key)})


def _load(files: Files, name: str, owner: str, key: Key, narrow: Collection[str]) -> Arrays | None:
    try:
        return _opened(files, name, lambda file: _unpack(file, files.url(name), owner, key, narrow))
    except StoreMissingError:
        return None


def _opened[T](files: Files, name: str, decode: Callable[[Reader], T]) -> T:
    """Open an object and decode it. If `decode` raises DamageError, read again as in `retry_on_damage`."""

    def attempt() -> T:
        with files.opened(name) as file:
            return decode(file)

    return files.retry_on_damage(attempt)


def save(files: Files, segment_id: str, key: Key, arrays: Arrays) -> Arrays:
    """Store a summary unless there is one, and return what is stored, possibly by another writer that was first.

    Kinds of CPU differ in the last digits, so all use the result of the first writer. An intact object of another key
    (a file that somebody copied there) is replaced.
    """
    name, data = name_of(segment_id, key), pack(arrays, segment_id, key)
    if files.create(name, data):
        return arrays
    stored = load(files, segment_id, key)
    if stored is None:
        files.put({name: data})
        return arrays
    return stored


def remove_parts(files: Files, segment_id: str, key: Key) -> None:
    """Remove the partial summaries of a summary that is complete."""
    files.remove(files.list(f"{parts_name(segment_id)}/{key.label}"))
