"""Tables of a segment: written as one pack, and read from it or, in earlier formats, from arrays of the Zarr group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from filterdb import schema
from filterdb.columns import Columns
from filterdb.errors import DamageError
from filterdb.extras import named_extras
from filterdb.store import pack
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.segment import Segment, Tables, additions, differs, missing, pack_name

PACK = "pack"
"""The digest that a segment has in a snapshot if its tables are packed."""


@dataclass(frozen=True, slots=True)
class Created:
    """The digests of a new segment, for the snapshot, and the sizes of the objects of its group by name."""

    digests: dict[str, str]
    sizes: dict[str, int]


def create(segment: Segment, tables: Tables, banks: Sequence[Segment] = ()) -> Created:
    """Write the metadata and tables of a segment and its banks. `Segment.write_chunk` writes the chunks later.

    The objects are made in memory and then written, the pack last, so that its presence means that all are there. The
    pack has the digests of the others. Since the segment's id depends on the tables, every writer of the segment writes
    the same bytes. Objects that exist with these bytes are not written again.
    """
    with named_extras():
        from filterdb.store.zarr_group import group_objects

    sha256, sizes = _write(segment, tables, group_objects(segment, tables, banks))
    return Created({PACK: sha256}, sizes)


def create_addition(segment: Segment, addition: Segment, tables: Tables, banks: Sequence[Segment]) -> Created:
    """Write the metadata and tables of an addition to a segment, the banks that it did not have, as `create` does.

    `tables` have the names of the segment's models, the layers of the new banks, and the ledger as it is with them.
    """
    with named_extras():
        from filterdb.store.zarr_group import addition_objects

    sha256, sizes = _write(addition, tables, addition_objects(segment, banks, tables))
    return Created({PACK: sha256}, sizes)


def _write(segment: Segment, tables: Tables, objects: Mapping[str, bytes]) -> tuple[str, dict[str, int]]:
    """Write the objects of a group, given by their names in it, and then the pack.

    Return the SHA-256 of the pack, and the sizes of the others.
    """
    digests = {name: digest(data) for name, data in objects.items()}
    data = packed(tables, segment=segment.id, objects=canonical(digests).decode())
    by_full_name = {f"{segment.name}/{name}": data for name, data in objects.items()}
    listing, last = segment.files.list(segment.name), pack_name(segment.id)
    stored = segment.files.read_many([*(name for name in by_full_name if name in listing), last])
    segment.files.put({name: data for name, data in by_full_name.items() if stored.get(name) != data})
    if stored.get(last) != data:
        segment.files.put({last: data})
    return digest(data), {name: len(data) for name, data in by_full_name.items()}


def packed(tables: Tables, **metadata: str) -> bytes:
    """Encode tables as a pack."""
    known = {variable.name: variable for variable in schema.TABLES if variable.name in tables}
    for bank in banks_of(tables):
        known |= {schema.in_pack(bank, variable.name): variable for variable in schema.variables_of(bank)}
    arrays = {name: variable.array(tables[name]) for name, variable in known.items()}
    return pack.encode(arrays, {"format": str(schema.FORMAT), **metadata})


def banks_of(tables: Tables) -> list[str]:
    """Return the names of the banks other than 3×3 whose layers are among tables, sorted."""
    return sorted({bank for name in tables for bank, prefixed, _ in [name.rpartition("/")] if prefixed})


def of_bank(tables: Tables, bank: str) -> dict[str, np.ndarray]:
    """Return the tables of a segment with the layers of one of its banks instead of the 3×3 ones."""
    own = {variable.name: tables[variable.name] for variable in schema.TABLES if variable.name in tables}
    return own | {v.name: tables[schema.in_pack(bank, v.name)] for v in schema.variables_of(bank)}


def check_objects(segment: Segment, digests: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with the objects of a segment other than its chunks, by name."""
    problems: dict[str, str] = {}
    if PACK not in digests:
        with named_extras():
            from filterdb.store import zarr_tables

        problems |= zarr_tables.check_objects(segment, digests)
    for wanted in packs(segment, digests):
        try:
            ((_, metadata),) = read_packs(segment.files, [wanted])
        except DamageError as error:
            problems[wanted.name] = str(error)
        else:
            problems |= wanted.segment.changed_objects(json.loads(metadata["objects"]))
    return problems


def read_tables(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read a segment's tables and verify them against the snapshot's digests. Raises DamageError."""
    (tables,) = read_many([(segment, digests)])
    return tables


def read_many(segments: Sequence[tuple[Segment, Mapping[str, str]]]) -> list[dict[str, np.ndarray]]:
    """Read the tables of segments, each with the snapshot's digests, packs in parallel. Raises DamageError."""
    wanted = [packs(segment, digests) for segment, digests in segments]
    decoded = iter(read_packs(segments[0][0].files, [own for several in wanted for own in several]) if segments else ())
    stored = []
    for (segment, digests), own in zip(segments, wanted, strict=True):
        tables = {} if PACK in digests else _read_old(segment, digests)
        for _ in own:
            tables |= next(decoded)[0]
        stored.append(completed(tables))
    return stored


def _read_old(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    with named_extras():
        from filterdb.store import zarr_tables

    return segment.files.retry_on_damage(lambda: zarr_tables.read(segment, digests))


class StoredPack(NamedTuple):
    """An object with tables of a segment or an addition to it, and the SHA-256 that the snapshot has of it."""

    segment: Segment
    name: str
    sha256: str


def packs(segment: Segment, digests: Mapping[str, str]) -> list[StoredPack]:
    """Return the objects that hold a segment's tables; those of an addition replace the ledger of those before it.

    The arrays of earlier formats are none.
    """
    ids = {**({segment.id: digests[PACK]} if PACK in digests else {}), **additions(digests)}
    return [StoredPack(replace(segment, id=id_), pack_name(id_), sha256) for id_, sha256 in ids.items()]


def read_packs(files: Files, stored: Sequence[StoredPack]) -> list[tuple[dict[str, np.ndarray], dict[str, str]]]:
    """Read packs: arrays and metadata of each. Raises DamageError."""
    contents: dict[str, bytes] = {}

    def read() -> list[tuple[dict[str, np.ndarray], dict[str, str]]]:
        contents.update(files.read_many([wanted.name for wanted in stored if wanted.name not in contents]))
        return [_decode(wanted, contents) for wanted in stored]

    return files.retry_on_damage(read)


def _decode(wanted: StoredPack, contents: dict[str, bytes]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    url = wanted.segment.files.url(wanted.name)
    data = contents.get(wanted.name)
    if data is None:
        raise missing(wanted.segment, url)
    if digest(data) != wanted.sha256:
        del contents[wanted.name]  # a retry reads it again
        raise DamageError(differs(url, wanted.sha256, data))
    return pack.decode(data, url, is_checked=True)


_KNOWN = {variable.name for variable in schema.TABLES}


def completed(tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the variables that the format of an earlier segment did not have, and drop those that a later one added."""
    rows = {"layer": len(tables["row_size"]), "model": len(tables["model"])}
    known = {name: values for name, values in tables.items() if "/" in name or name in _KNOWN}
    return known | {
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
