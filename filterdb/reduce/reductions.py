"""Extremes and histograms of every layer: what the passes over stored filters compute in given axes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from filterdb.engine.loops import Axes, LoopReduction
from filterdb.engine.reduction import Block
from filterdb.numerics.histogram import BINS, EDGE_TOLERANCE, bin_edges, edge_slack
from filterdb.store.canonical import canonical
from filterdb.store.summary import Arrays, Key

__all__ = ["Axes", "ExtremesReduction", "HistogramsReduction"]


@lru_cache(maxsize=64)
def encoded(axes: Axes, more: str = "{}") -> str:
    """Return the JSON of what a summary in these axes is made from, and of `more`, an object as JSON.

    Axes of large kernels have thousands of numbers, and names of summaries are asked for again and again.
    """
    return canonical({**axes.content, **json.loads(more)}).decode()


@dataclass(frozen=True, slots=True)
class ExtremesReduction(LoopReduction):
    """Compute, by layer and component, the smallest and the largest coefficient."""

    kind: ClassVar = "extremes"
    axes: Axes

    @property
    def key(self) -> Key:
        return Key("extremes", 3, encoded(self.axes))

    def empty(self, layers: int) -> Arrays:
        extreme = np.finfo(np.float64).max
        return {
            "smallest": np.full((layers, self.axes.weights), extreme),
            "largest": np.full((layers, self.axes.weights), -extreme),
            "count": np.zeros(layers, np.int64),
        }

    @property
    def loop_axes(self) -> Axes:
        return self.axes

    def loop_state(self, arrays: Arrays, block: Block) -> tuple[np.ndarray, ...]:
        arrays["count"] += block.stops - block.starts
        return arrays["smallest"], arrays["largest"]

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        return {
            "smallest": np.minimum(a["smallest"], b["smallest"]),
            "largest": np.maximum(a["largest"], b["largest"]),
            "count": a["count"] + b["count"],
        }

    def count(self, arrays: Arrays) -> np.ndarray:
        return arrays["count"]


@dataclass(frozen=True, slots=True)
class HistogramsReduction(LoopReduction):
    """Count, by layer and component, coefficients in 70 uniform bins over [low, high], underflow, overflow, on_edge.

    on_edge counts coefficients within EDGE_TOLERANCE of an inner edge; they also count in the bin above it.
    """

    narrow = ("counts", "underflow", "overflow", "on_edge")
    kind: ClassVar = "histograms"
    axes: Axes
    low: float
    high: float

    @property
    def key(self) -> Key:
        bins = {"range": [self.low, self.high], "bins": BINS, "tolerance": EDGE_TOLERANCE}
        return Key("histograms", 4, encoded(self.axes, json.dumps(bins)))

    @property
    def edges(self) -> np.ndarray:
        """Return the edges of the bins, (71,)."""
        return bin_edges(self.low, self.high)

    def empty(self, layers: int) -> Arrays:
        return {
            "counts": np.zeros((layers, self.axes.weights, BINS), np.int64),
            "underflow": np.zeros((layers, self.axes.weights), np.int64),
            "overflow": np.zeros((layers, self.axes.weights), np.int64),
            "on_edge": np.zeros((layers, self.axes.weights), np.int64),
        }

    @property
    def loop_axes(self) -> Axes:
        return self.axes

    def loop_state(self, arrays: Arrays, block: Block) -> tuple[Any, ...]:
        names = ("counts", "underflow", "overflow", "on_edge")
        return self.edges, edge_slack(self.edges), *(arrays[name] for name in names)

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        return {name: a[name] + b[name] for name in a}

    def count(self, arrays: Arrays) -> np.ndarray:
        total: np.ndarray = arrays["counts"].sum(axis=-1) + arrays["underflow"] + arrays["overflow"]
        # Every component counts every filter. If they disagree, return −1, which no layer's size can match.
        count: np.ndarray = np.where((total == total[:, :1]).all(axis=1), total[:, 0], -1)
        return count
