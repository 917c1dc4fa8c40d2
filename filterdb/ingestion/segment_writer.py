"""Add a segment: create it from its tables, write its chunks, and commit a snapshot that lists it.

Every ingest, import and compaction uses this module.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from filterdb import cluster, logs, plan, schema
from filterdb.cluster import Memory, Work
from filterdb.engine import checkpoint, graph, partition
from filterdb.engine.partition import Partition
from filterdb.errors import InterruptedRunError, StoreError
from filterdb.ingestion.write import Fill, taken, write_partition
from filterdb.store import lease
from filterdb.store import snapshot as snapshots
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.pages import THREES, Bank, Entry
from filterdb.store.segment import Segment, Tables
from filterdb.store.snapshot import Snapshot
from filterdb.store.tables import Created, banks_of, create, of_bank, packed
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
    if banks_of(tables):
        content["bank_rows"] = chunk_rows
    return Segment(files, _free_id(content, base), rows, size)


def new_addition(segment: Segment, tables: Tables, chunk_rows: int, base: Snapshot) -> Segment:
    """Return a segment without 3×3 filters for banks that are added to another one later. Its id is made as others'."""
    content = {"adds_to": segment.id, "format": SEGMENT_FORMAT, "bank_rows": chunk_rows}
    return Segment(segment.files, _free_id({**content, "tables": digest(packed(tables))}, base), 0, 1)


def _free_id(content: dict[str, Any], base: Snapshot | None) -> str:
    """Return the hash of everything that a segment is made from and, if `gc` has collected that id, of how often."""
    collected = set() if base is None else set(base.collected)
    for generation in itertools.count():
        numbered = {**content, "generation": generation} if generation else content
        segment_id = hashlib.sha256(canonical(numbered)).hexdigest()[:20]
        if segment_id not in collected:
            return segment_id
    raise AssertionError("unreachable")


def new_banks(segment: Segment, tables: Tables, chunk_rows: int) -> list[Segment]:
    """Return the banks of other kernel shapes whose layers are among the tables of a segment or an addition.

    Their chunks take about as much room as chunks of `chunk_rows` 3×3 filters.
    """
    banks = []
    for name in banks_of(tables):
        if name != schema.OTHER:
            kernel = schema.parse_kernel(name)
            rows = int(tables[schema.in_pack(name, "row_size")].sum())
            size = plan.chunk_rows(rows, plan.bank_rows(chunk_rows, kernel[0] * kernel[1]))
            banks.append(segment.bank(kernel, rows, size))
    return banks


SEGMENT_FORMAT = 3
"""Version of a segment's layout, which is part of its id. In version 3, the tables are packed."""


def commit_segment(
    segment: Segment,
    tables: Tables,
    filler: FillRows,
    base: Snapshot | None,
    build_snapshot: BuildSnapshot,
    *,
    banks: Sequence[Segment] = (),
    kernels: str = THREES,
) -> Snapshot:
    """Write a segment, and commit and return the snapshot that `build_snapshot` makes with it.

    `banks` are its `new_banks`, and `kernels` the shapes that were read of its models, as an entry has them.
    Intact objects of the segment from an earlier run are not written again. No snapshot lists the segment before it is
    complete. After a failure nothing is removed, so that a re-run resumes. Raises InterruptedRunError if a collector
    has removed the segment or its lease in the meantime.
    """
    files = segment.files
    logs.event(log, "writing", url=files.root, segment=segment.id, filters=segment.rows, chunks=segment.chunks)

    def build(head: Snapshot | None) -> Snapshot | None:
        check_not_collected(segment, head)
        return build_snapshot(head, entry)

    with lease.writing(files, segment.id) as claim:
        with checking(claim):
            created = create(segment, tables, banks)
            write_banks([segment, *banks], tables, filler)
            check_complete(segment, created, banks)
        entry = Entry(
            id=segment.id,
            filters=segment.rows,
            layers=len(tables["row_size"]),
            models=len(tables["model"]),
            skipped=len(tables["skipped_model"]),
            chunk_rows=segment.chunk_rows,
            digests=created.digests,
            banks=sizes_of_banks(banks, tables),
            kernels=kernels,
        )
        return snapshots.commit(files, base, build)


@contextmanager
def checking(claim: lease.Lease) -> Iterator[None]:
    """Run the block in which a segment is written; raise InterruptedRunError if a collector removes what it wrote."""
    try:
        yield
    except (StoreError, InterruptedRunError):
        with suppress(StoreError):
            claim.check()  # if a collector removed our objects, report that instead of an error of the store
        raise
    claim.check()


def sizes_of_banks(banks: Sequence[Segment], tables: Tables) -> dict[str, Bank]:
    """Return the sizes of banks for an entry, and of the layers whose filters are not stored."""
    sizes = {}
    for bank in banks:
        name = schema.kernel_name(bank.kernel)
        sizes[name] = Bank(bank.rows, len(tables[schema.in_pack(name, "row_size")]), bank.chunk_rows)
    if schema.OTHER in banks_of(tables):
        rows = tables[schema.in_pack(schema.OTHER, "row_size")]
        sizes[schema.OTHER] = Bank(int(rows.sum()), len(rows), 0)
    return sizes


def check_complete(segment: Segment, created: Created, banks: Sequence[Segment]) -> None:
    """Raise InterruptedRunError if an object that was written is missing or changed."""
    problems = check_created(segment, created, banks)
    if problems:
        first = problems[0]
        name = first.variable if first.chunk is None else f"chunk {first.chunk}"
        raise InterruptedRunError(
            f"{segment.files.url(segment.name)}: {name} is {first.what}; another process is removing objects of "
            "this ingest; nothing was committed, run again"
        )


def check_not_collected(segment: Segment, head: Snapshot | None) -> None:
    """Raise InterruptedRunError if `head`, on top of which the segment is committed, says that it was collected."""
    if head is not None and segment.id in head.collected:
        raise InterruptedRunError(
            f"{segment.files.url(segment.name)}: this ingest was suspended and `filterdb gc` removed what it had "
            "written; nothing was committed, run again"
        )


BuildSnapshot = Callable[[Snapshot | None, Entry], Snapshot | None]
"""Builds a snapshot with a new segment on top of a given one; None if that has it already. Raises ConflictError."""


def write_banks(banks: Sequence[Segment], tables: Tables, filler: FillRows) -> None:
    """Write every chunk of a segment's banks, with one task per partition, and store what is `taken` of each."""
    token, trees, memory, own_tables = uuid.uuid4().hex[:8], [], [], []
    for bank in banks:
        own = of_bank(tables, schema.kernel_name(bank.kernel))
        label = f"write-{token}-{schema.kernel_name(bank.kernel)}"
        resume = bool(bank.files.list(f"{bank.name}/{schema.FILTERS.name}/c"))
        tasks = [
            cluster.task(f"{label}-{target.chunks[0]}", partial(write_partition, target, filler(target), resume=resume))
            for target in partition.partitions(bank, own)
        ]
        trees.append(graph.merge_tree(tasks, taken(bank.weights), label))
        memory.append(_projected(bank, own))
        own_tables.append(own)
    work = Work(sum(bank.chunks * bank.chunk_bytes for bank in banks), banks[0].files.remote)
    written = cluster.run(trees, "write", Memory.most(memory), work)
    for bank, own, parts in zip(banks, own_tables, written, strict=True):
        for reduction, part in zip(taken(bank.weights), parts, strict=True):
            checkpoint.store(bank, own, reduction, part)


def _projected(segment: Segment, tables: dict[str, np.ndarray]) -> Memory:
    """Project the memory of a worker that writes: the rows of a task, and a chunk while it is encoded and put."""
    runs = plan.partitions(segment.chunks, segment.chunk_rows, segment.weights)
    chunks = max((len(chunks) for chunks in runs), default=0)
    chunk = segment.chunk_bytes
    reading = graph.projected(segment, tables, taken(segment.weights))
    return Memory(chunks * chunk + 3 * chunk + reading.per_thread, reading.once)


def stack(rows: list[dict[str, Any]], kinds: tuple[schema.Variable, ...]) -> dict[str, np.ndarray]:
    """Convert rows to an array for each variable."""
    return {variable.name: variable.array([row[variable.name] for row in rows]) for variable in kinds}
