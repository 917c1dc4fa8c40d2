"""Declare what a pass computes: arrays by layer or group, how to add a block of filters, how to merge two parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from filterdb.errors import DamageError
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key
from filterdb.wording import counted


class Block(NamedTuple):
    """Filters of a segment in memory, in runs; a run is the overlap of the block with one layer.

    `columns` (weights, n) float32 are the filters. `starts` and `stops` (runs,) are the ends of the runs, `peaks`
    (runs,) the peaks of their layers. `rows` (runs,) int64 is the row of the partition's arrays that a run is added to,
    −1 for none; it is used with `by_group`. `firsts` (runs,) int64 is the number, in its layer, of a run's first
    filter.
    """

    columns: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    peaks: np.ndarray
    rows: np.ndarray = np.empty(0, np.int64)
    firsts: np.ndarray = np.empty(0, np.int64)


class Reduction(ABC):
    """What one reading of the filters computes: one or more summaries.

    A reduction is a small frozen object that is part of every task. The first dimension of all its arrays is the layer,
    or with `by_group` the group.
    """

    by_group: ClassVar[bool] = False
    """Whether rows are groups of layers (`Partition.groups`) instead of layers."""

    narrow: ClassVar[tuple[str, ...]] = ()
    """Arrays of int64 that are read from the store as the smallest signed integers that hold them."""

    stays_in_memory: ClassVar[bool] = True
    """Whether `Database.kept` keeps the summaries after they were stored or loaded."""

    @property
    @abstractmethod
    def keys(self) -> tuple[Key, ...]:
        """Return the names, code versions and inputs of the summaries."""

    @abstractmethod
    def empty(self, rows: int) -> Arrays:
        """Return the arrays (rows, …) of layers or groups without filters."""

    @abstractmethod
    def add(self, arrays: Arrays, block: Block) -> None:
        """Add a block in place.

        `arrays` have one row for each run of the block. With `by_group` they have all rows of the partition, and
        `block.rows` are those of the runs.
        """

    @abstractmethod
    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        """Merge two parts (n, …) of the same rows.

        `a` precedes `b` in the store. `a` may be changed and returned.
        """

    @abstractmethod
    def check(self, arrays: Arrays, tables: Arrays, segment: Segment, key: Key) -> None:
        """Raise DamageError if a complete summary contradicts the tables of its segment."""

    @property
    def row_bytes(self) -> int:
        """Return the size of the arrays of one layer or group."""
        return sum(array.nbytes for array in self.empty(1).values())

    def only(self, keys: Sequence[Key]) -> Reduction:
        """Return the reduction that computes only the summaries with these keys."""
        return self

    def split(self, arrays: Arrays) -> list[Arrays]:
        """Return the arrays of each summary, in the order of `keys`."""
        return [arrays]

    def unite(self, summaries: Sequence[Arrays]) -> Arrays:
        """Return the arrays that `split` splits into these summaries."""
        return summaries[0]


class LayerReduction(Reduction):
    """A reduction to one summary with a row for each layer."""

    @property
    @abstractmethod
    def key(self) -> Key:
        """Return the name, code version and inputs of the summary."""

    @property
    def keys(self) -> tuple[Key, ...]:
        return (self.key,)

    @abstractmethod
    def count(self, arrays: Arrays) -> np.ndarray:
        """Return how many filters were added to each layer's arrays, (layers,)."""

    def check(self, arrays: Arrays, tables: Arrays, segment: Segment, key: Key) -> None:
        """Raise DamageError if a layer has another number of filters than in the segment's tables."""
        count = self.count(arrays)
        wrong = np.flatnonzero(count != tables["row_size"])
        if wrong.size:
            layer = str(tables["layer_name"][wrong[0]])
            raise DamageError(
                f"{segment.files.url(segment.name)} layer {layer!r}: expected "
                f"{counted(int(tables['row_size'][wrong[0]]), 'filter')} in {key.label}, got {count[wrong[0]]}; "
                "delete it, it is computed again"
            )
