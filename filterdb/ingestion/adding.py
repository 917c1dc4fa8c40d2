"""A new segment, from its tables to the snapshot that lists it: what every ingest, import and compaction does."""

from __future__ import annotations

import hashlib
import itertools
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from filterdb import cluster, logs, plan, schema
from filterdb.cluster import Memory
from filterdb.engine import checkpoint, graph, partition
from filterdb.engine.partition import Partition
from filterdb.engine.parts import Part
from filterdb.errors import InterruptedRunError, StoreError
from filterdb.ingestion.write import TAKEN, Fill, write_partition
from filterdb.store import lease
from filterdb.store import segment as segments
from filterdb.store import snapshot as snapshots
from filterdb.store.canonical import canonical
from filterdb.store.files import Files
from filterdb.store.segment import Created, Segment, Tables
from filterdb.store.snapshot import Entry, Snapshot
from filterdb.store.verify import check_created

log = logging.getLogger(__name__)

Filler = Callable[[Partition], Fill]
"""Makes what fills a partition's rows: sent to the worker that writes it."""


def new_segment(
    files: Files, tables: Tables, made_from: Mapping[str, Any], chunk_rows: int, base: Snapshot | None
) -> Segment:
    """Return the segment of these tables. Its id is the hash of all that it is made from.

    The tables are part of it: whoever reads a model differently, in the last digit of a table or in the words of a
    reason, makes another segment and never writes over this one. So is how often `gc` has collected it before `base`:
    a collector that was suspended may still be about to remove the objects of an id that it collected.
    """
    rows = int(tables["row_size"].sum())
    size = plan.chunk_rows(rows, chunk_rows)
    content = {**made_from, "format": SEGMENT_FORMAT, "chunk_rows": size, "tables": segments.tables_digest(tables)}
    collected = set() if base is None else set(base.collected)
    for generation in itertools.count():
        numbered = {**content, "generation": generation} if generation else content
        segment_id = hashlib.sha256(canonical(numbered)).hexdigest()[:20]
        if segment_id not in collected:
            return Segment(files, segment_id, rows, size)
    raise AssertionError("unreachable")


SEGMENT_FORMAT = 2
"""Version of a segment's own layout: part of its id. 2: the manifest lies beside the Zarr group."""


def add(segment: Segment, tables: Tables, filler: Filler, base: Snapshot | None, on_top: OnTop) -> Snapshot:
    """Write a segment and commit the snapshot that `on_top` makes with it; return what was committed.

    What an earlier run has left of the segment, present and whole, is not written again. Nothing lists the segment
    before all of it is there; after a failure nothing is removed. Raises InterruptedRunError where a collector has
    removed the segment meanwhile, or its lease.
    """
    files = segment.files
    logs.event(log, "writing", url=files.root, segment=segment.id, filters=segment.rows, chunks=segment.chunks)

    def build(head: Snapshot | None) -> Snapshot | None:
        _check_not_collected(segment, head)
        return on_top(head, entry)

    with lease.writing(files, segment.id) as own:
        try:
            created = segments.create(segment, tables)
            for reduction, part in zip(TAKEN, _write(segment, tables, filler), strict=True):
                checkpoint.store(segment, dict(tables), reduction, part)
        except (StoreError, InterruptedRunError):
            with suppress(StoreError):
                own.check()  # objects that vanish under the writer are no fault of the store
            raise
        own.check()
        _check_whole(segment, created)
        entry = Entry(
            id=segment.id,
            filters=segment.rows,
            layers=len(tables["row_size"]),
            models=len(tables["model"]),
            skipped=len(tables["skipped_model"]),
            chunk_rows=segment.chunk_rows,
            digests=created.digests,
        )
        return snapshots.commit(files, base, build)


def _check_whole(segment: Segment, created: Created) -> None:
    """Raise InterruptedRunError where not all that was written is there."""
    problems = check_created(segment, created)
    if problems:
        first = problems[0]
        name = first.variable if first.chunk is None else f"chunk {first.chunk}"
        raise InterruptedRunError(
            f"{segment.files.url(segment.name)}: expected all that was written, {name} is {first.what}; somebody "
            "removes what belongs to this ingest; nothing is committed, run again"
        )


def _check_not_collected(segment: Segment, head: Snapshot | None) -> None:
    """Raise InterruptedRunError where a snapshot before the one to commit says that the segment is collected."""
    if head is not None and segment.id in head.collected:
        raise InterruptedRunError(
            f"{segment.files.url(segment.name)}: this ingest was suspended and `filterdb gc` removed what it had "
            "written; nothing is committed, run again"
        )


OnTop = Callable[[Snapshot | None, Entry], Snapshot | None]
"""Makes the snapshot to commit on top of one, with a new segment; None where it has it. Raises ConflictError."""


def _write(segment: Segment, tables: Tables, filler: Filler) -> list[Part]:
    """Write every chunk, a task per partition; gives the segment's moments."""
    resume = bool(segment.files.list(f"{segment.name}/{schema.FILTERS.name}/c"))
    token = uuid.uuid4().hex[:8]
    tasks = [
        cluster.task(
            f"write-{token}-{own.chunks[0]}",
            partial(write_partition, own, filler(own), resume=resume),
        )
        for own in partition.partitions(segment, dict(tables))
    ]
    (parts,) = cluster.run([graph.merge_tree(tasks, TAKEN, f"write-{token}")], "write", _projected(segment, tables))
    return list(parts)


def _projected(segment: Segment, tables: Tables) -> Memory:
    """Bytes that writing takes of a worker: a task's rows, a chunk as it is encoded and one as it is put."""
    rows = max((len(one) for one in plan.partitions(segment.chunks, segment.chunk_rows)), default=0)
    chunk = segment.chunk_bytes
    reading = graph.projected(segment, dict(tables), TAKEN)
    return Memory(rows * chunk + 3 * chunk + reading.per_thread, reading.once)


def stack(rows: list[dict[str, Any]], kinds: tuple[schema.Variable, ...]) -> dict[str, np.ndarray]:
    """Rows as the arrays of the variables."""
    return {variable.name: variable.array([row[variable.name] for row in rows]) for variable in kinds}
