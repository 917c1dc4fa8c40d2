"""Sketches of every layer's raw weights, by which `lineage` finds models that share an ancestor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filterdb.engine.moments import MomentsReduction, raw_state
from filterdb.engine.reduction import Block, LayerReduction
from filterdb.engine.run import summaries
from filterdb.numerics import sketch
from filterdb.numerics.moments import Moments
from filterdb.store.canonical import canonical
from filterdb.store.database import Database
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
        for row, start, stop, first in zip(arrays["sketch"], block.starts, block.stops, block.firsts, strict=True):
            sketch.add(row, block.columns[:, start:stop], int(first))

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        return {name: a[name] + b[name] for name in a}

    def count(self, arrays: Arrays) -> np.ndarray:
        return arrays["count"]


def centred_sketches(db: Database) -> tuple[npt.NDArray[np.float64], Moments]:
    """Return the sketches of all layers of the snapshot without their mean filters, (layers, 128), and raw moments.

    Without the mean, layers whose filters have the same average shape are not taken for relatives.
    """
    arrays, moments = summaries(db, SketchReduction(), MomentsReduction())
    raw = raw_state(moments)
    return arrays["sketch"] - sketch.of_repeated(raw.mean, arrays["count"]), raw
