"""Pure arithmetic: rows → chunks → partitions, and the runs in which layers and chunks overlap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

TASK_ROWS = 1_048_576
"""Rows of a task: where chunks are smaller, a task takes a run of them."""

MAX_TASKS = 10_000
"""A pass has at most this many reading tasks; beyond, each takes a longer run of chunks."""


class Runs(NamedTuple):
    """The overlaps of a range of rows with the layers: layers [first, last), rows relative to the range's start."""

    first: int
    last: int
    starts: np.ndarray
    stops: np.ndarray


def offsets(row_size: np.ndarray) -> np.ndarray:
    """First row of each layer and, last, the number of rows: (layers + 1,) int64."""
    return np.concatenate([[0], np.cumsum(row_size, dtype=np.int64)])


def chunk_rows(rows: int, default: int) -> int:
    """Rows of a chunk: the default, less where the segment is smaller (at least 1)."""
    return max(1, min(default, rows))


def chunk_count(rows: int, size: int) -> int:
    """Chunks that `rows` rows fill, the last one perhaps in part."""
    return -(-rows // size)


def runs(bounds: np.ndarray, start: int, stop: int) -> Runs:
    """Runs of the rows [start, stop) for layers with offsets `bounds`; every layer has at least one row."""
    first = int(np.searchsorted(bounds, start, side="right")) - 1
    last = int(np.searchsorted(bounds, stop, side="left"))
    edges = np.clip(bounds[first : last + 1], start, stop) - start
    return Runs(first, last, edges[:-1], edges[1:])


def partitions(chunks: int, chunk_rows: int) -> list[range]:
    """Runs of whole chunks, one per task: about TASK_ROWS rows each, more where tasks would exceed MAX_TASKS.

    Summaries are merged along them, whoever computes them: part of their last digits.
    """
    return list(batches(chunks, max(1, TASK_ROWS // chunk_rows, -(-chunks // MAX_TASKS))))


def batches(count: int, size: int) -> Iterator[range]:
    """[0, count) in consecutive ranges of at most `size`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
