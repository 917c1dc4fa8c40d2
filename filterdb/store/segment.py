"""Segments: immutable Zarr groups, created with their tables, filled by whole chunks, and opened as xarray.

Inside a chunk, filters are stored column by column ([transpose, bytes, crc32c]), because the loops run along columns
and need no second copy of a decoded chunk. Every chunk has a CRC32C. Reading a missing chunk raises an error.
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
"""The codecs of a chunk of filters."""

CRC_BYTES = 4

_OLD_MANIFEST = "manifest.json"
"""Name of the manifest inside the Zarr group in format 2. It moved because Zarr warns about unknown objects."""

RESTORE = "restore it from a copy, or go back with `filterdb restore`"
"""The remedy for damage to a segment."""

_CONFIG: Any = {"write_empty_chunks": True, "read_missing_chunks": False}
"""By default, Zarr omits chunks that equal the fill value, and reads missing chunks as fill value. Prevent both."""

Tables = Mapping[str, np.ndarray]
"""Every variable of schema.TABLES by name."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment's location and size. It is small enough to be part of every task."""

    files: Files
    id: str
    rows: int
    chunk_rows: int

    @property
    def name(self) -> str:
        """Name of its Zarr group below the root."""
        return segment_name(self.id)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return chunk_count(self.rows, self.chunk_rows)

    @property
    def reading_bytes(self) -> int:
        """Memory that a thread needs to read a chunk: mapped pages, or the object that is fetched."""
        chunk = schema.WEIGHTS * self.chunk_rows * 4
        # A client holds an object twice while it joins its pieces.
        return 2 * chunk if self.files.remote else chunk

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a chunk."""
        return chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows)

    def chunk_name(self, chunk: int) -> str:
        """Return the name of a chunk's object."""
        return f"{self.name}/{schema.FILTERS.name}/c/{chunk}/0"

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk's object."""
        return schema.WEIGHTS * self.chunk_rows * 4 + CRC_BYTES

    def read_chunk(self, chunk: int) -> np.ndarray:
        """Read a chunk's filters, (n, 9) float32, without padding."""
        start, stop = self.bounds(chunk)
        return np.ascontiguousarray(self.read_columns(chunk)[:, : stop - start].T)

    def read_columns(self, chunk: int) -> np.ndarray:
        """Read a chunk as it is stored: columns (9, chunk_rows) float32, read-only, with padding.

        Passes use this method. CODECS need no decoding: the array is a view of the object without its checksum, which
        is verified. No memory is allocated: a local chunk is mapped from the page cache until the array is deleted.
        """
        return self.files.retry_on_damage(lambda: self._read_columns(chunk))

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
                raise ValueError("its checksum does not match")
            return np.frombuffer(data[:size], "<f4").reshape(schema.WEIGHTS, self.chunk_rows)

    def write_chunk(self, chunk: int, filters: np.ndarray) -> None:
        """Write a chunk (n, 9) float32 atomically. The last chunk is padded with NaN.

        The result is that of CODECS, but with one copy, where Zarr makes four.
        """
        start, stop = self.bounds(chunk)
        if filters.shape != (stop - start, schema.WEIGHTS):  # missing filters would be stored as NaN
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
        """Return whether a chunk exists and is undamaged."""
        try:
            self.read_chunk(chunk)
        except (DamageError, StoreMissingError):
            return False
        return True

    @contextmanager
    def damage(self, variable: str, chunk: int | None = None) -> Iterator[None]:
        """Turn errors of reading a damaged variable into DamageError with a message that names the variable."""
        url = self.files.url(f"{self.name}/{variable}") + ("" if chunk is None else f" chunk {chunk}")
        try:
            with store_errors("reading", url):
                yield
        except DamageError:
            raise
        except (StoreMissingError, ChunkNotFoundError) as error:
            raise DamageError(f"{url}: the object is missing; {RESTORE}") from error
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise DamageError(
                f"{url}: expected the bytes that were committed, got damage ({reason}); {RESTORE}"
            ) from error


def segment_name(segment_id: str) -> str:
    """Return the name of a segment's Zarr group below the root."""
    return f"segments/{segment_id}.zarr"


def manifest_name(segment_id: str) -> str:
    """Return the name of a segment's manifest, which lists the SHA-256 of every object except the chunks."""
    return f"manifests/{segment_id}.json"


@dataclass(frozen=True, slots=True)
class Created:
    """The digests of a new segment, for the snapshot, and the sizes of its objects by name."""

    digests: dict[str, str]
    sizes: dict[str, int]


def create(segment: Segment, tables: Tables) -> Created:
    """Write a segment's metadata and tables. The chunks are written later, by `write_chunk`.

    The objects are made in memory and then written, the manifest last, so that its presence means that all are there.
    Since the segment's id depends on the tables, every writer of the segment writes the same bytes. Objects that exist
    with these bytes are not written again.
    """
    objects = _group_objects(segment, tables)
    manifest = canonical({name: digest(data) for name, data in objects.items()})
    digests = {"metadata": digest(objects["zarr.json"]), "tables": tables_digest(tables), "manifest": digest(manifest)}
    by_full_name = {f"{segment.name}/{name}": data for name, data in objects.items()}
    listing = segment.files.list(segment.name)
    stored = segment.files.read_many([name for name in by_full_name if name in listing])
    segment.files.put({name: data for name, data in by_full_name.items() if stored.get(name) != data})
    last = manifest_name(segment.id)
    if segment.files.read_many([last]).get(last) != manifest:
        segment.files.put({last: manifest})
    return Created(digests, {name: len(data) for name, data in by_full_name.items()})


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
    contents = segment.files.read_many([f"{segment.name}/{name}" for name in manifest])
    problems = {}
    for name, expected in manifest.items():
        data = contents.get(f"{segment.name}/{name}")
        if data is None:
            problems[name] = "missing"
        elif digest(data) != expected:
            problems[name] = f"expected SHA-256 {expected[:16]}…, got {digest(data)[:16]}…"
    return problems


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
            raise DamageError(_differs(url, digests["manifest"], data))
        manifest: dict[str, str] = json.loads(data)
        return manifest

    return segment.files.retry_on_damage(read)


def _group_objects(segment: Segment, tables: Tables) -> dict[str, bytes]:
    """Make every object of the Zarr group except the chunks of filters, by name."""
    buffers: dict[str, Buffer] = {}
    store = MemoryStore(buffers)
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
        # Zarr warns that version 3 does not specify consolidated metadata. Without it, xarray warns every reader.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(store)
    return {name: buffer.to_bytes() for name, buffer in buffers.items()}


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


def tables_digest(tables: Tables, written_as: int = schema.FORMAT) -> str:
    """Compute the SHA-256 of the table variables of a format in the schema's order: names, shapes and values."""
    sha256 = hashlib.sha256()
    for variable in _variables_of(written_as):
        values = variable.array(tables[variable.name])
        sha256.update(f"{variable.name}{values.shape}".encode())
        if variable.dtype == "str":
            sha256.update(json.dumps([str(value) for value in values]).encode())
        else:
            sha256.update(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
    return sha256.hexdigest()


def _variables_of(written_as: int) -> list[schema.Variable]:
    """Return the table variables of a format."""
    return [variable for variable in schema.TABLES if variable.since <= written_as]


def read_tables(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read a segment's tables and verify them against the snapshot's digests. Raises DamageError."""
    return segment.files.retry_on_damage(lambda: _read_tables(segment, digests))


def _read_tables(segment: Segment, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    names = ["zarr.json", *(f"{variable.name}/c/0" for variable in schema.TABLES)]
    contents = segment.files.read_many([f"{segment.name}/{name}" for name in names])
    objects = {name: contents[f"{segment.name}/{name}"] for name in names if f"{segment.name}/{name}" in contents}
    if "zarr.json" not in objects:
        raise DamageError(f"{segment.files.url(segment.name)}/zarr.json: the object is missing; {RESTORE}")
    if digest(objects["zarr.json"]) != digests["metadata"]:
        url = segment.files.url(f"{segment.name}/zarr.json")
        raise DamageError(_differs(url, digests["metadata"], objects["zarr.json"]))
    tables = {}
    with segment.damage("tables"):
        prototype = default_buffer_prototype()
        store = MemoryStore({name: prototype.buffer.from_bytes(data) for name, data in objects.items()}, read_only=True)
        group = zarr.open_group(store, mode="r", use_consolidated=True)
    stated = group.attrs.get("filterdb_format")
    written_as = stated if isinstance(stated, int) else 1
    for variable in _variables_of(written_as):
        with segment.damage(variable.name):
            array = group[variable.name]
            if not isinstance(array, zarr.Array):
                raise TypeError("expected an array, got a group")
            tables[variable.name] = variable.array(array.with_config(_CONFIG)[:])
    if tables_digest(tables, written_as) != digests["tables"]:
        # The checksum of each object was correct, so whole objects must have been exchanged.
        raise DamageError(
            f"{segment.files.url(segment.name)}: expected tables with SHA-256 {digests['tables'][:16]}…, got "
            f"{tables_digest(tables, written_as)[:16]}…; `filterdb verify` names the objects; {RESTORE}"
        )
    return _completed(tables)


def _completed(tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the variables that the format of an earlier segment did not have."""
    rows = {"layer": len(tables["row_size"]), "model": len(tables["model"])}
    return tables | {
        variable.name: variable.array([variable.missing] * rows[variable.dims[0]])
        for variable in schema.TABLES
        if variable.name not in tables
    }


def _differs(url: str, expected: str, data: bytes) -> str:
    return f"{url}: expected SHA-256 {expected[:16]}… as in the snapshot, got {digest(data)[:16]}…; {RESTORE}"


def to_dataset(
    tables: Tables, kinds: tuple[schema.Variable, ...], attrs: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Convert table variables to an xarray Dataset. Text becomes object arrays, which pandas and plots support."""
    variables = {}
    for variable in kinds:
        values = variable.array(tables[variable.name])
        plain = values.astype(object) if variable.dtype == "str" else values
        variables[variable.name] = xr.Variable(variable.dims, plain, variable.attrs)
    return xr.Dataset(variables, attrs=dict(attrs or {}))
