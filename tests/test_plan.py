"""The arithmetic of rows, chunks and runs, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filterdb import plan


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 15))
def test_runs_cover_every_row_once_and_in_its_layer(sizes: list[int], chunk: int) -> None:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    bounds = plan.offsets(np.array(sizes))
    seen = np.full(len(owner), -1)
    for c in range(plan.chunk_count(len(owner), chunk)):
        start, stop = c * chunk, min((c + 1) * chunk, len(owner))
        found = plan.runs(bounds, start, stop)
        assert found.last - found.first == len(found.starts)
        for layer, a, b in zip(range(found.first, found.last), found.starts, found.stops, strict=True):
            assert a < b
            assert (seen[start + a : start + b] == -1).all()
            seen[start + a : start + b] = layer
    np.testing.assert_array_equal(seen, owner)


@pytest.mark.parametrize(
    ("chunks", "rows", "tasks"),
    [
        (0, 1 << 20, 0),
        (1, 7, 1),
        (9_999, 1 << 20, 9_999),
        (10_000, 1 << 21, 10_000),
        (140_000, 1 << 20, 10_000),
        (160, 1 << 16, 10),
        (161, 1 << 16, 11),
        (5_000, 100, 1),
    ],
)
def test_partitions_are_neither_small_nor_many(
    chunks: int, rows: int, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "TASK_ROWS", 1 << 20)
    parts = plan.partitions(chunks, rows)
    assert len(parts) == tasks
    assert [chunk for part in parts for chunk in part] == list(range(chunks))


def test_chunk_rows() -> None:
    assert [plan.chunk_rows(rows, 1_000) for rows in (0, 1, 999, 1_000, 5_000)] == [1, 1, 999, 1_000, 1_000]
