"""Add a segment: create it from its tables, write its chunks, and commit a snapshot that lists it.

Every ingest, import and compaction uses this module.
"""

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
from filterdb.cluster import Memory, Work
from filterdb.engine import checkpoint, graph, partition
from filterdb.engine.partition import Partition
from filterdb.engine.parts import Part
from filterdb.errors import InterruptedRunError, StoreError
from filterdb.ingestion.write import TAKEN, Fill, write_partition
from filterdb.store import lease
from filterdb.store import snapshot as snapshots
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.pages import Entry
from filterdb.store.segment import Segment, Tables
from filterdb.store.snapshot import Snapshot
from filterdb.store.tables import Created, create, packed
from filterdb.store.verify import check_created

log = logging.getLogger(__name__)

FillRows = Callable[[Partition], Fill]
"""Returns the function that fills the rows of a partition. That function is sent to the worker that writes them."""


def new_segment(
    files: Files, tables: Tables, made_from: Mapping[str, Any], chunk_rows: int, base: Snapshot | None
) -> Segment:
    """Return the segment of these tables. Its id is the hash of everything that it is made from.

    The hash includes the tables. So a version that reads a model differently, in the last digit of a number or in the
    words of a reason, makes another segment and never overwrites this one. The hash also includes how often `gc` has
    collected the segment before `base`, since a suspended collector may still remove the objects of an id that it
    collected.
    """
    rows = int(tables["row_size"].sum())
    size = plan.chunk_rows(rows, chunk_rows)
    content = {**made_from, "format": SEGMENT_FORMAT, "chunk_rows": size, "tables": digest(packed(tables))}
    collected = set() if base is None else set(base.collected)
    for generation in itertools.count():
        numbered = {**content, "generation": generation} if generation else content
        segment_id = hashlib.sha256(canonical(numbered)).hexdigest()[:20]
        if segment_id not in collected:
            return Segment(files, segment_id, rows, size)
    raise AssertionError("unreachable")


SEGMENT_FORMAT = 3
"""Version of a segment's layout, which is part of its id. In version 3, the tables are packed."""


def commit_segment(
    segment: Segment, tables: Tables, filler: FillRows, base: Snapshot | None, build_snapshot: BuildSnapshot
) -> Snapshot:
    """Write a segment, and commit and return the snapshot that `build_snapshot` makes with it.

    Intact objects of the segment from an earlier run are not written again. No snapshot lists the segment before it is
    complete. After a failure nothing is removed, so that a re-run resumes. Raises InterruptedRunError if a collector
    has removed the segment or its lease in the meantime.
    """
    files = segment.files
    logs.event(log, "writing", url=files.root, segment=segment.id, filters=segment.rows, chunks=segment.chunks)

    def build(head: Snapshot | None) -> Snapshot | None:
        _check_not_collected(segment, head)
        return build_snapshot(head, entry)

    with lease.writing(files, segment.id) as claim:
        try:
            created = create(segment, tables)
            for reduction, part in zip(TAKEN, _write(segment, tables, filler), strict=True):
                checkpoint.store(segment, dict(tables), reduction, part)
        except (StoreError, InterruptedRunError):
            with suppress(StoreError):
                claim.check()  # if a collector removed our objects, report that instead of an error of the store
            raise
        claim.check()
        _check_complete(segment, created)
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


def _check_complete(segment: Segment, created: Created) -> None:
    """Raise InterruptedRunError if an object that was written is missing or changed."""
    problems = check_created(segment, created)
    if problems:
        first = problems[0]
        name = first.variable if first.chunk is None else f"chunk {first.chunk}"
        raise InterruptedRunError(
            f"{segment.files.url(segment.name)}: expected all that was written, {name} is {first.what}; somebody "
            "removes what belongs to this ingest; nothing is committed, run again"
        )


def _check_not_collected(segment: Segment, head: Snapshot | None) -> None:
    """Raise InterruptedRunError if `head`, on top of which the segment is committed, says that it was collected."""
    if head is not None and segment.id in head.collected:
        raise InterruptedRunError(
            f"{segment.files.url(segment.name)}: this ingest was suspended and `filterdb gc` removed what it had "
            "written; nothing is committed, run again"
        )


BuildSnapshot = Callable[[Snapshot | None, Entry], Snapshot | None]
"""Builds a snapshot with a new segment on top of a given one; None if that has it already. Raises ConflictError."""


def _write(segment: Segment, tables: Tables, filler: FillRows) -> list[Part]:
    """Write every chunk, with one task per partition, and return what is TAKEN of the segment."""
    files = segment.files
    resume = bool(files.list(f"{segment.name}/{schema.FILTERS.name}/c"))
    token = uuid.uuid4().hex[:8]
    tasks = [
        cluster.task(
            f"write-{token}-{target.chunks[0]}",
            partial(write_partition, target, filler(target), resume=resume),
        )
        for target in partition.partitions(segment, dict(tables))
    ]
    tree, work = (
        graph.merge_tree(tasks, TAKEN, f"write-{token}"),
        Work(segment.chunks * segment.chunk_bytes, files.remote),
    )
    (parts,) = cluster.run([tree], "write", _projected(segment, tables), work)
    return list(parts)


def _projected(segment: Segment, tables: Tables) -> Memory:
    """Project the memory of a worker that writes: the rows of a task, and a chunk while it is encoded and put."""
    chunks = max((len(chunks) for chunks in plan.partitions(segment.chunks, segment.chunk_rows)), default=0)
    chunk = segment.chunk_bytes
    reading = graph.projected(segment, dict(tables), TAKEN)
    return Memory(chunks * chunk + 3 * chunk + reading.per_thread, reading.once)


def stack(rows: list[dict[str, Any]], kinds: tuple[schema.Variable, ...]) -> dict[str, np.ndarray]:
    """Convert rows to an array for each variable."""
    return {variable.name: variable.array([row[variable.name] for row in rows]) for variable in kinds}
