"""Decode sparse tensors, as TensorFlow Lite's DENSIFY does: a list of dimensions, each of them dense or compressed."""

from __future__ import annotations

import math

import numpy as np

from filterdb.models.parse_errors import NotStoredError
from filterdb.models.tflite.flatbuffer import INT8, INT32, UINT8, Table
from filterdb.models.tflite.schema import INDEX_TYPES, SparseDimension, Sparsity

_DENSE, _COMPRESSED = 0, 1
_MAX_LEVELS = 16


def densify(sparsity: Table, shape: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Return the dense tensor of a shape whose stored numbers are `values`; the others are 0.

    The dimensions are stored in their own order, one level after the other. The last levels may split dimensions into
    blocks. Raises NotStoredError if the description does not fit the shape or the values.
    """
    order = sparsity.integers(Sparsity.TRAVERSAL_ORDER)
    blocks = sparsity.integers(Sparsity.BLOCK_MAP)
    levels = sparsity.tables(Sparsity.DIMENSIONS)
    rank = len(shape)
    _require(len(order) == len(levels) == rank + len(blocks) <= _MAX_LEVELS, "its dimensions do not fit its shape")
    _require(sorted(order[:rank]) == list(range(rank)), "its dimensions are in no valid order")
    _require(sorted(order[rank:]) == list(range(rank, len(order))), "its blocks are in no valid order")
    _require(all(0 <= dimension < rank for dimension in blocks), "it has blocks of no dimension")
    size = math.prod(shape)
    # Each level extends the positions of the level before, and their coordinates in the levels so far.
    count = 1
    positions = np.zeros(1, np.int64)
    coordinates: list[np.ndarray] = []
    for level in levels:
        parents, index, positions, count = _level(level, positions, count, size)
        coordinates = [coordinate[parents] for coordinate in coordinates]
        coordinates.append(index)
    _require(len(positions) == len(values), f"it has {len(values):,} numbers for {len(positions):,} places")
    places: list[np.ndarray] = [np.zeros(0, np.int64)] * rank
    for dimension, coordinate in zip(order[:rank], coordinates, strict=False):
        places[dimension] = coordinate
    for depth in range(rank, len(order)):
        dimension = blocks[order[depth] - rank]
        width = levels[depth].number(SparseDimension.DENSE_SIZE, INT32)
        places[dimension] = places[dimension] * width + coordinates[depth]
    for place, extent in zip(places, shape, strict=True):
        _require(not len(place) or 0 <= place.min() <= place.max() < extent, "a number lies outside its shape")
    dense = np.zeros(shape, values.dtype)
    dense[tuple(places)] = values
    return dense


def _level(
    level: Table, positions: np.ndarray, count: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return, for each entry of a level, its parent entry, its coordinate and its position, and the next count.

    `positions` are those of the parent entries among `count` possible ones.
    """
    kind = level.number(SparseDimension.FORMAT, INT8)
    if kind == _DENSE:
        width = level.number(SparseDimension.DENSE_SIZE, INT32)
        _require(width >= 0 and len(positions) * width <= size, "its dense dimensions exceed its shape")
        parents = np.repeat(np.arange(len(positions)), width)
        index = np.tile(np.arange(width), len(positions))
        return parents, index, np.repeat(positions, width) * width + index, count * width
    _require(kind == _COMPRESSED, f"it has a dimension of format {kind}")
    segments = _indices(level, SparseDimension.SEGMENTS_TYPE, SparseDimension.SEGMENTS)
    indices = _indices(level, SparseDimension.INDICES_TYPE, SparseDimension.INDICES)
    lengths = np.diff(segments)
    fits = len(segments) == count + 1 and segments[0] == 0 and segments[-1] == len(indices) and (lengths >= 0).all()
    _require(bool(fits), "its segments do not fit its indices")
    parents = np.repeat(np.arange(len(positions)), lengths[positions])
    entries = np.concatenate([[0], np.cumsum(lengths[positions])])
    own = np.arange(len(parents)) - entries[parents] + segments[positions][parents]
    return parents, indices[own], own, len(indices)


def _indices(level: Table, kind: int, field: int) -> np.ndarray:
    """Return the indices of a compressed dimension, which have one of three integer types."""
    dtype = INDEX_TYPES.get(level.number(kind, UINT8), "")
    vector = level.table(field) if dtype else None
    if vector is None:
        raise NotStoredError("unreadable", "the weight is sparse, and its indices are missing")
    return vector.numbers(0, dtype).astype(np.int64)


def _require(fits: bool, reason: str) -> None:
    if not fits:
        raise NotStoredError("unreadable", f"the weight is sparse, and {reason}")
