"""The graph of a pass over one segment: a task that reads each partition, a merge tree, checkpoints between them.

Nothing is read or computed while a graph is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from filterdb import cluster, plan
from filterdb.cluster import Memory
from filterdb.engine.checkpoint import (
    MIN_PARTITIONS_TO_CHECKPOINT,
    has_checkpoint,
    join_and_checkpoint,
    resume,
    store,
)
from filterdb.engine.partition import GROUP_OF_LAYER, Partition, partitions
from filterdb.engine.parts import Part, join, reduce_partition
from filterdb.engine.reduction import Reduction
from filterdb.store import summary
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays

FAN_IN = 16
"""Number of parts that a merge task joins. A pass that is stopped repeats at most FAN_IN partitions of each worker."""


def build_and_store(segment: Segment, tables: Arrays, reductions: Sequence[Reduction]) -> Any:
    """Return a task that computes the reductions over a segment and stores them.

    The task returns a list of what `store` returns for each reduction. Workers store the results, so that complete ones
    are kept whatever happens to other tasks or to the client.
    """
    small = {name: tables[name] for name in ("row_size", "peak", "layer_name", GROUP_OF_LAYER) if name in tables}
    checkpoints = len(partitions(segment, tables)) >= MIN_PARTITIONS_TO_CHECKPOINT
    work = partial(_store_all, segment, small, tuple(reductions), checkpoints)
    name = _named("store", _label(segment, reductions))
    return cluster.task(name, work, build(segment, tables, reductions))


def _store_all(
    segment: Segment, tables: Arrays, reductions: Sequence[Reduction], checkpoints: bool, parts: Sequence[Part]
) -> list[list[tuple[Arrays, bool]]]:
    return [
        store(segment, tables, reduction, part, checkpoints=checkpoints)
        for reduction, part in zip(reductions, parts, strict=True)
    ]


def build(segment: Segment, tables: Arrays, reductions: Sequence[Reduction]) -> Any:
    """Return a task whose result is the complete Part of each reduction, by layer or, with GROUP_OF_LAYER, by group.

    One task reads each partition; merge tasks join neighbours. Partitions that the checkpoints of a stopped pass cover
    are not read again.
    """
    reductions = tuple(reductions)
    label = _label(segment, reductions)
    all_partitions = partitions(segment, tables)
    if len(all_partitions) < MIN_PARTITIONS_TO_CHECKPOINT:
        return merge_tree(_read_tasks(all_partitions, reductions, label), reductions, label)
    # A web server lists nothing, and no pass over its database has left checkpoints there.
    stored = set() if segment.files.web else set(segment.files.list(summary.parts_name(segment.summarised_as)))
    tasks = []
    for batch in plan.batches(len(all_partitions), FAN_IN):
        group, name = all_partitions[batch[0] : batch[-1] + 1], f"{label}-1-{batch[0]}"
        if has_checkpoint(stored, group, reductions):
            task = cluster.task(_named("resume", name), partial(resume, group, reductions))
        else:
            work = partial(join_and_checkpoint, group, reductions)
            task = cluster.task(_named("merge", name), work, _read_tasks(group, reductions, label))
        tasks.append(task)
    return merge_tree(tasks, reductions, label, level=2)


def _read_tasks(group: Sequence[Partition], reductions: tuple[Reduction, ...], label: str) -> list[Any]:
    return [
        cluster.task(f"{label}-{partition.chunks[0]}", partial(reduce_partition, partition, reductions))
        for partition in group
    ]


def merge_tree(tasks: list[Any], reductions: Sequence[Reduction], label: str, level: int = 1) -> Any:
    """Return one task that joins the Parts of all tasks, FAN_IN at a time, on workers.

    Parts are joined in the order of the rows, and passes and ingests have the same tree, so every scheduler computes
    the same bytes.
    """
    if not tasks:
        none = [Part(np.arange(0), reduction.empty(0)) for reduction in reductions]
        return cluster.task(f"{label}-none", partial(list, none))
    while len(tasks) > 1:
        work = partial(join, reductions=tuple(reductions))
        tasks = [
            cluster.task(_named("merge", f"{label}-{level}-{batch[0]}"), work, tasks[batch[0] : batch[-1] + 1])
            for batch in plan.batches(len(tasks), FAN_IN)
        ]
        level += 1
    return tasks[0]


def projected(segment: Segment, tables: Arrays, reductions: Sequence[Reduction]) -> Memory:
    """Return the memory that a pass needs on a worker: for each thread while it reads, and once for the last merge."""
    row = sum(reduction.row_bytes for reduction in reductions)
    indices = [partition.index for partition in partitions(segment, tables)]
    widest = max(map(len, indices), default=0)
    groups = tables.get(GROUP_OF_LAYER)
    rows = len(tables["row_size"]) if groups is None else len(np.unique(groups[groups >= 0]))
    # Parts are also sent as messages, which takes as much memory again.
    return Memory(segment.reading_bytes + 2 * widest * row, 3 * rows * row)


def _label(segment: Segment, reductions: Sequence[Reduction]) -> str:
    keys = [key for reduction in reductions for key in reduction.keys]
    kinds = dict.fromkeys(key.kind for key in keys)
    token = hashlib.sha256(repr((segment.files.root, segment.summarised_as, keys)).encode()).hexdigest()[:12]
    return f"{'_'.join(kinds)}-{token}"


def _named(step: str, label: str) -> str:
    """Return the label with `step` between the pass and the token, so that a dashboard groups the tasks of a pass.

    The pass comes first, as a word without hyphens: Dask would mistake a later word such as "extremes" for a token.
    """
    first, rest = label.split("-", 1)
    return f"{first}-{step}-{rest}"
