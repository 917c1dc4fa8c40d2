"""Running passes: what is missing is computed, one task per run of chunks, and kept as summaries."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from dask.base import tokenize

from filterdb import cluster, logs, metrics, plan
from filterdb.cluster import Memory
from filterdb.errors import DamageError, StoreError
from filterdb.reduce.reductions import Block, Reduction
from filterdb.schema import WEIGHTS
from filterdb.store import summary
from filterdb.store.database import Database
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key

FAN_IN = 16
"""Parts that one merging task joins; a pass that is stopped goes on from the last FAN_IN partitions of each worker."""

WORTH_KEEPING = 64
"""Partitions from which on a pass keeps its parts on the way: a second or two of reading."""

_FIRST = "first"
"""Name under which a kept Part's first layer stands."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """Arrays of consecutive layers from `first` on; the outermost two may be complete only with the neighbours'."""

    first: int
    arrays: Arrays

    @property
    def last(self) -> int:
        """The last layer it has."""
        return self.first + len(next(iter(self.arrays.values()))) - 1


def summaries(db: Database, *reductions: Reduction) -> list[Arrays]:
    """Arrays of each reduction for every layer of the whole snapshot, in its order.

    Stored summaries are read; what is missing is computed on Dask, all reductions in one reading of the chunks, and
    stored. Where the store cannot be written the results are kept in memory.
    """
    db = db.whole
    graphs = []
    ready: dict[tuple[str, Key], Arrays] = {}  # what `db.kept` may drop before the last result is there
    for position, segment in enumerate(db.segments):
        missing = []
        for reduction in reductions:
            stored = _find(db, segment, reduction)
            if stored is None:
                missing.append(reduction)
            else:
                ready[segment.id, reduction.key] = stored
        if missing:
            tables = {name: db.tables[position][name] for name in ("row_size", "peak", "layer_name")}
            whole = build(segment, db.tables[position], missing)
            keep = cluster.task(
                _named("store", _label(segment, missing)),
                partial(_store_all, segment, tables, missing, parts=_keeps_parts(segment)),
                whole,
            )
            graphs.append((position, segment, missing, keep))
    # As "store" tasks on workers: what is complete stays so, whatever happens to the rest or to the client.
    label = "+".join(dict.fromkeys(reduction.key.kind for _, _, missing, _ in graphs for reduction in missing))
    needs = [projected(segment, db.tables[position], missing) for position, segment, missing, _ in graphs]
    results = cluster.run([task for *_, task in graphs], label, Memory.most(needs))
    for (_, segment, missing, _), found in zip(graphs, results, strict=True):
        for reduction, arrays in zip(missing, found, strict=True):
            ready[segment.id, reduction.key] = db.kept[segment.id, reduction.key] = arrays
    return [
        _present(db, _concatenate(reduction, [ready[segment.id, reduction.key] for segment in db.segments]))
        for reduction in reductions
    ]


def _present(db: Database, arrays: Arrays) -> Arrays:
    """Without the layers of removed models: summaries are of segments, answers of snapshots."""
    return {name: array[db.present] for name, array in arrays.items()} if db.state.without else arrays


def _store_all(
    segment: Segment, tables: Arrays, reductions: list[Reduction], found: list[Part], *, parts: bool
) -> list[Arrays]:
    return [store(segment, tables, one, part, parts=parts) for one, part in zip(reductions, found, strict=True)]


def _keeps_parts(segment: Segment) -> bool:
    """Whether a pass over the segment keeps parts on the way; decided once, by the client."""
    return len(plan.partitions(segment.chunks, segment.chunk_rows)) >= WORTH_KEEPING


def _label(segment: Segment, reductions: Sequence[Reduction]) -> str:
    token = tokenize(segment.files.root, segment.id, [reduction.key for reduction in reductions])[:12]
    return f"{'_'.join(reduction.key.kind for reduction in reductions)}-{token}"


def _named(step: str, label: str) -> str:
    """`step` between the pass and the token of a label: a dashboard then shows a pass's tasks side by side.

    The pass comes first, a word without hyphens: of later ones Dask takes those like "extremes" for a token.
    """
    first, rest = label.split("-", 1)
    return f"{first}-{step}-{rest}"


def _find(db: Database, segment: Segment, reduction: Reduction) -> Arrays | None:
    """A summary from memory or from the store."""
    place = (segment.id, reduction.key)
    if place not in db.kept:
        stored = summary.load(segment.files, segment.id, reduction.key)
        if stored is None:
            return None
        position = [s.id for s in db.segments].index(segment.id)
        reduction.check(stored, db.tables[position], segment.files.url(segment.name))
        db.kept[place] = stored
        return stored
    return db.kept[place]


def store(segment: Segment, tables: Arrays, reduction: Reduction, part: Part, *, parts: bool = False) -> Arrays:
    """Check a complete result and store it; gives what counts from now on. In memory only, where it must be.

    `parts`: the pass has kept some on the way, which are removed then.
    """
    reduction.check(part.arrays, tables, segment.files.url(segment.name))
    try:
        arrays = summary.save(segment.files, segment.id, reduction.key, part.arrays)
        logs.event(log, "reduced", segment=segment.id, summary=reduction.key.kind, filters=segment.rows)
    except DamageError:
        raise
    except StoreError as error:
        log.warning("summary kept in memory only: %s", error)
        return part.arrays
    if parts:
        try:
            summary.remove_parts(segment.files, segment.id, reduction.key)
        except StoreError as error:
            log.warning("parts of a complete summary stay where they are: %s", error)
    return arrays


def _concatenate(reduction: Reduction, parts: list[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    parts = parts or [reduction.empty(0)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True)
class Partition:
    """What one task reduces: chunks of a segment, and the layers in them: `bounds`, `peaks` from layer `first` on."""

    segment: Segment
    chunks: range
    first: int
    bounds: np.ndarray
    peaks: np.ndarray


def partitions(segment: Segment, tables: Arrays) -> list[Partition]:
    """A segment in runs of whole chunks."""
    bounds = plan.offsets(tables["row_size"])
    found = []
    for chunks in plan.partitions(segment.chunks, segment.chunk_rows):
        layers = plan.runs(bounds, segment.bounds(chunks[0])[0], segment.bounds(chunks[-1])[1])
        of_layers = bounds[layers.first : layers.last + 1], tables["peak"][layers.first : layers.last]
        found.append(Partition(segment, chunks, layers.first, *of_layers))
    return found


def build(segment: Segment, tables: Arrays, reductions: Sequence[Reduction]) -> Any:
    """The graph of a pass over one segment: a Dask task whose result is a Part of all layers for each reduction.

    One reading task per partition; merging tasks join neighbours. What a stopped pass has left is not read again.
    Nothing is read or computed here.
    """
    label = _label(segment, reductions)
    every = partitions(segment, tables)
    if len(every) < WORTH_KEEPING:
        return merge_tree(_reading(every, tuple(reductions), label), reductions, label)
    kept = set(segment.files.list(summary.parts_name(segment.id)))
    tasks = []
    for batch in plan.batches(len(every), FAN_IN):
        group, name = every[batch[0] : batch[-1] + 1], f"{label}-1-{batch[0]}"
        if all(summary.name_of(segment.id, _part_key(reduction, group)) in kept for reduction in reductions):
            task = cluster.task(_named("resume", name), partial(resume, group, tuple(reductions)))
        else:
            reading = _reading(group, tuple(reductions), label)
            task = cluster.task(_named("merge", name), partial(join_and_keep, group, tuple(reductions)), reading)
        tasks.append(task)
    return merge_tree(tasks, reductions, label, level=2)


def projected(segment: Segment, tables: Arrays, reductions: Sequence[Reduction]) -> Memory:
    """Bytes that a pass takes of a worker: per thread while it reads, and once where the last merge takes place."""
    layer = sum(reduction.layer_bytes for reduction in reductions)
    every = partitions(segment, tables)
    widest = max((len(one.peaks) for one in every), default=0)
    # Parts come and go as messages too: twice their size.
    return Memory(segment.reading_bytes + 2 * widest * layer, 3 * len(tables["row_size"]) * layer)


def _reading(every: list[Partition], reductions: tuple[Reduction, ...], label: str) -> list[Any]:
    return [cluster.task(f"{label}-{one.chunks[0]}", partial(reduce_partition, one, reductions)) for one in every]


def merge_tree(tasks: list[Any], reductions: Sequence[Reduction], label: str, level: int = 1) -> Any:
    """One task that joins the Parts of all, FAN_IN at a time, on workers.

    In the order of the rows, and the same tree whoever asks: every scheduler, and the ingest, gives the same bytes.
    """
    if not tasks:
        return cluster.task(f"{label}-none", partial(list, [Part(0, one.empty(0)) for one in reductions]))
    while len(tasks) > 1:
        work = partial(join, reductions=tuple(reductions))
        tasks = [
            cluster.task(_named("merge", f"{label}-{level}-{batch[0]}"), work, tasks[batch[0] : batch[-1] + 1])
            for batch in plan.batches(len(tasks), FAN_IN)
        ]
        level += 1
    return tasks[0]


def reduce_partition(partition: Partition, reductions: Sequence[Reduction]) -> list[Part]:
    """Read a partition's chunks once and reduce them: the reading task."""
    found = fold(partition, map(partition.segment.read_columns, partition.chunks), reductions)
    count("+".join(reduction.key.kind for reduction in reductions), partition)
    return found


def count(label: str, partition: Partition) -> None:
    """Tell Prometheus of a partition that a pass has done."""
    chunks, segment = partition.chunks, partition.segment
    rows = segment.bounds(chunks[-1])[1] - segment.bounds(chunks[0])[0]
    metrics.count(metrics.FILTERS, rows, **{"pass": label})
    metrics.count(metrics.BYTES, rows * WEIGHTS * 4, **{"pass": label})


def fold(partition: Partition, columns: Iterable[np.ndarray], reductions: Sequence[Reduction]) -> list[Part]:
    """The chunks of a partition, each as columns (9, n) float32, added to the arrays of its layers."""
    parts = [Part(partition.first, reduction.empty(len(partition.peaks))) for reduction in reductions]
    for chunk, filters in zip(partition.chunks, columns, strict=True):
        runs = plan.runs(partition.bounds, *partition.segment.bounds(chunk))
        here = slice(runs.first, runs.last)
        block = Block(filters, runs.starts, runs.stops, partition.peaks[here])
        for reduction, part in zip(reductions, parts, strict=True):
            reduction.add({name: array[here] for name, array in part.arrays.items()}, block)
    return parts


def _part_key(reduction: Reduction, group: Sequence[Partition]) -> Key:
    """The name under which the Part of consecutive partitions is kept until the pass is complete."""
    return replace(reduction.key, part=f"{group[0].chunks[0]:08d}-{group[-1].chunks[-1]:08d}")


def join_and_keep(
    group: Sequence[Partition], reductions: Sequence[Reduction], parts: Sequence[Sequence[Part]]
) -> list[Part]:
    """Join, and keep the result in the store, so that a stopped pass goes on from there."""
    segment = group[0].segment
    joined = join(parts, reductions)
    for reduction, part in zip(reductions, joined, strict=True):
        try:
            summary.save(
                segment.files, segment.id, _part_key(reduction, group), {**part.arrays, _FIRST: np.array(part.first)}
            )
        except DamageError:
            raise
        except StoreError as error:
            log.debug("part not kept: %s", error)
    return joined


def resume(group: Sequence[Partition], reductions: Sequence[Reduction]) -> list[Part]:
    """What `join_and_keep` kept; computed where it is gone meanwhile or damaged."""
    segment = group[0].segment
    found = []
    for reduction in reductions:
        try:
            arrays = summary.load(segment.files, segment.id, _part_key(reduction, group))
        except DamageError as error:
            log.warning("%s", error)
            arrays = None
        if arrays is None:
            return join([reduce_partition(one, reductions) for one in group], reductions)
        found.append(Part(int(arrays.pop(_FIRST)), arrays))
    return found


def join(parts: Sequence[Sequence[Part]], reductions: Sequence[Reduction]) -> list[Part]:
    """Parts of consecutive rows, each a list by reduction, into one for each reduction."""
    return [_join_one(reduction, [part[i] for part in parts]) for i, reduction in enumerate(reductions)]


def _join_one(reduction: Reduction, parts: list[Part]) -> Part:
    """Append the parts; where one begins in the layer in which the one before ends, merge that layer."""
    pieces: list[Arrays] = []
    end = -1
    for part in parts:
        arrays = part.arrays
        if pieces and part.first == end:
            joint = reduction.merge(
                {name: array[-1:] for name, array in pieces[-1].items()},
                {name: array[:1] for name, array in arrays.items()},
            )
            pieces[-1] = {name: array[:-1] for name, array in pieces[-1].items()}
            pieces.append(joint)
            arrays = {name: array[1:] for name, array in arrays.items()}
        if len(next(iter(arrays.values()))):
            pieces.append(arrays)
        end = part.last
    return Part(parts[0].first, {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]})
