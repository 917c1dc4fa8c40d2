"""The float32 stall: sums of 40 million float32 rows stop growing at 2²⁴, and PCA comes out wrong.

scikit-learn 1.9's PCA reports a mean of −0.446 and a first ratio of 0.376 for 40 million rows of U(−1.1, 0.1), whose
mean is −0.5 and whose ratios are 1/9; the published v0.1.0 mean has the same artefact.
"""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.engine.moments import MomentsReduction, raw_state
from filterdb.engine.parts import Part, join
from filterdb.engine.reduction import Block
from filterdb.numerics.eigen import decompose

CHUNKS, ROWS = 40, 1_000_000


@pytest.mark.slow
def test_forty_million_rows() -> None:
    rng = np.random.default_rng(0)
    reduction = MomentsReduction()
    parts, exact = [], np.zeros(9)
    stalled = np.zeros(9, np.float32)
    for _ in range(CHUNKS):
        columns = rng.random((9, ROWS), np.float32)
        columns *= np.float32(1.2)
        columns -= np.float32(1.1)
        exact += columns.sum(axis=1, dtype=np.float64)
        # As a float32 sum over rows does it: one addition after the other.
        stalled = np.array([np.add.accumulate(np.append(s, c))[-1] for s, c in zip(stalled, columns, strict=True)])
        one = np.array([0]), np.array([ROWS]), np.array([0.0])
        part = Part(np.array([0]), reduction.empty(1))
        reduction.add(part.arrays, Block(columns, *one))
        parts.append([part])
    state = raw_state(join(parts, [reduction])[0].arrays).pick(0)
    mean = exact / (CHUNKS * ROWS)
    assert state.count == CHUNKS * ROWS
    np.testing.assert_allclose(state.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(state.mean, -0.5, atol=5e-4)
    np.testing.assert_allclose(decompose(state).explained_variance_ratio, 1 / 9, rtol=2e-3)
    # The size shows the artefact: a float32 sum is far off.
    assert np.abs(stalled / np.float32(CHUNKS * ROWS) + 0.5).min() > 0.02
