"""Several reductions in one loop: which fit together, and that every byte is that of each alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from filterdb.engine.loops import grouped
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.partition import Partition
from filterdb.engine.parts import Part, fold
from filterdb.engine.reduction import LayerReduction
from filterdb.engine.sketches import SketchReduction
from filterdb.plan import offsets
from filterdb.reduce.reductions import Axes, ExtremesReduction, HistogramsReduction
from filterdb.store.files import Files
from filterdb.store.segment import Segment

COMPONENTS = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 9)))[0]
SCALED, RAW = (Axes.of(np.linspace(-0.1, 0.1, 9), COMPONENTS, scaled=scaled) for scaled in (True, False))


def layers() -> list[np.ndarray]:
    """Layers around the size of a block: sparse filters, zeros, subnormal, huge and quantised weights."""
    rng = np.random.default_rng(1)
    plain = [rng.standard_normal((n, 9)) * 10.0 ** rng.integers(-3, 3) for n in (1, 255, 256, 257, 3_000)]
    for filters in plain:
        filters[rng.random(len(filters)) < 0.3] *= 1e-3
    edge = [np.zeros((300, 9)), plain[3] * 1e-41, plain[2] * 1e33, np.round(plain[4]), np.full((500, 9), 1 / 3)]
    return [filters.astype(np.float32) for filters in plain + edge]


def add(parts: list[np.ndarray], reductions: Sequence[LayerReduction]) -> list[Part]:
    filters, bounds = np.concatenate(parts), offsets(np.array([len(part) for part in parts]))
    peaks = np.array([np.abs(part).max() for part in parts], np.float64)
    partition = Partition(Segment(Files(""), "", len(filters), len(filters)), range(1), 0, bounds, peaks)
    return fold(partition, [np.ascontiguousarray(filters.T)], reductions)


@pytest.mark.parametrize("axes", [SCALED, RAW], ids=["scaled", "raw"])
@pytest.mark.parametrize("high", [3.2, 0.3])
def test_one_loop_computes_the_bytes_of_three(axes: Axes, high: float) -> None:
    reductions = [MomentsReduction(), ExtremesReduction(axes), HistogramsReduction(axes, -3.2, high)]
    assert grouped(reductions) == [[0, 1, 2]]
    for reduction, part in zip(reductions, add(layers(), reductions), strict=True):
        (alone,) = add(layers(), [reduction])
        for name, expected in alone.arrays.items():
            assert part.arrays[name].tobytes() == expected.tobytes(), (reduction.kind, name)


def test_reductions_of_one_kind_or_of_other_axes_take_loops_of_their_own() -> None:
    moments, extremes, raw = MomentsReduction(), ExtremesReduction(SCALED), HistogramsReduction(RAW, -1.0, 1.0)
    narrow, wide = (HistogramsReduction(SCALED, -high, high) for high in (1.0, 3.0))
    assert grouped([extremes, raw, moments, SketchReduction()]) == [[0], [2], [1], [3]]
    assert grouped([narrow, wide, extremes, raw, moments]) == [[0, 2, 4], [1], [3]]
    assert grouped([raw, narrow, moments]) == [[0], [2], [1]]
    assert grouped([]) == []
