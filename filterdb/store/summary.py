"""What was computed from a segment: immutable objects apart from it, each naming what it was computed from.

`summaries/<segment>/<name>.npz` is a plain NumPy archive (np.load opens it) whose zip comment is the SHA-256 of all
before it. They may be deleted at any time: what is missing is computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from filterdb.errors import DamageError, StoreMissingError
from filterdb.store.canonical import canonical
from filterdb.store.files import Files

Arrays = dict[str, np.ndarray]
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MARK = b"sha256:"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """What a summary is of. `made_from` (JSON) is everything it depends on besides the segment and the code.

    `part`: of which chunks, while the pass over the segment is not complete; else empty.
    """

    kind: str
    version: int
    made_from: str = ""
    part: str = ""

    @property
    def label(self) -> str:
        """The object's name: kind, code version, digest of what it was made from."""
        digest = f"-{hashlib.sha256(self.made_from.encode()).hexdigest()[:16]}" if self.made_from else ""
        return f"{self.kind}-v{self.version}{digest}"

    @property
    def content(self) -> dict[str, object]:
        """What stands in the object itself."""
        return {"kind": self.kind, "version": self.version, "made_from": self.made_from, "part": self.part}


def name_of(segment_id: str, key: Key) -> str:
    """Place of a summary, or of a part of one, below the root."""
    if key.part:
        return f"{parts_name(segment_id)}/{key.label}/{key.part}.npz"
    return f"summaries/{segment_id}/{key.label}.npz"


def parts_name(segment_id: str) -> str:
    """Place of what unfinished passes have left."""
    return f"summaries/{segment_id}/parts"


def pack(arrays: Mapping[str, np.ndarray], segment_id: str, key: Key) -> bytes:
    """Arrays as a NumPy archive; the same arrays give the same bytes."""
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


def unpack(data: bytes, url: str, segment_id: str, key: Key) -> Arrays | None:
    """Arrays of a summary; None where it is whole, but another's. Raises DamageError where it is not whole."""
    _whole(data, url)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(arrays.pop("about", np.empty(0, np.uint8)).tobytes() or "null")
    expected = {"segment": segment_id, **key.content}
    if about != expected:
        log.warning("%s: expected a summary of %s, got one of %s; not used", url, expected, about)
        return None
    return arrays


def _whole(data: bytes, url: str) -> None:
    body, digest = memoryview(data)[:-64], data[-64:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise DamageError(f"{url}: expected a summary with its SHA-256, got damage; delete it, it is computed again")


def problem(files: Files, name: str) -> str | None:
    """What is wrong with the bytes of a summary; None where nothing is."""
    try:
        files.read_valid(name, lambda data: _whole(data, files.url(name)))
    except StoreMissingError:
        return None  # removed meanwhile: it is computed again
    except DamageError as error:
        return str(error)
    return None


def load(files: Files, segment_id: str, key: Key) -> Arrays | None:
    """A stored summary; None where it has not been computed, or what stands there is another's."""
    name = name_of(segment_id, key)
    try:
        return files.read_valid(name, lambda data: unpack(data, files.url(name), segment_id, key))
    except StoreMissingError:
        return None


def save(files: Files, segment_id: str, key: Key, arrays: Arrays) -> Arrays:
    """Store a summary where there is none; gives what stands there, perhaps another writer's that was first.

    Two kinds of CPU may differ in the last digits: whoever is first decides, for everybody. What is whole but
    another's (a file put there by hand) is replaced.
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
    """Remove the parts of a summary that is complete."""
    files.remove(files.list(f"{parts_name(segment_id)}/{key.label}"))
