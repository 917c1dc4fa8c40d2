"""Parts of a result: add chunks to arrays, and join the arrays of consecutive partitions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from filterdb import metrics, plan
from filterdb.engine.loops import add_group, grouped
from filterdb.engine.partition import Partition
from filterdb.engine.reduction import Block, Reduction
from filterdb.store.summary import Arrays


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Arrays (n, …) of some layers or groups; `index` (n,) int64 is their numbers, ascending.

    The filters of a layer or group may be in several partitions; its row is complete once their parts are joined.
    """

    index: np.ndarray
    arrays: Arrays


def reduce_partition(partition: Partition, reductions: Sequence[Reduction]) -> list[Part]:
    """Read the chunks of a partition once and return a Part for each reduction. This is the work of a reading task."""
    parts = fold(partition, map(partition.segment.read_columns, partition.chunks), reductions)
    count(kinds(reductions), partition)
    return parts


def fold(partition: Partition, columns: Iterable[np.ndarray], reductions: Sequence[Reduction]) -> list[Part]:
    """Add the chunks of a partition, as columns (weights, n) float32, to new arrays; return a Part per reduction."""
    index, rows = partition.index, partition.rows
    parts = [Part(index, reduction.empty(len(index))) for reduction in reductions]
    groups = grouped(reductions)
    for chunk, filters in zip(partition.chunks, columns, strict=True):
        start, stop = partition.segment.bounds(chunk)
        runs = plan.runs(partition.bounds, start, stop)
        layers = slice(runs.first, runs.last)
        firsts = start + runs.starts - partition.bounds[layers]
        block = Block(filters, runs.starts, runs.stops, partition.peaks[layers], rows[layers], firsts)
        arrays = [
            part.arrays if reduction.by_group else {name: array[layers] for name, array in part.arrays.items()}
            for reduction, part in zip(reductions, parts, strict=True)
        ]
        for group in groups:
            add_group([reductions[i] for i in group], [arrays[i] for i in group], block)
    return parts


def join(parts: Sequence[Sequence[Part]], reductions: Sequence[Reduction]) -> list[Part]:
    """Join the parts of consecutive partitions, each a list by reduction; return one Part for each reduction."""
    return [_join([part[i] for part in parts], reduction) for i, reduction in enumerate(reductions)]


def _join(parts: Sequence[Part], reduction: Reduction) -> Part:
    """Copy rows that one part has, and merge rows that several parts have, from left to right."""
    if len(parts) == 1:
        return parts[0]
    index = np.unique(np.concatenate([part.index for part in parts]))
    joined = {name: np.empty((len(index), *array.shape[1:]), array.dtype) for name, array in parts[0].arrays.items()}
    filled = np.zeros(len(index), bool)
    for part in parts:
        rows = np.searchsorted(index, part.index)
        is_filled = filled[rows]
        if is_filled.any():
            merged = reduction.merge(_pick(joined, rows[is_filled]), _pick(part.arrays, is_filled))
            _put(joined, rows[is_filled], merged)
        _put(joined, rows[~is_filled], _pick(part.arrays, ~is_filled))
        filled[rows] = True
    return Part(index, joined)


def _pick(arrays: Arrays, rows: np.ndarray) -> Arrays:
    """Return a copy of the rows, or the arrays themselves if a mask selects all rows."""
    is_all = rows.dtype == bool and rows.all()
    return arrays if is_all else {name: array[rows] for name, array in arrays.items()}


def _put(arrays: Arrays, rows: np.ndarray, values: Arrays) -> None:
    """Assign rows in place."""
    for name, array in arrays.items():
        array[rows] = values[name]


def kinds(reductions: Sequence[Reduction]) -> str:
    """Return the name of a pass in progress bars, logs and metrics: the kinds of its summaries with plus signs."""
    return "+".join(dict.fromkeys(key.kind for reduction in reductions for key in reduction.keys))


def count(label: str, partition: Partition) -> None:
    """Add a partition that a pass has read to the Prometheus counters."""
    chunks, segment = partition.chunks, partition.segment
    rows = segment.bounds(chunks[-1])[1] - segment.bounds(chunks[0])[0]
    metrics.count(metrics.FILTERS, rows, **{"pass": label})
    metrics.count(metrics.BYTES, rows * segment.weights * 4, **{"pass": label})
