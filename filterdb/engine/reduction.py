"""What a pass computes: arrays per layer, to which a block of rows is added; of two parts of one layer, their merge.

A reduction is a small frozen object that travels with every task. Its arrays all have the layers first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from filterdb.errors import DamageError
from filterdb.store.summary import Arrays, Key


class Block(NamedTuple):
    """Rows of a segment in memory: columns (9, n) float32, runs of layers in them, the layers' peaks."""

    columns: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    peaks: np.ndarray


class Reduction(ABC):
    """One pass."""

    @property
    @abstractmethod
    def key(self) -> Key:
        """Name, code version and inputs of its summaries."""

    @abstractmethod
    def empty(self, layers: int) -> Arrays:
        """The arrays of layers without a filter, (layers, …), C-contiguous."""

    @abstractmethod
    def add(self, arrays: Arrays, block: Block) -> None:
        """Add the block to the arrays of its runs' layers, (runs, …), in place."""

    @property
    def layer_bytes(self) -> int:
        """Size of one layer's arrays."""
        return sum(array.nbytes for array in self.empty(1).values())

    @abstractmethod
    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        """The arrays of two parts of the same layers, (n, …) each; `a` stands before `b` in the store."""

    def check(self, arrays: Arrays, layers: Arrays, where: str) -> None:
        """Raise DamageError where whole layers' arrays contradict the segment's tables."""
        count = self.count(arrays)
        wrong = np.flatnonzero(count != layers["row_size"])
        if wrong.size:
            layer = str(layers["layer_name"][wrong[0]])
            raise DamageError(
                f"{where} layer {layer!r}: expected {layers['row_size'][wrong[0]]} filters in {self.key.label}, "
                f"got {count[wrong[0]]}; delete it, it is computed again"
            )

    @abstractmethod
    def count(self, arrays: Arrays) -> np.ndarray:
        """Filters that went into each layer's arrays, (layers,)."""
