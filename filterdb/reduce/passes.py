"""Running passes: what is missing is computed, one task per run of chunks, and kept as summaries."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask
import numpy as np
from dask.base import tokenize

from filterdb import cluster, plan
from filterdb.errors import DamageError, StoreError
from filterdb.reduce.reductions import Block, Reduction
from filterdb.schema import WEIGHTS
from filterdb.store import summary
from filterdb.store.database import Database
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays

FAN_IN = 16
"""Parts that one merging task joins."""

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
    for position, segment in enumerate(db.segments):
        missing = [reduction for reduction in reductions if _find(db, segment, reduction) is None]
        if missing:
            graphs.append((position, segment, missing, build(segment, db.tables[position], missing)))
    label = "+".join(dict.fromkeys(reduction.key.kind for _, _, missing, _ in graphs for reduction in missing))
    for (position, segment, missing, _), parts in zip(
        graphs, cluster.run([task for *_, task in graphs], label), strict=True
    ):
        for reduction, part in zip(missing, parts, strict=True):
            reduction.check(part.arrays, db.tables[position], segment.files.url(segment.name))
            db.kept[segment.id, reduction.key] = _save(segment, reduction, part.arrays)
    return [
        _concatenate(reduction, [db.kept[segment.id, reduction.key] for segment in db.segments])
        for reduction in reductions
    ]


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
    return db.kept[place]


def _save(segment: Segment, reduction: Reduction, arrays: Arrays) -> Arrays:
    try:
        return summary.save(segment.files, segment.id, reduction.key, arrays)
    except DamageError:
        raise
    except StoreError as error:
        log.warning("summary kept in memory only: %s", error)
        return arrays


def _concatenate(reduction: Reduction, parts: list[Arrays]) -> Arrays:
    parts = parts or [_empty(reduction)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _empty(reduction: Reduction) -> Arrays:
    nothing = np.empty(0, np.int64)
    return reduction.compute(Block(np.empty((WEIGHTS, 0), np.float32), nothing, nothing, nothing.astype(np.float64)))


def build(segment: Segment, tables: Arrays, reductions: Sequence[Reduction]) -> Any:
    """The graph of a pass over one segment: a Dask task whose result is a Part of all layers for each reduction.

    One reading task per run of chunks; merging tasks join neighbours, FAN_IN at a time, in the order of the rows: a
    fixed tree, so that every scheduler gives the same bytes. Nothing is read or computed here.
    """
    bounds = plan.offsets(tables["row_size"])
    token = tokenize(segment.files.root, segment.id, [reduction.key for reduction in reductions])[:12]
    label = "-".join(reduction.key.kind for reduction in reductions)
    tasks = []
    for chunks in plan.partitions(segment.chunks):
        start, stop = segment.bounds(chunks[0])[0], segment.bounds(chunks[-1])[1]
        overlap = plan.runs(bounds, start, stop)
        tasks.append(
            dask.delayed(reduce_chunks, traverse=False)(
                segment,
                chunks,
                overlap.first,
                bounds[overlap.first : overlap.last + 1],
                tables["peak"][overlap.first : overlap.last],
                tuple(reductions),
                dask_key_name=f"{label}-{token}-{chunks[0]}",
            )
        )
    if not tasks:
        empty = [Part(0, _empty(reduction)) for reduction in reductions]
        return dask.delayed(partial(list, empty))(dask_key_name=f"{label}-{token}-none")
    level = 0
    while len(tasks) > 1:
        level += 1
        tasks = [
            dask.delayed(join, traverse=True)(
                [tasks[i] for i in batch],
                tuple(reductions),
                dask_key_name=f"merge-{label}-{token}-{level}-{batch[0]}",
            )
            for batch in plan.batches(len(tasks), FAN_IN)
        ]
    return tasks[0]


def reduce_chunks(
    segment: Segment,
    chunks: range,
    first: int,
    bounds: np.ndarray,
    peaks: np.ndarray,
    reductions: Sequence[Reduction],
) -> list[Part]:
    """Read chunks once and reduce them: the reading task. `bounds`, `peaks` are those of layers `first` and on."""
    found = []
    for chunk in chunks:
        start, stop = segment.bounds(chunk)
        overlap = plan.runs(bounds, start, stop)
        block = Block(segment.read_columns(chunk), overlap.starts, overlap.stops, peaks[overlap.first : overlap.last])
        found.append([Part(first + overlap.first, reduction.compute(block)) for reduction in reductions])
    return join(found, reductions)


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
