"""Extremes and histograms of every layer: what the passes over stored filters compute in given axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from filterdb.engine.reduction import Block, LayerReduction
from filterdb.numerics.histogram import BINS, EDGE_TOLERANCE, bin_edges, edge_slack
from filterdb.numerics.loops import compiled
from filterdb.schema import WEIGHTS
from filterdb.store.canonical import canonical
from filterdb.store.summary import Arrays, Key

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of coefficients: mean (9,), components (9, 9), and whether filters are max-scaled before."""

    mean: tuple[float, ...]
    components: Rows
    scaled: bool

    @classmethod
    def of(cls, mean: np.ndarray, components: np.ndarray, *, scaled: bool) -> Axes:
        """Return the axes with these arrays, mean (9,) and components (9, 9)."""
        return cls(tuple(mean.tolist()), tuple(map(tuple, components.tolist())), scaled)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (9,) and components (9, 9), float64."""
        return np.array(self.mean), np.array(self.components)

    @property
    def content(self) -> dict[str, object]:
        """Return the part of a summary's name that depends on the axes."""
        return {"mean": self.mean, "components": self.components, "scaled": self.scaled}


@dataclass(frozen=True, slots=True)
class ExtremesReduction(LayerReduction):
    """Compute, by layer and component, the smallest and the largest coefficient."""

    axes: Axes

    @property
    def key(self) -> Key:
        return Key("extremes", 3, canonical(self.axes.content).decode())

    def empty(self, layers: int) -> Arrays:
        extreme = np.finfo(np.float64).max
        return {
            "smallest": np.full((layers, WEIGHTS), extreme),
            "largest": np.full((layers, WEIGHTS), -extreme),
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
class HistogramsReduction(LayerReduction):
    """Count, by layer and component, coefficients in 70 uniform bins over [low, high], underflow, overflow, on_edge.

    on_edge counts coefficients within EDGE_TOLERANCE of an inner edge; they also count in the bin above it.
    """

    narrow = ("counts",)
    axes: Axes
    low: float
    high: float

    @property
    def key(self) -> Key:
        content = {**self.axes.content, "range": [self.low, self.high], "bins": BINS, "tolerance": EDGE_TOLERANCE}
        return Key("histograms", 4, canonical(content).decode())

    @property
    def edges(self) -> np.ndarray:
        """Return the edges of the bins, (71,)."""
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
        # Every component counts every filter. If they disagree, return −1, which no layer's size can match.
        count: np.ndarray = np.where((total == total[:, :1]).all(axis=1), total[:, 0], -1)
        return count
