"""Write the chunks of a partition on a worker: fill a buffer from models, write it, compute moments and sketches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

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
from filterdb.schema import WEIGHTS
from filterdb.store.ranged import again_if_changed
from filterdb.store.remote import is_remote, store_errors

TAKEN: tuple[Reduction, ...] = (MomentsReduction(), SketchReduction())
"""The reductions that are computed while the rows are written."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The layers of a model within a task: names, checksums, sizes, and the first row of each in the segment."""

    source: ModelSource
    names: tuple[str, ...]
    checksums: tuple[int, ...]
    sizes: tuple[int, ...]
    starts: tuple[int, ...]


class LostModelError(InputError):
    """The file of a model cannot be read as it was scanned. `model` is its id."""

    def __init__(self, message: str, model: str = "") -> None:
        super().__init__(message)
        self.model = model


Fill = Callable[[np.ndarray, int], None]
"""Fills all rows of a buffer (n, 9) float32, whose first row is the given row of the segment."""


def write_partition(partition: Partition, fill: Fill, *, resume: bool) -> list[Part]:
    """Write the chunks of a partition, and return the moments and sketches of its rows.

    They are computed while the rows are in memory, so that a new database needs no first pass. With `resume`,
    intact chunks are kept. Memory: the rows of the partition, a chunk, and what `fill` takes.
    """
    segment, chunks = partition.segment, partition.chunks
    missing = [chunk for chunk in chunks if not (resume and segment.has_chunk(chunk))]
    if not missing:
        return reduce_partition(partition, TAKEN)
    first, last = segment.bounds(missing[0])[0], segment.bounds(missing[-1])[1]
    buffer = np.empty((last - first, WEIGHTS), np.float32, order="F")
    fill(buffer, first)
    for chunk in missing:
        start, stop = segment.bounds(chunk)
        segment.write_chunk(chunk, buffer[start - first : stop - first])
    if len(missing) < len(chunks):
        return reduce_partition(partition, TAKEN)
    parts = fold(partition, _columns(partition, buffer), TAKEN)
    count("ingest", partition)
    return parts


@dataclass(frozen=True, slots=True)
class FromModels:
    """Fills a buffer from the models whose layers overlap it, read in child processes."""

    pieces: tuple[Piece, ...]
    limits: Limits

    def __call__(self, buffer: np.ndarray, first: int) -> None:
        """Fill the buffer. Raises LostModelError if a model has changed since the scan, or can no longer be fetched."""
        filled = 0
        for piece in self.pieces:
            try:
                filled += again_if_changed(partial(_fill, buffer, first, piece, self.limits))
            except (StoreMissingError, ModelError) as error:
                raise LostModelError(
                    f"model {piece.source.id!r}: expected the file that the scan saw, {piece.source.shown} is gone or "
                    "changed meanwhile; run again",
                    piece.source.id,
                ) from error
            except StoreError as error:
                if not is_remote(piece.source.url):
                    raise
                raise LostModelError(str(error), piece.source.id) from error
        if filled != len(buffer):  # the uninitialised rest of the buffer would be committed as filters
            raise InputError(
                f"filters from row {first:,} on: expected {len(buffer):,} from the models of the plan, got {filled:,}; "
                "nothing was written, run again"
            )


def _columns(partition: Partition, buffer: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the chunks in the buffer as arrays like those that reading the chunks would return."""
    first = partition.segment.bounds(partition.chunks[0])[0]
    for chunk in partition.chunks:
        start, stop = partition.segment.bounds(chunk)
        columns = np.ascontiguousarray(buffer[start - first : stop - first].T)
        columns.flags.writeable = False
        yield columns


def _fill(buffer: np.ndarray, first: int, piece: Piece, limits: Limits) -> int:
    """Copy a model's rows into the buffer, whose first row is the segment's row `first`."""
    filled = 0
    last = first + len(buffer)
    layers = zip(piece.names, piece.checksums, piece.sizes, piece.starts, strict=True)
    # If some chunks exist already, the buffer holds only a part of the partition.
    overlapping = [layer for layer in layers if layer[3] < last and first < layer[3] + layer[2]]
    if not overlapping:
        return 0
    wanted = [(name, max(first - start, 0), min(last - start, size)) for name, _, size, start in overlapping]
    request = {"do": "filters", "wanted": wanted}
    with (
        local_copy(piece.source.url) as local,
        store_errors("reading", piece.source.shown),
        reading(piece.source, local, limits, request) as (channel, _),
    ):
        channel.send({"go": True})
        for (name, begin, end), (_, checksum, size, start) in zip(wanted, overlapping, strict=True):
            if received(channel, local) != {"rows": size, "checksum": checksum}:
                raise LostModelError(
                    f"model {piece.source.id!r} layer {name!r}: expected the weights that the scan saw, got others; "
                    f"{piece.source.shown} changed meanwhile, run again",
                    piece.source.id,
                )
            rows = np.empty((end - begin, WEIGHTS), np.float32)
            channel.receive_into(rows)
            if not np.isfinite(rows).all():  # a child that a hostile file controls may send anything
                raise LostModelError(
                    f"model {piece.source.id!r} layer {name!r}: expected numbers, got others; remove it",
                    piece.source.id,
                )
            buffer[start + begin - first : start + end - first] = rows
            filled += len(rows)
    return filled
