"""Segments: immutable Zarr groups, whose filters are written and read by whole chunks.

Inside a chunk, filters are stored column by column ([transpose, bytes, crc32c]), because the loops run along columns
and need no second copy of a decoded chunk. Every chunk has a CRC32C. Reading a missing chunk raises an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import crc32c
import numpy as np

from filterdb import schema
from filterdb.errors import DamageError, ExpiredSnapshotError, FilterDBError, StoreMissingError
from filterdb.plan import chunk_count
from filterdb.store.canonical import digest
from filterdb.store.collected import is_collected
from filterdb.store.files import Files
from filterdb.store.remote import store_errors

CRC_BYTES = 4

RESTORE = "restore it from a copy, or go back with `filterdb restore`"
"""The remedy for damage to a segment."""

Tables = Mapping[str, np.ndarray]
"""Every variable of schema.TABLES by name."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The location and size of a segment, or of one of its banks. It is small enough to be part of every task."""

    files: Files
    id: str
    rows: int
    chunk_rows: int
    kernel: schema.Kernel = schema.KERNEL
    """Shape of the filters. The 3×3 filters are at the root of the segment's group, all others in groups below it."""

    @property
    def name(self) -> str:
        """Name of its Zarr group below the root of the database."""
        return f"{segment_name(self.id)}{self._bank}"

    @property
    def summarised_as(self) -> str:
        """Name of its folder of summaries."""
        return f"{self.id}{self._bank}"

    @property
    def _bank(self) -> str:
        return "" if self.kernel == schema.KERNEL else f"/{schema.kernel_name(self.kernel)}"

    @property
    def variable(self) -> str:
        """Name of the filters in the segment's group, such as filters or 5x5/filters."""
        return schema.in_pack(schema.kernel_name(self.kernel), schema.FILTERS.name)

    def bank(self, kernel: schema.Kernel, rows: int, chunk_rows: int) -> Segment:
        """Return a bank of the segment with so many filters."""
        return Segment(self.files, self.id, rows, chunk_rows, kernel)

    @property
    def weights(self) -> int:
        """Number of weights of a filter."""
        return self.kernel[0] * self.kernel[1]

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return chunk_count(self.rows, self.chunk_rows)

    @property
    def reading_bytes(self) -> int:
        """Memory that a thread needs to read a chunk: mapped pages, or the object that is fetched."""
        return self.files.reading_bytes(self.chunk_bytes)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a chunk."""
        return chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows)

    def chunk_name(self, chunk: int) -> str:
        """Return the name of a chunk's object."""
        return f"{self.name}/{schema.FILTERS.name}/c/{chunk}/0"

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk's object."""
        return self.weights * self.chunk_rows * 4 + CRC_BYTES

    def read_chunk(self, chunk: int) -> np.ndarray:
        """Read a chunk's filters, (n, weights) float32, without padding."""
        start, stop = self.bounds(chunk)
        return np.ascontiguousarray(self.read_columns(chunk)[:, : stop - start].T)

    def read_columns(self, chunk: int) -> np.ndarray:
        """Read a chunk as it is stored: columns (weights, chunk_rows) float32, read-only, with padding.

        Passes use this method. `zarr_group.CODECS` need no decoding: the array is a view of the object without its
        checksum, which is verified. No memory is allocated: a local chunk is mapped from the page cache until the array
        is deleted.
        """
        return self.files.retry_on_damage(lambda: self._read_columns(chunk))

    def _read_columns(self, chunk: int) -> np.ndarray:
        size = self.weights * self.chunk_rows * 4
        where = f"{self.files.url(self.name)}/{schema.FILTERS.name} chunk {chunk}"
        with (
            self.damage(schema.FILTERS.name, chunk),
            self.files.opened(self.chunk_name(chunk), self.chunk_bytes) as file,
        ):
            if file.size != self.chunk_bytes:
                raise DamageError(f"{where}: expected {self.chunk_bytes} bytes, got {file.size}; {RESTORE}")
            checksum = 0
            for piece in file.pieces(size):
                checksum = crc32c.crc32c(piece, checksum)
            data = file.whole()
            if checksum != int.from_bytes(data[size:], "little"):
                raise ValueError("its checksum does not match")
            return np.frombuffer(data[:size], "<f4").reshape(self.weights, self.chunk_rows)

    def write_chunk(self, chunk: int, filters: np.ndarray) -> None:
        """Write a chunk (n, weights) float32 atomically. The last chunk is padded with NaN.

        The result is that of `zarr_group.CODECS`, with one copy, where Zarr makes four, and with none for `new_rows`.
        """
        start, stop = self.bounds(chunk)
        if filters.shape != (stop - start, self.weights):  # missing filters would be stored as NaN
            raise ValueError(
                f"{self.files.url(self.name)} chunk {chunk}: expected filters of shape "
                f"{(stop - start, self.weights)}, got {filters.shape}; nothing was written"
            )
        size = self.weights * self.chunk_rows * 4
        data = self._object_of(filters)
        if data is None:
            data = np.empty(self.chunk_bytes, np.uint8)
            self._columns_of(data)[:, : stop - start] = filters.T
        self._columns_of(data)[:, stop - start :] = np.nan
        checksum = crc32c.crc32c(data[:size].data).to_bytes(CRC_BYTES, "little")
        data[size:] = np.frombuffer(checksum, np.uint8)
        self.files.put({self.chunk_name(chunk): data.data})

    def new_rows(self, chunk: int) -> np.ndarray:
        """Return an array for the filters of a chunk, (n, weights) float32, in a new object for `write_chunk`."""
        start, stop = self.bounds(chunk)
        # NumPy asks for huge pages: a bytearray takes several times as long to allocate.
        return self._columns_of(np.empty(self.chunk_bytes, np.uint8))[:, : stop - start].T

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """Return the columns of `new_rows`, (weights, chunk_rows), as `read_columns` returns those of a chunk."""
        data = self._object_of(rows)
        if data is None:
            raise ValueError(f"expected an array of `new_rows`, got one of shape {rows.shape}")
        columns = self._columns_of(data)
        columns.flags.writeable = False
        return columns

    def _columns_of(self, data: np.ndarray) -> np.ndarray:
        """Return the columns in the bytes of a chunk's object, (weights, chunk_rows) float32."""
        return data[:-CRC_BYTES].view("<f4").reshape(self.weights, self.chunk_rows)

    def _object_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the bytes of the object in which `new_rows` has placed these filters; None for other filters."""
        data = rows.base
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (self.chunk_bytes,):
            return None
        is_first = rows.ctypes.data == data.ctypes.data
        return data if is_first and rows.strides == (4, 4 * self.chunk_rows) else None

    def has_chunk(self, chunk: int) -> bool:
        """Return whether a chunk exists and is undamaged."""
        try:
            self.read_chunk(chunk)
        except (DamageError, StoreMissingError):
            return False
        return True

    def changed_objects(self, expected: Mapping[str, str]) -> dict[str, str]:
        """Return what is wrong with objects of the Zarr group, by name, given the SHA-256 of each."""
        contents = self.files.read_many([f"{self.name}/{name}" for name in expected])
        problems = {}
        for name, sha256 in expected.items():
            data = contents.get(f"{self.name}/{name}")
            if data is None:
                problems[name] = "missing"
            elif digest(data) != sha256:
                problems[name] = f"expected SHA-256 {sha256[:16]}…, got {digest(data)[:16]}…"
        return problems

    @contextmanager
    def damage(self, variable: str, chunk: int | None = None) -> Iterator[None]:
        """Turn errors of reading a damaged variable into DamageError with a message that names the variable."""
        url = self.files.url(f"{self.name}/{variable}") + ("" if chunk is None else f" chunk {chunk}")
        try:
            with store_errors("reading", url):
                yield
        except (DamageError, ExpiredSnapshotError):
            raise
        except StoreMissingError as error:
            raise missing(self, url) from error
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise DamageError(
                f"{url}: expected the bytes that were committed, got damage ({reason}); {RESTORE}"
            ) from error


def segment_name(segment_id: str) -> str:
    """Return the name of a segment's Zarr group below the root."""
    return f"segments/{segment_id}.zarr"


def pack_name(segment_id: str) -> str:
    """Return the name of the object with a segment's tables."""
    return f"segments/{segment_id}.safetensors"


_ADDITION = "addition/"
"""Precedes the number and the id of an addition among a segment's digests."""


def with_addition(digests: Mapping[str, str], addition_id: str, sha256: str) -> dict[str, str]:
    """Return the digests of a segment with one more addition, whose tables have this SHA-256."""
    return {**digests, f"{_ADDITION}{len(additions(digests))}/{addition_id}": sha256}


def additions(digests: Mapping[str, str]) -> dict[str, str]:
    """Return the additions to a segment with these digests, in their order: id → SHA-256 of its tables."""
    names = [name.split("/") for name in digests if name.startswith(_ADDITION)]
    return {name[2]: digests["/".join(name)] for name in sorted(names, key=lambda name: int(name[1]))}


def missing(segment: Segment, url: str) -> FilterDBError:
    """Return the error for a missing object of a segment: damage, unless `gc` has removed it with its snapshots."""
    if is_collected(segment.files, segment.id):
        return ExpiredSnapshotError(
            f"{url}: expected a segment of the history, its snapshots have expired and `filterdb gc` has removed it; "
            "open the database anew"
        )
    return DamageError(f"{url}: the object is missing; {RESTORE}")


def differs(url: str, expected: str, data: bytes) -> str:
    """Return the message for an object that is not the one that was committed."""
    return f"{url}: expected SHA-256 {expected[:16]}… as in the snapshot, got {digest(data)[:16]}…; {RESTORE}"
