"""What a pass computes: arrays per layer, to which a block of rows is added; of two parts of one layer, their merge.

A reduction is a small frozen object that travels with every task. Its arrays all have the layers first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from filterdb.errors import DamageError
from filterdb.numerics import compiled
from filterdb.numerics.histogram import BINS, EDGE_TOLERANCE, bin_edges, edge_slack
from filterdb.numerics.moments import Moments, merge
from filterdb.numerics.quality import SPARSE_FRACTION
from filterdb.schema import WEIGHTS
from filterdb.store.canonical import canonical
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


CLEAN, SPARSE, SCALED = 0, 1, 2
"""The states of a layer: raw filters that are not sparse, raw sparse filters, all filters max-scaled."""


@dataclass(frozen=True, slots=True)
class MomentsReduction(Reduction):
    """Per layer: moments of clean, sparse and scaled filters, peak, and `span` = Σ(max w − min w)."""

    @property
    def key(self) -> Key:
        return Key("moments", 3, canonical({"sparse_fraction": SPARSE_FRACTION}).decode())

    def empty(self, layers: int) -> Arrays:
        return {
            "count": np.zeros((layers, 2), np.int64),
            "mean": np.zeros((layers, 3, WEIGHTS)),
            "m2": np.zeros((layers, 3, WEIGHTS, WEIGHTS)),
            "peak": np.zeros(layers),
            "span": np.zeros(layers),
        }

    def add(self, arrays: Arrays, block: Block) -> None:
        compiled.moments(
            block.columns,
            block.starts,
            block.stops,
            block.peaks / SPARSE_FRACTION,
            *(arrays[name] for name in ("count", "mean", "m2", "peak", "span")),
        )

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        states = merge(_states(a), _states(b))
        return {
            "count": states.count[:, :SCALED],
            "mean": states.mean,
            "m2": states.m2,
            "peak": np.maximum(a["peak"], b["peak"]),
            "span": a["span"] + b["span"],
        }

    def check(self, arrays: Arrays, layers: Arrays, where: str) -> None:
        Reduction.check(self, arrays, layers, where)
        wrong = np.flatnonzero(arrays["peak"] != layers["peak"])
        if wrong.size:
            layer = str(layers["layer_name"][wrong[0]])
            raise DamageError(
                f"{where} layer {layer!r}: expected largest |weight| {layers['peak'][wrong[0]]!r} as at ingest, got "
                f"{arrays['peak'][wrong[0]]!r}; the filters are not those that were ingested"
            )

    def count(self, arrays: Arrays) -> np.ndarray:
        total: np.ndarray = arrays["count"].sum(axis=-1)
        return total


def _states(arrays: Arrays) -> Moments:
    """All three states; the scaled one has as many filters as the other two together."""
    count = arrays["count"]
    return Moments(np.concatenate([count, count.sum(axis=-1, keepdims=True)], axis=-1), arrays["mean"], arrays["m2"])


def state(arrays: Arrays, which: int) -> Moments:
    """One state of every layer: CLEAN, SPARSE or SCALED."""
    return _states(arrays).pick((slice(None), which))


def raw_state(arrays: Arrays) -> Moments:
    """The raw filters of every layer: clean and sparse together."""
    return merge(state(arrays, CLEAN), state(arrays, SPARSE))


Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Axes:
    """What filters are projected on: mean (9,), components (9, 9), max-scaled before or raw."""

    mean: tuple[float, ...]
    components: Rows
    scaled: bool

    @classmethod
    def of(cls, mean: np.ndarray, components: np.ndarray, *, scaled: bool) -> Axes:
        """From arrays."""
        return cls(tuple(mean.tolist()), tuple(map(tuple, components.tolist())), scaled)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """mean (9,), components (9, 9) float64."""
        return np.array(self.mean), np.array(self.components)

    @property
    def content(self) -> dict[str, object]:
        """What a summary's name is made from."""
        return {"mean": self.mean, "components": self.components, "scaled": self.scaled}


@dataclass(frozen=True, slots=True)
class ExtremesReduction(Reduction):
    """Per layer and component: smallest and largest coefficient."""

    axes: Axes

    @property
    def key(self) -> Key:
        return Key("extremes", 3, canonical(self.axes.content).decode())

    def empty(self, layers: int) -> Arrays:
        far = np.finfo(np.float64).max
        return {
            "smallest": np.full((layers, WEIGHTS), far),
            "largest": np.full((layers, WEIGHTS), -far),
            "count": np.zeros(layers, np.int64),
        }

    def add(self, arrays: Arrays, block: Block) -> None:
        arrays["count"] += block.stops - block.starts
        compiled.extremes(
            block.columns,
            block.starts,
            block.stops,
            *self.axes.arrays,
            self.axes.scaled,
            arrays["smallest"],
            arrays["largest"],
        )

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        return {
            "smallest": np.minimum(a["smallest"], b["smallest"]),
            "largest": np.maximum(a["largest"], b["largest"]),
            "count": a["count"] + b["count"],
        }

    def count(self, arrays: Arrays) -> np.ndarray:
        return arrays["count"]


@dataclass(frozen=True, slots=True)
class HistogramsReduction(Reduction):
    """Per layer and component: counts in 70 uniform bins over [low, high], underflow, overflow, on_edge.

    on_edge: coefficients within EDGE_TOLERANCE of an inner edge, which count in the bin above it.
    """

    axes: Axes
    low: float
    high: float

    @property
    def key(self) -> Key:
        content = {**self.axes.content, "range": [self.low, self.high], "bins": BINS, "tolerance": EDGE_TOLERANCE}
        return Key("histograms", 4, canonical(content).decode())

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, (71,)."""
        return bin_edges(self.low, self.high)

    def empty(self, layers: int) -> Arrays:
        return {
            "counts": np.zeros((layers, WEIGHTS, BINS), np.int64),
            "underflow": np.zeros((layers, WEIGHTS), np.int64),
            "overflow": np.zeros((layers, WEIGHTS), np.int64),
            "on_edge": np.zeros((layers, WEIGHTS), np.int64),
        }

    def add(self, arrays: Arrays, block: Block) -> None:
        compiled.histograms(
            block.columns,
            block.starts,
            block.stops,
            *self.axes.arrays,
            self.axes.scaled,
            self.edges,
            edge_slack(self.edges),
            *(arrays[name] for name in ("counts", "underflow", "overflow", "on_edge")),
        )

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        return {name: a[name] + b[name] for name in a}

    def count(self, arrays: Arrays) -> np.ndarray:
        total: np.ndarray = arrays["counts"].sum(axis=-1) + arrays["underflow"] + arrays["overflow"]
        # Every component sees every filter; where they disagree, no layer's size can match.
        agreed: np.ndarray = np.where((total == total[:, :1]).all(axis=1), total[:, 0], -1)
        return agreed
