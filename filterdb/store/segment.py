"""An immutable Zarr group: created from its tables, filled by whole chunks, opened as xarray.

Filters lie columns first inside a chunk ([transpose, bytes, crc32c]): the loops run along columns, and a decoded
chunk then needs no second copy. Every chunk carries a CRC32C; a missing chunk is an error on read.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import crc32c
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.errors import ChunkNotFoundError, ZarrUserWarning
from zarr.storage import MemoryStore

from filterdb import schema
from filterdb.errors import DamageError, StoreMissingError
from filterdb.plan import chunk_count
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.remote import store_errors

CODECS: Any = [TransposeCodec(order=(1, 0)), BytesCodec(endian="little"), Crc32cCodec()]
"""How a chunk of filters is encoded."""

CRC_BYTES = 4

_OLD_MANIFEST = "manifest.json"
"""The manifest's name inside the Zarr group in format 2. Zarr warns about objects that it does not know."""

RESTORE = "restore it from a copy, or go back with `filterdb restore`"
"""Remedy for damage to a segment."""

_CONFIG: Any = {"write_empty_chunks": True, "read_missing_chunks": False}
"""Zarr drops chunks that equal the fill value and reads missing ones as fill value: neither must happen here."""

Tables = Mapping[str, np.ndarray]
"""Every variable of schema.TABLES by name."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment's place and extent; small enough to travel with every task."""

    files: Files
    id: str
    rows: int
    chunk_rows: int

    @property
    def name(self) -> str:
        """Its place below the root."""
        return segment_name(self.id)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return chunk_count(self.rows, self.chunk_rows)

    @property
    def reading_bytes(self) -> int:
        """Memory that a thread takes to read a chunk: mapped pages, or an object as it comes."""
        chunk = schema.WEIGHTS * self.chunk_rows * 4
        # A client joins an object's pieces: for a moment it has it twice.
        return 2 * chunk if self.files.remote else chunk

    def bounds(self, chunk: int) -> tuple[int, int]:
        """First and past-the-last row of a chunk."""
        return chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows)

    def chunk_name(self, chunk: int) -> str:
        """The object that holds a chunk."""
        return f"{self.name}/{schema.FILTERS.name}/c/{chunk}/0"

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk's object."""
        return schema.WEIGHTS * self.chunk_rows * 4 + CRC_BYTES

    def read_chunk(self, chunk: int) -> np.ndarray:
        """One chunk's filters (n, 9) float32, without padding."""
        start, stop = self.bounds(chunk)
        return np.ascontiguousarray(self.read_columns(chunk)[:, : stop - start].T)

    def read_columns(self, chunk: int) -> np.ndarray:
        """One chunk as it lies in the store: columns (9, chunk_rows) float32, read-only, padding included.

        What the passes read by. CODECS decode by a look: the array is the object, less its checksum, which is checked.
        No memory is filled: a local chunk is mapped from the page cache, and unmapped with the array.
        """
        return self.files.untrusting(lambda: self._read_columns(chunk))

    def _read_columns(self, chunk: int) -> np.ndarray:
        size = schema.WEIGHTS * self.chunk_rows * 4
        where = f"{self.files.url(self.name)}/{schema.FILTERS.name} chunk {chunk}"
        with self.damage(schema.FILTERS.name, chunk), self.files.opened(self.chunk_name(chunk)) as file:
            if file.size != self.chunk_bytes:
                raise DamageError(f"{where}: expected {self.chunk_bytes} bytes, got {file.size}; {RESTORE}")
            checksum = 0
            for piece in file.pieces(size):
                checksum = crc32c.crc32c(piece, checksum)
            data = file.whole()
            if checksum != int.from_bytes(data[size:], "little"):
                raise ValueError("its checksum does not fit")
            return np.frombuffer(data[:size], "<f4").reshape(schema.WEIGHTS, self.chunk_rows)

    def write_chunk(self, chunk: int, filters: np.ndarray) -> None:
        """Write one whole chunk, (n, 9) float32, whole or not at all; the last one is padded with NaN.

        Encoded as CODECS say, with one copy where Zarr makes four.
        """
        start, stop = self.bounds(chunk)
        if filters.shape != (stop - start, schema.WEIGHTS):  # else what is missing would stay NaN
            raise ValueError(
                f"{self.files.url(self.name)} chunk {chunk}: expected filters of shape "
                f"{(stop - start, schema.WEIGHTS)}, got {filters.shape}; nothing was written"
            )
        size = schema.WEIGHTS * self.chunk_rows * 4
        data = bytearray(self.chunk_bytes)
        columns = np.frombuffer(memoryview(data)[:size], "<f4").reshape(schema.WEIGHTS, self.chunk_rows)
        columns[:, : stop - start] = filters.T
        columns[:, stop - start :] = np.nan
        data[size:] = crc32c.crc32c(memoryview(data)[:size]).to_bytes(CRC_BYTES, "little")
        self.files.put({self.chunk_name(chunk): data})

    def has_chunk(self, chunk: int) -> bool:
        """Whether a chunk is there and whole."""
        try:
            self.read_chunk(chunk)
        except (DamageError, StoreMissingError):
            return False
        return True

    @contextmanager
    def damage(self, variable: str, chunk: int | None = None) -> Iterator[None]:
        """Turn what reading a damaged variable raises into one DamageError line that names it."""
        url = self.files.url(f"{self.name}/{variable}") + ("" if chunk is None else f" chunk {chunk}")
        try:
            with store_errors("reading", url):
                yield
        except DamageError:
            raise
        except (StoreMissingError, ChunkNotFoundError) as error:
            raise DamageError(f"{url}: expected to be there, is missing; {RESTORE}") from error
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            said = " ".join(str(error).split())[:160]
            raise DamageError(
                f"{url}: expected the bytes that were committed, got damage ({said}); {RESTORE}"
            ) from error


def segment_name(segment_id: str) -> str:
    """Place of a segment below the root."""
    return f"segments/{segment_id}.zarr"


def manifest_name(segment_id: str) -> str:
    """Return the place of a segment's manifest: the SHA-256 of every object of the segment but its chunks."""
    return f"manifests/{segment_id}.json"


@dataclass(frozen=True, slots=True)
class Created:
    """A segment's metadata and tables in the store: digests for the snapshot, size of each object by its full name."""

    digests: dict[str, str]
    sizes: dict[str, int]


def create(segment: Segment, tables: Tables) -> Created:
    """Write a segment's metadata and tables; chunks follow by `write_chunk`.

    Made in memory, then put object by object, the manifest last: with it, everything is there. The id covers the
    tables: whoever writes the same segment again, or at the same time, puts the same bytes; what is there and whole
    is not written again.
    """
    objects = _objects(segment, tables)
    manifest = canonical({name: digest(data) for name, data in objects.items()})
    digests = {"metadata": digest(objects["zarr.json"]), "tables": tables_digest(tables), "manifest": digest(manifest)}
    placed = {f"{segment.name}/{name}": data for name, data in objects.items()}
    listing = segment.files.list(segment.name)
    there = segment.files.read_many([name for name in placed if name in listing])
    segment.files.put({name: data for name, data in placed.items() if there.get(name) != data})
    last = manifest_name(segment.id)
    if segment.files.read_many([last]).get(last) != manifest:
        segment.files.put({last: manifest})
    return Created(digests, {name: len(data) for name, data in placed.items()})


def check_objects(segment: Segment, digests: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with each object of a segment but its chunks, by name below the segment or the root.

    A segment of format 1 has no manifest: {}, its tables have digests of their own.
    """
    if "manifest" not in digests:
        return {}
    try:
        manifest = _manifest(segment, digests)
    except DamageError as error:
        return {manifest_name(segment.id): str(error)}
    found = segment.files.read_many([f"{segment.name}/{name}" for name in manifest])
    problems = {}
    for name, expected in manifest.items():
        data = found.get(f"{segment.name}/{name}")
        if data is None:
            problems[name] = "missing"
        elif digest(data) != expected:
            problems[name] = f"expected SHA-256 {expected[:16]}…, got {digest(data)[:16]}…"
    return problems


def _manifest(segment: Segment, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of every object of the segment but its chunks, by name. Raises DamageError."""
    name, old = manifest_name(segment.id), f"{segment.name}/{_OLD_MANIFEST}"

    def read() -> dict[str, str]:
        contents = segment.files.read_many([name, old])
        url = segment.files.url(old if name not in contents and old in contents else name)
        data = contents.get(name, contents.get(old))
        if data is None:
            raise DamageError(f"{url}: expected to be there, is missing; {RESTORE}")
        if digest(data) != digests["manifest"]:
            raise DamageError(_differs(url, digests["manifest"], data))
        manifest: dict[str, str] = json.loads(data)
        return manifest

    return segment.files.untrusting(read)


def _objects(segment: Segment, tables: Tables) -> dict[str, bytes]:
    """Every object of the group but its chunks of filters, by name."""
    kept: dict[str, Buffer] = {}
    store = MemoryStore(kept)
    group = zarr.open_group(store, mode="a", zarr_format=3)
    attributes: dict[str, Any] = {
        "Conventions": "CF-1.11",
        "featureType": "contiguous ragged array of filters by layer",
        "filterdb_format": schema.FORMAT,
        "segment": segment.id,
        "coordinates": " ".join(v.name for v in (*schema.LAYER_VARIABLES, *schema.MODEL_VARIABLES)),
    }
    group.attrs.put(attributes)
    group.create_array(
        schema.FILTERS.name,
        shape=(segment.rows, schema.WEIGHTS),
        chunks=(segment.chunk_rows, schema.WEIGHTS),
        dtype=schema.FILTERS.dtype,
        filters=CODECS[:1],
        serializer=CODECS[1],
        compressors=CODECS[2:],
        fill_value=np.nan,
        dimension_names=schema.FILTERS.dims,
        attributes=schema.FILTERS.attrs,
        config=_CONFIG,
    )
    for variable in schema.TABLES:
        _write_table(group, variable, variable.array(tables[variable.name]))
    with warnings.catch_warnings():
        # Zarr warns that version 3 does not specify it; without it every reader of a segment would warn.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(store)
    return {name: buffer.to_bytes() for name, buffer in kept.items()}


def _write_table(group: zarr.Group, variable: schema.Variable, values: np.ndarray) -> None:
    fill: dict[str, Any] = {"fill_value": np.nan} if variable.dtype.startswith("float") else {}
    array = group.create_array(
        variable.name,
        shape=values.shape,
        chunks=(max(1, values.size),),
        dtype=str if variable.dtype == "str" else variable.dtype,
        compressors=[ZstdCodec(), Crc32cCodec()],
        **fill,
        dimension_names=variable.dims,
        attributes=variable.attrs,
        config=_CONFIG,
    )
    if values.size:
        array[:] = values


def tables_digest(tables: Tables) -> str:
    """SHA-256 over every table variable in the schema's order: name, shape, values."""
    found = hashlib.sha256()
    for variable in schema.TABLES:
        values = variable.array(tables[variable.name])
        found.update(f"{variable.name}{values.shape}".encode())
        if variable.dtype == "str":
            found.update(json.dumps([str(value) for value in values]).encode())
        else:
            found.update(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()


def read_tables(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    """A segment's tables, checked against the digests of the snapshot. Raises DamageError."""
    return segment.files.untrusting(lambda: _read_tables(segment, digests))


def _read_tables(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    names = ["zarr.json", *(f"{variable.name}/c/0" for variable in schema.TABLES)]
    found = segment.files.read_many([f"{segment.name}/{name}" for name in names])
    objects = {name: found[f"{segment.name}/{name}"] for name in names if f"{segment.name}/{name}" in found}
    if "zarr.json" not in objects:
        raise DamageError(f"{segment.files.url(segment.name)}/zarr.json: expected to be there, is missing; {RESTORE}")
    if digest(objects["zarr.json"]) != digests["metadata"]:
        url = segment.files.url(f"{segment.name}/zarr.json")
        raise DamageError(_differs(url, digests["metadata"], objects["zarr.json"]))
    tables = {}
    with segment.damage("tables"):
        prototype = default_buffer_prototype()
        store = MemoryStore({name: prototype.buffer.from_bytes(data) for name, data in objects.items()}, read_only=True)
        group = zarr.open_group(store, mode="r", use_consolidated=True)
    for variable in schema.TABLES:
        with segment.damage(variable.name):
            array = group[variable.name]
            if not isinstance(array, zarr.Array):
                raise TypeError("expected an array, got a group")
            tables[variable.name] = variable.array(array.with_config(_CONFIG)[:])
    if tables_digest(tables) != digests["tables"]:
        # The checksums of the parts fit: whole objects were exchanged.
        raise DamageError(
            f"{segment.files.url(segment.name)}: expected tables with SHA-256 {digests['tables'][:16]}…, got "
            f"{tables_digest(tables)[:16]}…; `filterdb verify` names the objects; {RESTORE}"
        )
    return tables


def _differs(url: str, expected: str, data: bytes) -> str:
    return f"{url}: expected SHA-256 {expected[:16]}… as in the snapshot, got {digest(data)[:16]}…; {RESTORE}"


def to_dataset(
    tables: Tables, kinds: tuple[schema.Variable, ...], attrs: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Table variables as an xarray Dataset, text as objects (so that pandas and plots take it)."""
    variables = {}
    for variable in kinds:
        values = variable.array(tables[variable.name])
        plain = values.astype(object) if variable.dtype == "str" else values
        variables[variable.name] = xr.Variable(variable.dims, plain, variable.attrs)
    return xr.Dataset(variables, attrs=dict(attrs or {}))
