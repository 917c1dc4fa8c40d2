"""Parts of a result: chunks added to arrays, and the arrays of consecutive partitions joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from filterdb import metrics, plan
from filterdb.engine.partition import Partition
from filterdb.engine.reduction import Block, Reduction
from filterdb.schema import WEIGHTS
from filterdb.store.summary import Arrays


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Arrays of some layers or groups: `index` (n,) int64 says which, ascending; arrays (n, …).

    The filters of a layer or group may lie in several partitions; its row is complete when their parts are joined.
    """

    index: np.ndarray
    arrays: Arrays


def reduce_partition(partition: Partition, reductions: Sequence[Reduction]) -> list[Part]:
    """Read the chunks of a partition once; return a Part for each reduction. The work of a reading task."""
    parts = fold(partition, map(partition.segment.read_columns, partition.chunks), reductions)
    count(kinds(reductions), partition)
    return parts


def fold(partition: Partition, columns: Iterable[np.ndarray], reductions: Sequence[Reduction]) -> list[Part]:
    """Add the chunks of a partition, each as columns (9, n) float32, to new arrays: a Part for each reduction."""
    index, rows = partition.index, partition.rows
    parts = [Part(index, reduction.empty(len(index))) for reduction in reductions]
    for chunk, filters in zip(partition.chunks, columns, strict=True):
        runs = plan.runs(partition.bounds, *partition.segment.bounds(chunk))
        here = slice(runs.first, runs.last)
        block = Block(filters, runs.starts, runs.stops, partition.peaks[here], rows[here])
        for reduction, part in zip(reductions, parts, strict=True):
            arrays = part.arrays
            if not reduction.by_group:
                arrays = {name: array[here] for name, array in arrays.items()}
            reduction.add(arrays, block)
    return parts


def join(parts: Sequence[Sequence[Part]], reductions: Sequence[Reduction]) -> list[Part]:
    """Join the parts of consecutive partitions, each a list by reduction; return one Part for each reduction."""
    return [_join([part[i] for part in parts], reduction) for i, reduction in enumerate(reductions)]


def _join(parts: Sequence[Part], reduction: Reduction) -> Part:
    """Copy rows that one part has; merge, from left to right, those that several have."""
    if len(parts) == 1:
        return parts[0]
    index = np.unique(np.concatenate([part.index for part in parts]))
    joined = {name: np.empty((len(index), *array.shape[1:]), array.dtype) for name, array in parts[0].arrays.items()}
    filled = np.zeros(len(index), bool)
    for part in parts:
        rows = np.searchsorted(index, part.index)
        again = filled[rows]
        if again.any():
            merged = reduction.merge(_pick(joined, rows[again]), _pick(part.arrays, again))
            _put(joined, rows[again], merged)
        _put(joined, rows[~again], _pick(part.arrays, ~again))
        filled[rows] = True
    return Part(index, joined)


def _pick(arrays: Arrays, rows: np.ndarray) -> Arrays:
    """Return rows as a copy, or, where they are all that there are, the arrays themselves."""
    every = rows.dtype == bool and rows.all()
    return arrays if every else {name: array[rows] for name, array in arrays.items()}


def _put(arrays: Arrays, rows: np.ndarray, values: Arrays) -> None:
    """Assign rows in place."""
    for name, array in arrays.items():
        array[rows] = values[name]


def kinds(reductions: Sequence[Reduction]) -> str:
    """Return the kinds of the summaries, joined with plus signs: how progress, log and metrics call a pass."""
    return "+".join(dict.fromkeys(key.kind for reduction in reductions for key in reduction.keys))


def count(label: str, partition: Partition) -> None:
    """Add a partition that a pass has read to the Prometheus counters."""
    chunks, segment = partition.chunks, partition.segment
    rows = segment.bounds(chunks[-1])[1] - segment.bounds(chunks[0])[0]
    metrics.count(metrics.FILTERS, rows, **{"pass": label})
    metrics.count(metrics.BYTES, rows * WEIGHTS * 4, **{"pass": label})
