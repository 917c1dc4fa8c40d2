"""Write the chunks of a partition on a worker: fill a buffer from models, write it, compute moments and sketches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from filterdb import schema
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.partition import Partition
from filterdb.engine.parts import Part, count, fold, reduce_partition
from filterdb.engine.reduction import Reduction
from filterdb.engine.sketches import SketchReduction
from filterdb.errors import InputError, ModelError, StoreError, StoreMissingError
from filterdb.models.catalog import ModelSource
from filterdb.models.inputs import local_copy
from filterdb.models.sandbox import Limits
from filterdb.models.scan import reading, received
from filterdb.models.spool import Spool
from filterdb.store.ranged import again_if_changed
from filterdb.store.remote import is_remote, store_errors
from filterdb.store.segment import Segment
from filterdb.wording import counted


def taken(weights: int) -> tuple[Reduction, ...]:
    """Return the reductions that are computed while rows of so many weights are written."""
    return MomentsReduction(weights), SketchReduction()


_COPIED = 16_384
"""Rows that are copied at a time. They stay in a core's cache from the check to the copy."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The layers of a model within a task: names, checksums, sizes, and the first row of each in the segment."""

    source: ModelSource
    names: tuple[str, ...]
    checksums: tuple[int, ...]
    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    kernel: schema.Kernel = schema.KERNEL


class LostModelError(InputError):
    """The file of a model cannot be read as it was scanned. `model` is its id."""

    def __init__(self, message: str, model: str = "") -> None:
        super().__init__(message)
        self.model = model


Fill = Callable[[np.ndarray, int], None]
"""Fills all rows of a buffer (n, weights) float32, whose first row is the given row of the segment."""


def write_partition(partition: Partition, fill: Fill, *, resume: bool) -> list[Part]:
    """Write the chunks of a partition, and return the moments and sketches of its rows.

    They are computed while the rows are in memory, so that a new database needs no first pass. With `resume`,
    intact chunks are kept. Memory: the rows of the partition, a chunk, and what `fill` takes.
    """
    segment, chunks = partition.segment, partition.chunks
    missing = [chunk for chunk in chunks if not (resume and segment.has_chunk(chunk))]
    if not missing:
        return reduce_partition(partition, taken(segment.weights))
    first, last = segment.bounds(missing[0])[0], segment.bounds(missing[-1])[1]
    if len(missing) == 1:
        buffer = segment.new_rows(missing[0])
    else:
        buffer = np.empty((last - first, segment.weights), np.float32, order="F")
    fill(buffer, first)
    if len(missing) < len(chunks):
        _write_chunks(segment, missing, buffer)
        return reduce_partition(partition, taken(segment.weights))
    with ThreadPoolExecutor(1) as pool:  # writing mostly waits for the disk or the network
        writing = pool.submit(_write_chunks, segment, missing, buffer)
        parts = fold(partition, _columns(partition, buffer), taken(segment.weights))
        writing.result()
    count("ingest", partition)
    return parts


def _write_chunks(segment: Segment, chunks: Sequence[int], buffer: np.ndarray) -> None:
    """Write chunks from a buffer that begins with the first of them."""
    first = segment.bounds(chunks[0])[0]
    for chunk in chunks:
        start, stop = segment.bounds(chunk)
        segment.write_chunk(chunk, buffer[start - first : stop - first])


@dataclass(frozen=True, slots=True)
class FromModels:
    """Fills a buffer from the models whose layers overlap it: from memory, or read again in child processes."""

    pieces: tuple[Piece, ...]
    limits: Limits
    spool: Spool | None = None

    def __call__(self, buffer: np.ndarray, first: int) -> None:
        """Fill the buffer. Raises LostModelError if a model has changed since the scan, or can no longer be fetched."""
        filled = 0
        for piece in self.pieces:
            try:
                layers = None if self.spool is None else self.spool.layers(piece.source.id)
                if layers is not None:
                    filled += _fill_from(layers, buffer, first, piece)
                    continue
                filled += again_if_changed(partial(_fill, buffer, first, piece, self.limits))
            except (StoreMissingError, ModelError) as error:
                raise LostModelError(
                    f"model {piece.source.id!r}: {piece.source.shown} was removed or changed after the scan; run again",
                    piece.source.id,
                ) from error
            except StoreError as error:
                if not is_remote(piece.source.url):
                    raise
                raise LostModelError(str(error), piece.source.id) from error
        if filled != len(buffer):  # the uninitialised rest of the buffer would be committed as filters
            raise InputError(
                f"rows starting at {first:,}: expected {counted(len(buffer), 'filter')} from the models of the plan, "
                f"got {filled:,}; nothing was written, run again"
            )


def _columns(partition: Partition, buffer: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the chunks in the buffer as arrays like those that reading the chunks would return."""
    segment = partition.segment
    if len(partition.chunks) == 1:
        yield segment.columns(buffer)
        return
    first = segment.bounds(partition.chunks[0])[0]
    for chunk in partition.chunks:
        start, stop = segment.bounds(chunk)
        columns = np.ascontiguousarray(buffer[start - first : stop - first].T)
        columns.flags.writeable = False
        yield columns


@dataclass(frozen=True, slots=True)
class _Overlap:
    """The part of a layer that is in a buffer: rows [begin, end) of the layer, whose first is the buffer's row `to`."""

    name: str
    checksum: int
    size: int
    begin: int
    end: int
    to: int


def _overlaps(buffer: np.ndarray, first: int, piece: Piece) -> list[_Overlap]:
    """Return the parts of a model's layers that are in the buffer, whose first row is the segment's row `first`.

    If some chunks exist already, the buffer holds only a part of the partition.
    """
    last = first + len(buffer)
    return [
        _Overlap(name, checksum, size, max(first - start, 0), min(last - start, size), max(start - first, 0))
        for name, checksum, size, start in zip(piece.names, piece.checksums, piece.sizes, piece.starts, strict=True)
        if start < last and first < start + size
    ]


def _fill_from(layers: Mapping[str, np.ndarray], buffer: np.ndarray, first: int, piece: Piece) -> int:
    """Copy a model's rows from its layers in memory."""
    filled = 0
    for part in _overlaps(buffer, first, piece):
        filled += _copy(layers[part.name][part.begin : part.end], buffer, part, piece)
    return filled


def _fill(buffer: np.ndarray, first: int, piece: Piece, limits: Limits) -> int:
    """Copy a model's rows from its file, which a child reads."""
    filled = 0
    overlaps = _overlaps(buffer, first, piece)
    if not overlaps:
        return 0
    request = {
        "do": "filters",
        "wanted": [(part.name, part.begin, part.end) for part in overlaps],
        "kernels": [list(piece.kernel)],
    }
    with (
        local_copy(piece.source.url) as local,
        store_errors("reading", piece.source.shown),
        reading(piece.source, local, limits, request) as (channel, _),
    ):
        channel.send({"go": True})
        for part in overlaps:
            if received(channel, local) != {"rows": part.size, "checksum": part.checksum}:
                raise LostModelError(
                    f"model {piece.source.id!r} layer {part.name!r}: the weights differ from the scan; "
                    f"{piece.source.shown} changed after it, run again",
                    piece.source.id,
                )
            rows = np.empty((part.end - part.begin, buffer.shape[1]), np.float32)
            channel.receive_into(rows)
            filled += _copy(rows, buffer, part, piece)
    return filled


def _copy(rows: np.ndarray, buffer: np.ndarray, part: _Overlap, piece: Piece) -> int:
    """Copy the rows of a layer to their place in the buffer, and return how many they are.

    Raises LostModelError if a weight is not a finite number: a child that a hostile file controls may send anything.
    """
    for start in range(0, len(rows), _COPIED):
        block = rows[start : start + _COPIED]
        if not np.isfinite(block).all():
            raise LostModelError(
                f"model {piece.source.id!r} layer {part.name!r}: a weight is NaN or infinite; remove the model",
                piece.source.id,
            )
        buffer[part.to + start : part.to + start + len(block)] = block
    return len(rows)
