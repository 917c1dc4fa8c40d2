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
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from filterdb.errors import DamageError, StoreMissingError
from filterdb.store.canonical import canonical
from filterdb.store.files import Files, Reader

Arrays = dict[str, np.ndarray]
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MARK = b"sha256:"

_ABOUT = "about"
"""The array that states what the others were computed from."""

_PARTS = "parts"
"""Name of the folder of partial and temporary summaries."""

_LENGTHS = 26
"""Where the local header of a zip archive has the lengths of its last two parts, two bytes each."""

_BLOCK = 2**20
"""Numbers that are read at a time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """Identifies a summary of a segment. `made_from` (JSON) has everything it depends on besides segment and code.

    `part` names the chunks of a partial summary while a pass over the segment is unfinished; otherwise it is empty. A
    summary `is_temporary` if it is only needed until something else is stored.
    """

    kind: str
    version: int
    made_from: str = ""
    part: str = ""
    is_temporary: bool = False

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
    return f"{parts_name(segment_id) if key.is_temporary else f'summaries/{segment_id}'}/{key.label}.npz"


def joined_name(page_id: str, key: Key) -> str:
    """Return the name of the object with a page's summaries, those of its segments one after the other."""
    return f"tables/{page_id}/{key.label}.npz"


def parts_name(segment_id: str) -> str:
    """Return the prefix of the partial and temporary summaries of a segment or a bank."""
    return f"summaries/{segment_id}/{_PARTS}"


def is_in_parts(name: str) -> bool:
    """Return whether an object is a partial or temporary summary."""
    return name.startswith("summaries/") and f"/{_PARTS}/" in name


def pack(arrays: Mapping[str, np.ndarray], segment_id: str, key: Key) -> bytes:
    """Encode arrays as a NumPy archive. Equal arrays have equal bytes."""
    about = canonical({"segment": segment_id, **key.content})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted({**arrays, _ABOUT: np.frombuffer(about, np.uint8)}.items()):
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
    return arrays if _is_about(arrays.pop(_ABOUT, np.empty(0, np.uint8)), url, segment_id, key) else None


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


def load_rows(
    files: Files, segment_id: str, key: Key, size: int, *, is_verified: bool = False
) -> Iterator[Arrays] | None:
    """Return an iterator over `size` rows of all arrays of a summary at a time; None in the cases of `load`.

    The summary must be a local file. It is verified before this returns, unless it `is_verified`. Memory holds only the
    rows that are in use.
    """
    name = name_of(segment_id, key)
    url = files.url(name)
    with ExitStack() as opened:
        try:
            file = opened.enter_context(files.opened(name))
        except StoreMissingError:
            return None

        def verify() -> None:
            file.stream()  # from the first byte on
            _check_digest(file, url)

        if not is_verified:
            files.retry_on_damage(verify)
        stream = file.stream()
        about, places = np.empty(0, np.uint8), {}
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                array = member.filename.removesuffix(".npy")
                _seek_data(stream, member)
                if array == _ABOUT:
                    about = _read_array(stream)
                else:
                    places[array] = _Place.at(stream)
        return _rows(opened.pop_all(), stream, places, size) if _is_about(about, url, segment_id, key) else None


def _seek_data(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Move a stream to the first byte of a member of an archive, which is stored behind a local header of its own."""
    stream.seek(member.header_offset + _LENGTHS)
    lengths = np.frombuffer(stream.read(4), "<u2").astype(int)
    stream.seek(lengths.sum(), io.SEEK_CUR)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the rows of an array are in a file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def at(cls, stream: IO[bytes]) -> _Place:
        """Read the header of an array."""
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        return cls(stream.tell(), shape, dtype)

    def read(self, stream: IO[bytes], start: int, stop: int) -> np.ndarray:
        """Read some rows."""
        numbers = math.prod(self.shape[1:])
        stream.seek(self.offset + start * numbers * self.dtype.itemsize)
        rows = np.fromfile(stream, self.dtype, (stop - start) * numbers)
        return rows.reshape(stop - start, *self.shape[1:])


def _rows(opened: ExitStack, stream: IO[bytes], places: dict[str, _Place], size: int) -> Iterator[Arrays]:
    """Yield the rows of arrays, `size` at a time, and close what is open."""
    with opened:
        rows = max((place.shape[0] for place in places.values()), default=0)
        for start in range(0, rows, size):
            yield {name: place.read(stream, start, min(start + size, rows)) for name, place in places.items()}


def _is_about(about: np.ndarray, url: str, segment_id: str, key: Key) -> bool:
    """Return whether a summary that states to be about `about` is that of this segment and key."""
    got = json.loads(about.tobytes() or "null")
    expected = {"segment": segment_id, **key.content}
    if got != expected:
        log.warning("%s: expected a summary of %s, got one of %s; not used", url, expected, got)
    return bool(got == expected)


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
