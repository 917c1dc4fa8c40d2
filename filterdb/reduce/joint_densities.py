"""Joint histograms of pairs of coefficients: a pass on request, keyed by group.

Other summaries are kept by layer. Here the 70 × 70 counts of one pair would be 840 MB by layer for the published data,
so layers are summed to groups while the filters are read. All counts are integers: every chunking, scheduler and order
has the same result, and the sums along either axis are the one-dimensional histograms.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from filterdb.engine.partition import GROUP_OF_LAYER
from filterdb.engine.reduction import Block, Reduction
from filterdb.engine.run import Wanted, compute
from filterdb.errors import DamageError, UsageError
from filterdb.numerics.histogram import EDGE_TOLERANCE, bin_edges, edge_slack
from filterdb.numerics.loops import compiled
from filterdb.reduce.basis import Projection
from filterdb.reduce.reductions import Axes, encoded
from filterdb.store import summary
from filterdb.store.canonical import digest
from filterdb.store.database import Database
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key
from filterdb.wording import counted

MAX_COUNTS = 2**25
"""Most counts that one request may have (268 MB): groups × pairs × bins²."""

Pair = tuple[int, int]
"""Two components by their numbers, from 0."""


@dataclass(frozen=True, slots=True)
class JointBins:
    """The axes of the coefficients, and the bins over [low, high] along both of them."""

    axes: Axes
    low: float
    high: float
    bins: int

    @property
    def edges(self) -> np.ndarray:
        """Return the edges of the bins, (bins + 1,)."""
        return bin_edges(self.low, self.high, self.bins)

    def key(self, pair: Pair, grouping: str) -> Key:
        """Return the name of the counts of one pair; `grouping` is the digest of a segment's groups."""
        bins = {"range": [self.low, self.high], "bins": self.bins, "tolerance": EDGE_TOLERANCE}
        return Key("density", 2, encoded(self.axes, json.dumps({**bins, "pair": list(pair), "grouping": grouping})))


def digest_of_groups(group_of_layer: np.ndarray) -> str:
    """Return the digest of a segment's groups, which is part of the names of its summaries."""
    return digest(np.ascontiguousarray(group_of_layer, "<i8").tobytes())


@dataclass(frozen=True, slots=True)
class JointHistograms(Reduction):
    """Count pairs of coefficients in a square of bins, by group; a summary for each pair.

    counts (groups, pairs, bins, bins) are filters by the bin of the coefficient on the pair's first component, then on
    its second. outside (groups, pairs) are filters with either coefficient outside of all bins.
    """

    by_group: ClassVar[bool] = True
    stays_in_memory: ClassVar[bool] = False

    joint_bins: JointBins
    pairs: tuple[Pair, ...]
    grouping: str

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(self.joint_bins.key(pair, self.grouping) for pair in self.pairs)

    def only(self, keys: Sequence[Key]) -> JointHistograms:
        return replace(self, pairs=tuple(pair for pair, key in zip(self.pairs, self.keys, strict=True) if key in keys))

    def empty(self, rows: int) -> Arrays:
        bins = self.joint_bins.bins
        # The compiled loop wants pairs first and contiguous; `add` swaps them back.
        counts = np.zeros((len(self.pairs), rows, bins, bins), np.int64)
        outside = np.zeros((len(self.pairs), rows), np.int64)
        return {"counts": counts.swapaxes(0, 1), "outside": outside.swapaxes(0, 1)}

    def add(self, arrays: Arrays, block: Block) -> None:
        edges = self.joint_bins.edges
        compiled.densities(
            block.columns,
            block.starts,
            block.stops,
            block.rows,
            *self.joint_bins.axes.arrays,
            self.joint_bins.axes.scaled,
            edges,
            edge_slack(edges),
            np.array(self.pairs, np.int64).reshape(-1, 2),
            arrays["counts"].swapaxes(0, 1),
            arrays["outside"].swapaxes(0, 1),
        )

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        for name, array in a.items():
            np.add(array, b[name], out=array)  # in place, because the arrays may be as large as memory allows
        return a

    def split(self, arrays: Arrays) -> list[Arrays]:
        return [{name: array[:, pair] for name, array in arrays.items()} for pair in range(len(self.pairs))]

    def unite(self, summaries: Sequence[Arrays]) -> Arrays:
        return {name: np.stack([arrays[name] for arrays in summaries], axis=1) for name in ("counts", "outside")}

    def check(self, arrays: Arrays, tables: Arrays, segment: Segment, key: Key) -> None:
        """Raise DamageError if a group has another number of filters than its layers in the segment's tables."""
        groups = tables[GROUP_OF_LAYER]
        used = groups >= 0
        sizes = np.zeros(int(groups.max()) + 1, np.int64)
        np.add.at(sizes, groups[used], tables["row_size"][used])
        total = np.zeros(len(sizes), np.int64)
        total[arrays["group"]] = arrays["counts"].sum(axis=(1, 2)) + arrays["outside"]
        wrong = np.flatnonzero(total != sizes)
        if wrong.size:
            where = segment.files.url(summary.name_of(segment.summarised_as, key))
            raise DamageError(
                f"{where}: expected {counted(int(sizes[wrong[0]]), 'filter')} in group {wrong[0]}, got "
                f"{total[wrong[0]]}; delete it, it is computed again"
            )


def densities(
    db: Database, projection: Projection, index: np.ndarray, groups: int, pairs: Sequence[Pair], bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return counts (pairs, groups, bins, bins) and outside (pairs, groups), int64, of the view's layers by group.

    `index` (layers of the view,) is each layer's group. counts[p, g, i, j] are the filters whose coefficient on the
    pair's first component is in bin i and on its second in bin j; outside are the filters with either coefficient in no
    bin. Stored summaries are read. Missing ones are computed, all pairs in one reading, and stored. Raises UsageError
    for more than MAX_COUNTS counts.
    """
    if groups * len(pairs) * bins**2 > MAX_COUNTS:
        raise UsageError(
            f"density: expected at most {MAX_COUNTS:,} counts, got {groups:,} groups × {len(pairs)} pairs × "
            f"{bins}² bins; group by something coarser, select fewer layers, or ask for fewer pairs or bins"
        )
    joint_bins = JointBins(projection.axes, projection.low, projection.high, bins)
    distinct = tuple(dict.fromkeys((first, second) for first, second in pairs))
    wanted, groups_of_segment, pair_of_key = [], {}, {}
    for position, segment_groups in enumerate(groups_by_segment(db, index)):
        present, group_of_layer = _renumbered(segment_groups)
        if not present.size:
            continue
        reduction = JointHistograms(joint_bins, distinct, digest_of_groups(group_of_layer))
        wanted.append(Wanted(position, (reduction,), group_of_layer))
        groups_of_segment[position] = present
        pair_of_key.update({key: pair for pair, key in enumerate(reduction.keys)})
    counts = np.zeros((len(distinct), groups, bins, bins), np.int64)
    outside = np.zeros((len(distinct), groups), np.int64)
    for request, key, arrays in compute(db, wanted):
        pair, rows = pair_of_key[key], groups_of_segment[request.position][arrays["group"]]
        counts[pair, rows] += arrays["counts"]
        outside[pair, rows] += arrays["outside"]
    if len(distinct) < len(pairs):
        position_of_pair = [distinct.index((first, second)) for first, second in pairs]
        return counts[position_of_pair], outside[position_of_pair]
    return counts, outside


def groups_by_segment(db: Database, index: np.ndarray) -> list[np.ndarray]:
    """Return the group of every stored layer, by segment; −1 for layers that are not in the view."""
    group_of_layer = np.full(len(db.present), -1, np.int64)
    present = np.flatnonzero(db.present)
    group_of_layer[present if db.chosen is None else present[db.chosen]] = index
    return np.split(group_of_layer, np.cumsum([entry.layers for entry in db.entries])[:-1])


def _renumbered(group_of_layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a segment's groups in the order of their first layers, and each layer's position among them (−1: none).

    With these numbers the name of a summary depends on which layers form a group, not on the rest of the database.
    """
    groups, first = np.unique(group_of_layer[group_of_layer >= 0], return_index=True)
    present = groups[np.argsort(first)]
    position = np.full(int(present.max(initial=-1)) + 2, -1, np.int64)  # the last entry is for −1
    position[present] = np.arange(len(present))
    return present, position[group_of_layer]
