"""Read the tables of segments of formats 1 to 4, where each table variable is an array of the Zarr group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.errors import ChunkNotFoundError
from zarr.storage import MemoryStore

from filterdb import schema
from filterdb.errors import DamageError, StoreMissingError
from filterdb.store.canonical import digest
from filterdb.store.segment import RESTORE, Segment, differs

_OLD_MANIFEST = "manifest.json"
"""Name of the manifest inside the Zarr group in format 2. It moved because Zarr warns about unknown objects."""


_CONFIG: Any = {"read_missing_chunks": False}
"""By default, Zarr reads missing chunks as fill value."""


def manifest_name(segment_id: str) -> str:
    """Return the name of a segment's manifest, which lists the SHA-256 of every object except the chunks."""
    return f"manifests/{segment_id}.json"


def check_objects(segment: Segment, digests: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with the objects of a segment other than its chunks, by name.

    A segment of format 1 has no manifest, so nothing is returned; its tables are verified by their own digests.
    """
    if "manifest" not in digests:
        return {}
    try:
        manifest = _manifest(segment, digests)
    except DamageError as error:
        return {manifest_name(segment.id): str(error)}
    return segment.changed_objects(manifest)


def _manifest(segment: Segment, digests: Mapping[str, str]) -> dict[str, str]:
    """Read the SHA-256 of every object of the segment except its chunks, by name. Raises DamageError."""
    name, old = manifest_name(segment.id), f"{segment.name}/{_OLD_MANIFEST}"

    def read() -> dict[str, str]:
        contents = segment.files.read_many([name, old])
        url = segment.files.url(old if name not in contents and old in contents else name)
        data = contents.get(name, contents.get(old))
        if data is None:
            raise DamageError(f"{url}: the object is missing; {RESTORE}")
        if digest(data) != digests["manifest"]:
            raise DamageError(differs(url, digests["manifest"], data))
        manifest: dict[str, str] = json.loads(data)
        return manifest

    return segment.files.retry_on_damage(read)


def read(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read a segment's tables and verify them against the snapshot's digests. Raises DamageError."""
    names = ["zarr.json", *(f"{variable.name}/c/0" for variable in schema.TABLES)]
    contents = segment.files.read_many([f"{segment.name}/{name}" for name in names])
    objects = {name: contents[f"{segment.name}/{name}"] for name in names if f"{segment.name}/{name}" in contents}
    if "zarr.json" not in objects:
        raise DamageError(f"{segment.files.url(segment.name)}/zarr.json: the object is missing; {RESTORE}")
    if digest(objects["zarr.json"]) != digests["metadata"]:
        url = segment.files.url(f"{segment.name}/zarr.json")
        raise DamageError(differs(url, digests["metadata"], objects["zarr.json"]))
    tables = {}
    with segment.damage("tables"):
        prototype = default_buffer_prototype()
        store = MemoryStore({name: prototype.buffer.from_bytes(data) for name, data in objects.items()}, read_only=True)
        group = zarr.open_group(store, mode="r", use_consolidated=True)
    stated = group.attrs.get("filterdb_format")
    variables = schema.tables_of(stated if isinstance(stated, int) else 1)
    for variable in variables:
        with segment.damage(variable.name):
            array = group[variable.name]
            if not isinstance(array, zarr.Array):
                raise TypeError("expected an array, got a group")
            try:
                tables[variable.name] = variable.array(array.with_config(_CONFIG)[:])
            except ChunkNotFoundError as error:
                raise StoreMissingError(str(error)) from error
    got = values_digest(tables, variables)
    if got != digests["tables"]:
        # The checksum of each object was correct, so whole objects must have been exchanged.
        raise DamageError(
            f"{segment.files.url(segment.name)}: expected tables with SHA-256 {digests['tables'][:16]}…, got "
            f"{got[:16]}…; `filterdb verify` names the objects; {RESTORE}"
        )
    return tables


def values_digest(tables: Mapping[str, Any], variables: tuple[schema.Variable, ...] = schema.TABLES) -> str:
    """Compute the SHA-256 of table variables in the schema's order: names, shapes and values."""
    sha256 = hashlib.sha256()
    for variable in variables:
        values = variable.array(tables[variable.name])
        sha256.update(f"{variable.name}{values.shape}".encode())
        if variable.dtype == "str":
            sha256.update(json.dumps([str(value) for value in values]).encode())
        else:
            sha256.update(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
    return sha256.hexdigest()
