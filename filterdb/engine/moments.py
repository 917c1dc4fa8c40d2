"""Moments of every layer. An ingest computes them while it writes filters, a pass if that summary is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from filterdb.engine.loops import LoopReduction
from filterdb.engine.reduction import Block, LayerReduction
from filterdb.errors import DamageError
from filterdb.numerics.moments import Moments, merge
from filterdb.numerics.quality import SPARSE_FRACTION
from filterdb.schema import WEIGHTS
from filterdb.store.canonical import canonical
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key

CLEAN, SPARSE, SCALED = 0, 1, 2
"""The states of a layer: raw filters that are not sparse, raw sparse filters, all filters max-scaled."""


@dataclass(frozen=True, slots=True)
class MomentsReduction(LoopReduction):
    """Compute, by layer, moments of clean, sparse and scaled filters, the peak, and `span` = Σ(max w − min w)."""

    kind: ClassVar = "moments"
    weights: int = WEIGHTS
    """Number of weights of a filter. The name of the summary need not have it, as that of its folder does."""

    @property
    def key(self) -> Key:
        return Key("moments", 3, canonical({"sparse_fraction": SPARSE_FRACTION}).decode())

    def empty(self, layers: int) -> Arrays:
        return {
            "count": np.zeros((layers, 2), np.int64),
            "mean": np.zeros((layers, 3, self.weights)),
            "m2": np.zeros((layers, 3, self.weights, self.weights)),
            "peak": np.zeros(layers),
            "span": np.zeros(layers),
        }

    def loop_state(self, arrays: Arrays, block: Block) -> tuple[np.ndarray, ...]:
        names = ("count", "mean", "m2", "peak", "span")
        return block.peaks / SPARSE_FRACTION, *(arrays[name] for name in names)

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        states = merge(_states(a), _states(b))
        return {
            "count": states.count[:, :SCALED],
            "mean": states.mean,
            "m2": states.m2,
            "peak": np.maximum(a["peak"], b["peak"]),
            "span": a["span"] + b["span"],
        }

    def check(self, arrays: Arrays, tables: Arrays, segment: Segment, key: Key) -> None:
        """Raise DamageError if a layer has another number of filters or another peak than at ingest."""
        LayerReduction.check(self, arrays, tables, segment, key)
        wrong = np.flatnonzero(arrays["peak"] != tables["peak"])
        if wrong.size:
            layer = str(tables["layer_name"][wrong[0]])
            raise DamageError(
                f"{segment.files.url(segment.name)} layer {layer!r}: expected largest |weight| "
                f"{tables['peak'][wrong[0]]!r} as at ingest, got {arrays['peak'][wrong[0]]!r}; the filters are not "
                "those that were ingested"
            )

    def count(self, arrays: Arrays) -> np.ndarray:
        total: np.ndarray = arrays["count"].sum(axis=-1)
        return total


def _states(arrays: Arrays) -> Moments:
    """Return all three states of every layer; the scaled state has as many filters as the other two together."""
    count = arrays["count"]
    return Moments(np.concatenate([count, count.sum(axis=-1, keepdims=True)], axis=-1), arrays["mean"], arrays["m2"])


def state(arrays: Arrays, which: int) -> Moments:
    """Return one state of every layer: CLEAN, SPARSE or SCALED."""
    return _states(arrays).pick((slice(None), which))


def raw_state(arrays: Arrays) -> Moments:
    """Return the moments of the raw filters of every layer: clean and sparse together."""
    return merge(state(arrays, CLEAN), state(arrays, SPARSE))
