"""Partitions: the chunks of a segment that one task reads, and their layers or groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from filterdb import plan
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays

GROUP_OF_LAYER = "group_of_layer"
"""Column of the tables for a pass that is keyed by group: each layer's group, (layers,) int64, −1 for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """A run of whole chunks and the layers that overlap it.

    `first` is the number of its first layer in the segment. `bounds` (layers + 1,) are the first rows of the layers and
    the end of the last one; `peaks` (layers,) are their largest |weight|. `groups` (layers,) is the group of each
    layer, −1 for none; it is None if the pass is keyed by layer.
    """

    segment: Segment
    chunks: range
    first: int
    bounds: np.ndarray
    peaks: np.ndarray
    groups: np.ndarray | None = None

    @property
    def index(self) -> np.ndarray:
        """Return the layers or groups that are rows of the partition's arrays, ascending."""
        if self.groups is None:
            return np.arange(self.first, self.first + len(self.peaks))
        return np.unique(self.groups[self.groups >= 0])

    @property
    def rows(self) -> np.ndarray:
        """Return the row of the arrays that each layer is added to, (layers,) int64; −1 for none."""
        if self.groups is None:
            return np.arange(len(self.peaks))
        return np.where(self.groups >= 0, np.searchsorted(self.index, self.groups), -1)


def partitions(segment: Segment, tables: Arrays) -> list[Partition]:
    """Cut a segment into runs of whole chunks; with GROUP_OF_LAYER, skip those without a layer of any group."""
    bounds = plan.offsets(tables["row_size"])
    groups = tables.get(GROUP_OF_LAYER)
    kept = []
    for chunks in plan.partitions(segment.chunks, segment.chunk_rows, segment.weights):
        runs = plan.runs(bounds, segment.bounds(chunks[0])[0], segment.bounds(chunks[-1])[1])
        layers = slice(runs.first, runs.last)
        own = None if groups is None else groups[layers]
        if own is None or (own >= 0).any():
            own_bounds, peaks = bounds[runs.first : runs.last + 1], tables["peak"][layers]
            kept.append(Partition(segment, chunks, runs.first, own_bounds, peaks, own))
    return kept
