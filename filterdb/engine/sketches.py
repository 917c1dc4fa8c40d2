"""Sketches of every layer. An ingest computes them while it writes filters, a pass if that summary is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from filterdb.engine.reduction import Block, LayerReduction
from filterdb.numerics import sketch
from filterdb.store.canonical import canonical
from filterdb.store.summary import Arrays, Key


@dataclass(frozen=True, slots=True)
class SketchReduction(LayerReduction):
    """Compute, by layer, the sketch of the raw weights: 128 sums, and the number of filters."""

    @property
    def key(self) -> Key:
        return Key("sketch", 1, canonical({"buckets": sketch.BUCKETS, "seed": sketch.SEED}).decode())

    def empty(self, layers: int) -> Arrays:
        return {"sketch": np.zeros((layers, sketch.BUCKETS)), "count": np.zeros(layers, np.int64)}

    def add(self, arrays: Arrays, block: Block) -> None:
        arrays["count"] += block.stops - block.starts
        sketch.add(arrays["sketch"], block.columns, block.starts, block.stops, block.firsts)

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        return {name: a[name] + b[name] for name in a}

    def count(self, arrays: Arrays) -> np.ndarray:
        return arrays["count"]
