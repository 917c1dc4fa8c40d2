"""A new segment, from its tables to the snapshot that lists it: what every ingest, import and compaction does."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from filterdb import cluster, logs, plan, schema
from filterdb.cluster import Memory
from filterdb.errors import InterruptedRunError
from filterdb.ingest.write import TAKEN, Fill, write_partition
from filterdb.reduce import passes
from filterdb.reduce.passes import Part, Partition
from filterdb.store import lease
from filterdb.store import segment as segments
from filterdb.store import snapshot as snapshots
from filterdb.store.canonical import canonical
from filterdb.store.files import Files
from filterdb.store.segment import Segment, Tables
from filterdb.store.snapshot import Entry, Snapshot
from filterdb.store.verify import check_presence

log = logging.getLogger(__name__)

Filler = Callable[[Partition], Fill]
"""Makes what fills a partition's rows: sent to the worker that writes it."""


def new_segment(files: Files, tables: Tables, made_from: Mapping[str, Any], chunk_rows: int) -> Segment:
    """The segment of these tables. Its id is the hash of all that it is made from.

    The tables are part of it: whoever reads a model differently, in the last digit of a table or in the words of a
    reason, makes another segment and never writes over this one.
    """
    rows = int(tables["row_size"].sum())
    size = plan.chunk_rows(rows, chunk_rows)
    content = {**made_from, "format": SEGMENT_FORMAT, "chunk_rows": size, "tables": segments.tables_digest(tables)}
    return Segment(files, hashlib.sha256(canonical(content)).hexdigest()[:20], rows, size)


SEGMENT_FORMAT = 1
"""Version of a segment's own layout: part of its id."""


def add(segment: Segment, tables: Tables, filler: Filler, base: Snapshot | None, on_top: OnTop) -> Snapshot:
    """Write a segment and commit the snapshot that `on_top` makes with it; gives what was committed.

    What an earlier run has left of the segment, present and whole, is not written again. Nothing lists the segment
    before all of it is there; after a failure nothing is removed.
    """
    files = segment.files
    logs.event(log, "writing", url=files.root, segment=segment.id, filters=segment.rows, chunks=segment.chunks)
    with lease.writing(files, segment.id):
        digests = segments.create(segment, tables)
        for reduction, part in zip(TAKEN, _write(segment, tables, filler), strict=True):
            passes.store(segment, dict(tables), reduction, part)
        missing = check_presence(segment)
        if missing:
            raise InterruptedRunError(
                f"{files.url(segment.name)}: expected every chunk that was written, chunk {missing[0].chunk} is "
                f"{missing[0].what}; somebody removes what belongs to this ingest, run again"
            )
        entry = Entry(
            id=segment.id,
            filters=segment.rows,
            layers=len(tables["row_size"]),
            models=len(tables["model"]),
            skipped=len(tables["skipped_model"]),
            chunk_rows=segment.chunk_rows,
            digests=digests,
        )
        return snapshots.commit(files, base, lambda head: on_top(head, entry))


OnTop = Callable[[Snapshot | None, Entry], Snapshot | None]
"""Makes the snapshot to commit on top of one, with a new segment; None where it has it. Raises ConflictError."""


def _write(segment: Segment, tables: Tables, filler: Filler) -> list[Part]:
    """Write every chunk, a task per partition; gives the segment's moments."""
    resume = bool(segment.files.list(f"{segment.name}/{schema.FILTERS.name}/c"))
    token = uuid.uuid4().hex[:8]
    tasks = [
        cluster.task(
            f"write-{token}-{partition.chunks[0]}",
            partial(write_partition, partition, filler(partition), resume=resume),
        )
        for partition in passes.partitions(segment, dict(tables))
    ]
    (parts,) = cluster.run([passes.merge_tree(tasks, TAKEN, f"write-{token}")], "write", _projected(segment, tables))
    return list(parts)


def _projected(segment: Segment, tables: Tables) -> Memory:
    """Bytes that writing takes of a worker: a task's rows, a chunk as it is encoded and one as it is put."""
    rows = max((len(one) for one in plan.partitions(segment.chunks, segment.chunk_rows)), default=0)
    chunk = segment.chunk_bytes
    reading = passes.projected(segment, dict(tables), TAKEN)
    return Memory(rows * chunk + 3 * chunk + reading.per_thread, reading.once)


def stack(rows: list[dict[str, Any]], kinds: tuple[schema.Variable, ...]) -> dict[str, np.ndarray]:
    """Rows as the arrays of the variables."""
    return {variable.name: variable.array([row[variable.name] for row in rows]) for variable in kinds}
