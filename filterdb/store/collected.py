"""List the segments that `gc` has removed or is removing: in a snapshot, or in an object of their own if many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from filterdb.errors import DamageError, FilterDBError
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files

MOST_INLINE = 32
"""Segments that a snapshot lists itself."""


def name_of(id_: str) -> str:
    """Return the name of an object that lists collected segments."""
    return f"collected/{id_}.json"


def _content(ids: Sequence[str]) -> bytes:
    return canonical({"segments": list(ids)})


def encode(ids: Sequence[str]) -> list[str] | str:
    """Return what a snapshot says: the ids, or the id of the object that lists them."""
    return list(ids) if len(ids) <= MOST_INLINE else digest(_content(ids))[:16]


def write(files: Files, ids: Sequence[str]) -> None:
    """Store the object that lists the ids, if they are many."""
    said = encode(ids)
    if isinstance(said, str):
        files.create(name_of(said), _content(ids))


def decode(files: Files, said: Sequence[str] | str) -> tuple[str, ...]:
    """Return the ids that a snapshot means. Raises DamageError if their object is damaged."""
    if not isinstance(said, str):
        return tuple(map(str, said))

    def checked(data: bytes) -> tuple[str, ...]:
        if digest(data)[:16] != said:
            raise DamageError(f"{files.url(name_of(said))}: expected content with SHA-256 {said}…, got other bytes")
        return tuple(map(str, json.loads(data)["segments"]))

    return files.read_valid(name_of(said), checked)


def is_collected(files: Files, segment_id: str) -> bool:
    """Return whether the newest snapshot says that a segment is collected; False if that cannot be found out."""
    with suppress(FilterDBError, ValueError, KeyError):
        newest = max(name for name in files.list("snapshots") if name.endswith(".json"))
        return segment_id in decode(files, json.loads(files.read(newest)).get("collected", ()))
    return False
