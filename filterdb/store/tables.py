"""Tables of a segment: written as one pack, and read from it or, in earlier formats, from arrays of the Zarr group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from filterdb import schema
from filterdb.columns import Columns
from filterdb.errors import DamageError
from filterdb.extras import named_extras
from filterdb.store import pack
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.segment import Segment, Tables, differs, missing, pack_name

PACK = "pack"
"""The digest that a segment has in a snapshot if its tables are packed."""


@dataclass(frozen=True, slots=True)
class Created:
    """The digests of a new segment, for the snapshot, and the sizes of the objects of its group by name."""

    digests: dict[str, str]
    sizes: dict[str, int]


def create(segment: Segment, tables: Tables) -> Created:
    """Write a segment's metadata and tables. The chunks are written later, by `Segment.write_chunk`.

    The objects are made in memory and then written, the pack last, so that its presence means that all are there. The
    pack has the digests of the others. Since the segment's id depends on the tables, every writer of the segment writes
    the same bytes. Objects that exist with these bytes are not written again.
    """
    with named_extras():
        from filterdb.store.zarr_group import group_objects

    objects = group_objects(segment, tables)
    digests = {name: digest(data) for name, data in objects.items()}
    data = packed(tables, segment=segment.id, objects=canonical(digests).decode())
    by_full_name = {f"{segment.name}/{name}": data for name, data in objects.items()}
    listing = segment.files.list(segment.name)
    last = pack_name(segment.id)
    stored = segment.files.read_many([*(name for name in by_full_name if name in listing), last])
    segment.files.put({name: data for name, data in by_full_name.items() if stored.get(name) != data})
    if stored.get(last) != data:
        segment.files.put({last: data})
    return Created({PACK: digest(data)}, {name: len(data) for name, data in by_full_name.items()})


def packed(tables: Tables, **metadata: str) -> bytes:
    """Encode tables as a pack."""
    arrays = {variable.name: variable.array(tables[variable.name]) for variable in schema.TABLES}
    return pack.encode(arrays, {"format": str(schema.FORMAT), **metadata})


def check_objects(segment: Segment, digests: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with the objects of a segment other than its chunks, by name."""
    if PACK not in digests:
        with named_extras():
            from filterdb.store import zarr_tables

        return zarr_tables.check_objects(segment, digests)
    try:
        _, metadata = read_packs(segment.files, {segment: digests})[0]
    except DamageError as error:
        return {pack_name(segment.id): str(error)}
    return segment.changed_objects(json.loads(metadata["objects"]))


def read_tables(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read a segment's tables and verify them against the snapshot's digests. Raises DamageError."""
    (tables,) = read_many([(segment, digests)])
    return tables


def read_many(segments: Sequence[tuple[Segment, Mapping[str, str]]]) -> list[dict[str, np.ndarray]]:
    """Read the tables of segments, each with the snapshot's digests, packs in parallel. Raises DamageError."""
    packed = {segment: digests for segment, digests in segments if PACK in digests}
    arrays = iter(read_packs(segments[0][0].files, packed) if packed else ())
    return [
        completed(next(arrays)[0] if PACK in digests else _read_old(segment, digests)) for segment, digests in segments
    ]


def _read_old(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    with named_extras():
        from filterdb.store import zarr_tables

    return segment.files.retry_on_damage(lambda: zarr_tables.read(segment, digests))


def read_packs(
    files: Files, segments: Mapping[Segment, Mapping[str, str]]
) -> list[tuple[dict[str, np.ndarray], dict[str, str]]]:
    """Read the packs of segments, given their digests: arrays and metadata of each. Raises DamageError."""
    contents: dict[str, bytes] = {}

    def read() -> list[tuple[dict[str, np.ndarray], dict[str, str]]]:
        missing = [name for name in map(pack_name, (segment.id for segment in segments)) if name not in contents]
        contents.update(files.read_many(missing))
        return [_decode(segment, digests[PACK], contents) for segment, digests in segments.items()]

    return files.retry_on_damage(read)


def _decode(
    segment: Segment, expected: str, contents: dict[str, bytes]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    name = pack_name(segment.id)
    url = segment.files.url(name)
    data = contents.get(name)
    if data is None:
        raise missing(segment, url)
    if digest(data) != expected:
        del contents[name]  # a retry reads it again
        raise DamageError(differs(url, expected, data))
    return pack.decode(data, url, is_checked=True)


def completed(tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the variables that the format of an earlier segment did not have."""
    rows = {"layer": len(tables["row_size"]), "model": len(tables["model"])}
    return tables | {
        variable.name: variable.array([variable.missing] * rows[variable.dims[0]])
        for variable in schema.TABLES
        if variable.name not in tables
    }


def to_columns(tables: Tables, kinds: tuple[schema.Variable, ...]) -> Columns:
    """Return table variables as columns. Text becomes object arrays, which pandas and plots support."""
    variables = {}
    for variable in kinds:
        values = variable.array(tables[variable.name])
        plain = _texts(values) if variable.dtype == "str" else values
        variables[variable.name] = (variable.dims, plain, variable.attrs)
    return Columns.of(variables, {}, {})


def _texts(values: np.ndarray) -> np.ndarray:
    """Return text as an object array in which equal texts are one object: most columns repeat a few of them."""
    first: dict[str, str] = {}
    texts = np.empty(values.shape, object)
    texts[:] = [first.setdefault(text, text) for text in values.tolist()]
    return texts
