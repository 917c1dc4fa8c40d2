"""What a pass computes: arrays by layer or group, how a block of filters is added to them, how two parts merge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from filterdb.errors import DamageError
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key


class Block(NamedTuple):
    """Filters of a segment in memory, as runs: the overlap of the block with each of its layers.

    `columns` (9, n) float32; `starts`, `stops`, `peaks` (runs,): where a run begins and ends, and its layer's peak.
    `rows` (runs,) int64: the row of the partition's arrays that a run is added to, −1 for none; for `by_group`.
    """

    columns: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    peaks: np.ndarray
    rows: np.ndarray = np.empty(0, np.int64)


class Reduction(ABC):
    """What one reading of the filters computes: one or more summaries.

    A small frozen object that travels with every task. The first dimension of all its arrays is the layer, or the
    group where `by_group` is set.
    """

    by_group: ClassVar[bool] = False
    """Whether rows are groups of layers (`Partition.groups`) instead of layers."""

    stays_in_memory: ClassVar[bool] = True
    """Whether `Database.kept` holds the summaries after they were stored or loaded."""

    @property
    @abstractmethod
    def keys(self) -> tuple[Key, ...]:
        """Names, code version and inputs of the summaries."""

    @abstractmethod
    def empty(self, rows: int) -> Arrays:
        """Return the arrays of rows without a filter, (rows, …)."""

    @abstractmethod
    def add(self, arrays: Arrays, block: Block) -> None:
        """Add a block in place.

        `arrays`: one row for each run of the block; where `by_group` is set, every row of the partition, and
        `block.rows` names those of the runs.
        """

    @abstractmethod
    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        """Return the arrays of two parts of the same rows, (n, …) each.

        `a` precedes `b` in the store. `a` is scratch: it may be changed and returned.
        """

    @abstractmethod
    def check(self, arrays: Arrays, tables: Arrays, segment: Segment, key: Key) -> None:
        """Raise DamageError if a complete summary contradicts the tables of its segment."""

    @property
    def row_bytes(self) -> int:
        """Size of the arrays of one layer or group."""
        return sum(array.nbytes for array in self.empty(1).values())

    def only(self, keys: Sequence[Key]) -> Reduction:
        """Return the reduction that computes only these of its summaries."""
        return self

    def split(self, arrays: Arrays) -> list[Arrays]:
        """Return the arrays of each summary, in the order of `keys`."""
        return [arrays]

    def unite(self, summaries: Sequence[Arrays]) -> Arrays:
        """Return the arrays that `split` returned as these."""
        return summaries[0]


class LayerReduction(Reduction):
    """A reduction to one summary with a row for each layer."""

    @property
    @abstractmethod
    def key(self) -> Key:
        """Name, code version and inputs of the summary."""

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
                f"{segment.files.url(segment.name)} layer {layer!r}: expected {tables['row_size'][wrong[0]]} filters "
                f"in {key.label}, got {count[wrong[0]]}; delete it, it is computed again"
            )
