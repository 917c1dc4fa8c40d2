"""Divide rows into chunks and chunks into partitions, and find where layers and chunks overlap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

TASK_ROWS = 1_048_576
"""Rows of nine weights that a task reads: of smaller chunks it reads several."""

MAX_TASKS = 10_000
"""Largest number of reading tasks of a pass: with more chunks, each task reads more of them."""


class Runs(NamedTuple):
    """The overlaps of a range of rows with the layers: layers [first, last), rows relative to the range's start."""

    first: int
    last: int
    starts: np.ndarray
    stops: np.ndarray


def offsets(row_size: np.ndarray) -> np.ndarray:
    """Return the first row of each layer and, at the end, the number of rows: (layers + 1,) int64."""
    return np.concatenate([[0], np.cumsum(row_size, dtype=np.int64)])


def chunk_rows(rows: int, default: int) -> int:
    """Return the rows of a chunk: the default, or all rows of a smaller segment, but at least 1."""
    return max(1, min(default, rows))


def chunk_count(rows: int, size: int) -> int:
    """Return the number of chunks for `rows` rows, counting a last one that is not full."""
    return -(-rows // size)


def runs(bounds: np.ndarray, start: int, stop: int) -> Runs:
    """Return how the rows [start, stop) overlap with layers of offsets `bounds`, each of at least one row."""
    first = int(np.searchsorted(bounds, start, side="right")) - 1
    last = int(np.searchsorted(bounds, stop, side="left"))
    edges = np.clip(bounds[first : last + 1], start, stop) - start
    return Runs(first, last, edges[:-1], edges[1:])


def bank_rows(size: int, weights: int) -> int:
    """Return the rows of so many weights that take as much room as `size` rows of nine, but at least 1."""
    return max(1, size * 9 // weights)


def partitions(chunks: int, chunk_rows: int, weights: int = 9) -> list[range]:
    """Return runs of whole chunks, one per task: about TASK_ROWS rows each, more if there were over MAX_TASKS.

    Rows of more weights are fewer, so that a task takes the same memory.

    Summaries are merged along them on every scheduler, so they decide the last digits of results.
    """
    return list(batches(chunks, max(1, bank_rows(TASK_ROWS, weights) // chunk_rows, -(-chunks // MAX_TASKS))))


def batches(count: int, size: int) -> Iterator[range]:
    """Split [0, count) into consecutive ranges of at most `size`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
