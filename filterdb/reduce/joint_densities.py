"""Two-dimensional histograms of pairs of coefficients: a pass on request, its layers summed to groups while it reads.

Kept per layer, as other summaries are, 70 × 70 counts of one pair would be 840 MB for the published data. So tasks
carry the group of each of their layers and give the counts of the groups they met. All is integer: any chunking, any
scheduler and any order give the same counts, and their sums along either side are the one-dimensional histograms.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from dask.base import tokenize

from filterdb import cluster, logs, plan
from filterdb.cluster import Memory
from filterdb.engine.passes import FAN_IN, WORTH_KEEPING, Partition, count, partitions
from filterdb.errors import DamageError, StoreError, UsageError
from filterdb.numerics import compiled
from filterdb.numerics.histogram import EDGE_TOLERANCE, bin_edges, edge_slack
from filterdb.reduce.basis import Projection
from filterdb.reduce.reductions import Axes
from filterdb.store import summary
from filterdb.store.canonical import canonical, digest
from filterdb.store.database import Database
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key

CELLS = 2**25
"""Counts that one request may have (268 MB): groups × pairs × bins²."""

Pair = tuple[int, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Squares:
    """Counts of the groups that were met, `group` (g,) ascending: counts (pairs, g, bins, bins), outside (pairs, g)."""

    group: np.ndarray
    counts: np.ndarray
    outside: np.ndarray

    def arrays(self, pair: int) -> Arrays:
        """What is kept of one pair."""
        return {"group": self.group, "counts": self.counts[pair], "outside": self.outside[pair]}

    @classmethod
    def of(cls, pairs: Sequence[Arrays]) -> Squares:
        """From what was kept of each pair."""
        counts, outside = (np.stack([arrays[name] for arrays in pairs]) for name in ("counts", "outside"))
        return cls(pairs[0]["group"], counts, outside)


@dataclass(frozen=True, slots=True)
class Plane:
    """What filters are projected on, and the bins over [low, high] of either side."""

    axes: Axes
    low: float
    high: float
    bins: int

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, (bins + 1,)."""
        return bin_edges(self.low, self.high, self.bins)

    def key(self, pair: Pair, member: np.ndarray) -> Key:
        """Name of the counts of one pair, for a segment whose layers belong to these groups."""
        bins = {"range": [self.low, self.high], "bins": self.bins, "tolerance": EDGE_TOLERANCE}
        content = {**self.axes.content, **bins, "pair": list(pair)}
        grouping = digest(np.ascontiguousarray(member, "<i8").tobytes())
        return Key("density", 2, canonical({**content, "grouping": grouping}).decode())


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be counted in one segment: `member` (layers,) is each layer's group there, −1 for none."""

    segment: Segment
    tables: Arrays
    member: np.ndarray
    plane: Plane
    pairs: tuple[Pair, ...]

    @property
    def keys(self) -> list[Key]:
        """Names of the summaries, one for each pair."""
        return [self.plane.key(pair, self.member) for pair in self.pairs]

    @property
    def sizes(self) -> np.ndarray:
        """Filters of each group, (groups,)."""
        used = self.member >= 0
        total = np.zeros(int(self.member.max()) + 1, np.int64)
        np.add.at(total, self.member[used], self.tables["row_size"][used])
        return total

    def member_of(self, partition: Partition) -> np.ndarray:
        """Groups of a partition's layers."""
        return self.member[partition.first : partition.first + len(partition.peaks)]

    @property
    def needed(self) -> list[Partition]:
        """The partitions that have a layer of any group."""
        return [one for one in partitions(self.segment, self.tables) if (self.member_of(one) >= 0).any()]

    @property
    def memory(self) -> Memory:
        """What it takes of a worker: while it reads, and where the last merge takes place."""
        square = len(self.pairs) * self.plane.bins**2 * 8
        widest = max(len(np.unique(self.member_of(one))) for one in self.needed)
        return Memory(self.segment.reading_bytes + 2 * widest * square, 3 * len(self.sizes) * square)


def densities(
    db: Database, found: Projection, index: np.ndarray, groups: int, pairs: Sequence[Pair], bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (pairs, groups, bins, bins) and outside (pairs, groups), int64, of the view's layers by group.

    `index` (layers of the view,): each layer's group. counts[p, g, i, j]: filters whose coefficient on the pair's
    first component is in bin i, on its second in bin j; outside: those of which either is in none. Stored summaries
    are read; what is missing is computed, all pairs in one reading, and stored. Raises UsageError for more than CELLS
    counts.
    """
    if groups * len(pairs) * bins**2 > CELLS:
        raise UsageError(
            f"density: expected at most {CELLS:,} counts, got {groups:,} groups × {len(pairs)} pairs × {bins}² bins; "
            "group by something coarser, select fewer layers, or ask for fewer pairs or bins"
        )
    axes = found.axes
    plane = Plane(axes, found.low, found.high, bins)
    counts = np.zeros((len(pairs), groups, bins, bins), np.int64)
    outside = np.zeros((len(pairs), groups), np.int64)
    missing, tasks = [], []
    for position, (segment, named) in enumerate(zip(db.segments, _by_segment(db, index), strict=True)):
        present, member = _renumbered(named)
        if not present.size:
            continue
        tables = {name: db.tables[position][name] for name in ("row_size", "peak")}
        work = _Work(segment, tables, member, plane, tuple(pairs))
        absent = []
        for p, key in enumerate(work.keys):
            stored = _stored(db, work, key)
            if stored is None:
                absent.append(p)
            else:
                _add(counts[p], outside[p], present, stored)
        if absent:
            rest = replace(work, pairs=tuple(pairs[p] for p in absent))
            missing.append((rest, absent, present))
            tasks.append(build(rest))
    results = cluster.run(tasks, "density", Memory.most(work.memory for work, *_ in missing))
    for (work, absent, present), (kept, squares) in zip(missing, results, strict=True):
        for p, key, arrays in zip(absent, work.keys, squares, strict=True):
            _add(counts[p], outside[p], present, arrays)
            if not kept:
                db.kept[work.segment.id, key] = arrays
    return counts, outside


def _by_segment(db: Database, index: np.ndarray) -> list[np.ndarray]:
    """The group of every stored layer, by segment; −1 for layers that are not in the view."""
    every = np.full(len(db.present), -1, np.int64)
    there = np.flatnonzero(db.present)
    every[there if db.chosen is None else there[db.chosen]] = index
    return np.split(every, np.cumsum([entry.layers for entry in db.state.segments])[:-1])


def _renumbered(named: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The groups in the order in which a segment first has them, and each layer's place among these (−1: none).

    So a summary's name depends on which layers are together, not on what else is in the database.
    """
    found, first = np.unique(named[named >= 0], return_index=True)
    present = found[np.argsort(first)]
    place = np.full(int(present.max(initial=-1)) + 2, -1, np.int64)  # the last one is for −1
    place[present] = np.arange(len(present))
    return present, place[named]


def _add(counts: np.ndarray, outside: np.ndarray, present: np.ndarray, arrays: Arrays) -> None:
    """Add a segment's counts of one pair to those of all."""
    groups = present[arrays["group"]]
    counts[groups] += arrays["counts"]
    outside[groups] += arrays["outside"]


def _stored(db: Database, work: _Work, key: Key) -> Arrays | None:
    """Counts of one pair from memory or from the store, checked."""
    if (work.segment.id, key) in db.kept:
        return db.kept[work.segment.id, key]
    arrays = summary.load(work.segment.files, work.segment.id, key)
    if arrays is not None:
        _check(work, key, arrays)
    return arrays


def _check(work: _Work, key: Key, arrays: Arrays) -> None:
    """Raise DamageError where a complete summary's counts contradict the segment's tables."""
    total = np.zeros(len(work.sizes), np.int64)
    total[arrays["group"]] = arrays["counts"].sum(axis=(1, 2)) + arrays["outside"]
    wrong = np.flatnonzero(total != work.sizes)
    if wrong.size:
        where = work.segment.files.url(summary.name_of(work.segment.id, key))
        raise DamageError(
            f"{where}: expected {work.sizes[wrong[0]]} filters in group {wrong[0]}, got {total[wrong[0]]}; "
            "delete it, it is computed again"
        )


def build(work: _Work) -> Any:
    """The graph over one segment: one reading task for each partition with a layer of any group, merges, storing.

    Its result: whether the store took it, and what was counted of each pair (see `Squares.arrays`).
    """
    segment, keys = work.segment, work.keys
    label = f"density-{tokenize(segment.files.root, segment.id, keys)[:12]}"
    every = work.needed
    parts = len(every) >= WORTH_KEEPING
    there = set(segment.files.list(summary.parts_name(segment.id))) if parts else set()
    tasks = []
    for batch in plan.batches(len(every), FAN_IN):
        group = every[batch[0] : batch[-1] + 1]
        own = [_part_key(key, group) for key in keys] if parts else []
        if own and all(summary.name_of(segment.id, key) in there for key in own):
            again = partial(_resume, group, [work.member_of(one) for one in group], work.plane, work.pairs, own)
            tasks.append(cluster.task(f"resume-{label}-{batch[0]}", again))
            continue
        reading = [
            cluster.task(
                f"{label}-{one.chunks[0]}", partial(reduce_partition, one, work.member_of(one), work.plane, work.pairs)
            )
            for one in group
        ]
        tasks.append(cluster.task(f"merge-{label}-1-{batch[0]}", partial(_join, segment, own), reading))
    level = 2
    while len(tasks) > 1:
        tasks = [
            cluster.task(f"merge-{label}-{level}-{batch[0]}", join, tasks[batch[0] : batch[-1] + 1])
            for batch in plan.batches(len(tasks), FAN_IN)
        ]
        level += 1
    return cluster.task(f"store-{label}", partial(_store, work, parts), tasks[0])


def reduce_partition(partition: Partition, member: np.ndarray, plane: Plane, pairs: Sequence[Pair]) -> Squares:
    """Read a partition's chunks once and count: the reading task. `member` (layers,): its layers' groups."""
    group, place = np.unique(member[member >= 0], return_inverse=True)
    local = np.full(len(member), -1, np.int64)
    local[member >= 0] = place
    counts = np.zeros((len(pairs), len(group), plane.bins, plane.bins), np.int64)
    outside = np.zeros((len(pairs), len(group)), np.int64)
    segment = partition.segment
    for chunk in partition.chunks:
        runs = plan.runs(partition.bounds, *segment.bounds(chunk))
        compiled.densities(
            segment.read_columns(chunk),
            runs.starts,
            runs.stops,
            local[runs.first : runs.last],
            *plane.axes.arrays,
            plane.axes.scaled,
            plane.edges,
            edge_slack(plane.edges),
            np.array(pairs, np.int64).reshape(-1, 2),
            counts,
            outside,
        )
    count("density", partition)
    return Squares(group, counts, outside)


def join(parts: Sequence[Squares]) -> Squares:
    """The sum of counts, over all groups that any part has."""
    if len(parts) == 1:
        return parts[0]
    group = np.unique(np.concatenate([part.group for part in parts]))
    first = parts[0]
    counts = np.zeros((len(first.counts), len(group), *first.counts.shape[2:]), np.int64)
    outside = np.zeros((len(first.counts), len(group)), np.int64)
    for part in parts:
        place = np.searchsorted(group, part.group)
        counts[:, place] += part.counts
        outside[:, place] += part.outside
    return Squares(group, counts, outside)


def _part_key(key: Key, group: Sequence[Partition]) -> Key:
    """The name under which the counts of consecutive partitions are kept until the pass is complete."""
    return replace(key, part=f"{group[0].chunks[0]:08d}-{group[-1].chunks[-1]:08d}")


def _join(segment: Segment, keys: Sequence[Key], parts: Sequence[Squares]) -> Squares:
    """Join, and keep the result under `keys`, so that a stopped pass goes on from there."""
    joined = join(parts)
    for pair, key in enumerate(keys):
        try:
            summary.save(segment.files, segment.id, key, joined.arrays(pair))
        except DamageError:
            raise
        except StoreError as error:
            log.debug("part not kept: %s", error)
    return joined


def _resume(
    group: Sequence[Partition], members: Sequence[np.ndarray], plane: Plane, pairs: Sequence[Pair], keys: Sequence[Key]
) -> Squares:
    """What `_join` kept; computed where it is gone meanwhile or damaged."""
    segment = group[0].segment
    found = []
    for key in keys:
        try:
            arrays = summary.load(segment.files, segment.id, key)
        except DamageError as error:
            log.warning("%s", error)
            arrays = None
        if arrays is None:
            return join([reduce_partition(*one, plane, pairs) for one in zip(group, members, strict=True)])
        found.append(arrays)
    return Squares.of(found)


def _store(work: _Work, parts: bool, found: Squares) -> tuple[bool, list[Arrays]]:
    """Check and store the complete counts of each pair; gives whether the store took them, and what counts now.

    `parts`: the pass has kept some on the way, which are removed then.
    """
    segment = work.segment
    squares = [found.arrays(pair) for pair in range(len(work.pairs))]
    for key, arrays in zip(work.keys, squares, strict=True):
        _check(work, key, arrays)
    try:
        squares = [
            summary.save(segment.files, segment.id, key, arrays) for key, arrays in zip(work.keys, squares, strict=True)
        ]
        logs.event(log, "reduced", segment=segment.id, summary="density", filters=int(work.sizes.sum()))
        if parts:
            for key in work.keys:
                summary.remove_parts(segment.files, segment.id, key)
    except DamageError:
        raise
    except StoreError as error:
        log.warning("densities kept in memory only: %s", error)
        return False, squares
    return True, squares
