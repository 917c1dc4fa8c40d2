"""Count the convolution weights of a snapshot's models by kernel shape, and how many of them the database covers."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from filterdb import schema
from filterdb.columns import Columns
from filterdb.store.database import Database

_SHAPE = re.compile(r"\((\d{1,9}), (\d{1,9})\)")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the database has of a kernel shape. `is_stored`: its filters, not only what the layers' table says."""

    kernel: str
    layers: int
    filters: int
    weights: int
    is_stored: bool


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the database has of each kernel shape, 3×3 first, and the weights of all convolutions of its models.

    These are the weights of 2-D convolutions that the files list, also of those that could not be read, and of the 1-D
    convolutions that were read.
    """

    shapes: list[Shape]
    weights: int

    @property
    def share(self) -> float:
        """The share of all weights that the database covers; NaN without convolutions."""
        return sum(shape.weights for shape in self.shapes) / self.weights if self.weights else float("nan")


def coverage(db: Database) -> Coverage:
    """Count the convolution weights of a snapshot's models. Only tables are read."""
    shapes, of_1d = [], 0
    for kernel in db.kernels:
        layers = db.bank(kernel).all_layer_columns
        filters = layers["row_size"].values
        weights = kernel[0] * kernel[1]
        if "rank" in layers:
            of_1d += int(filters[layers["rank"].values == 1].sum()) * weights
        total = int(filters.sum())
        shapes.append(Shape(schema.kernel_name(kernel), len(filters), total, total * weights, is_stored=True))
    others, weights_1d = _others(db.other_columns)
    listed = sum(_weights_of(str(text)) for text in db.root.model_columns["filter_shapes"].values)
    return Coverage([*shapes, *others], listed + of_1d + weights_1d)


def _others(layers: Columns) -> tuple[list[Shape], int]:
    """Return the shapes of layers whose filters are not stored, and the weights of those that are 1-D."""
    counts: dict[str, Counter[str]] = {}
    of_1d = 0
    columns = (layers[name].values.tolist() for name in ("kernel", "row_size", "rank"))
    for kernel, filters, rank in zip(*columns, strict=True):
        weights = filters * int(np.prod([int(side) for side in kernel.split("x")]))
        counts.setdefault(kernel, Counter()).update(layers=1, filters=filters, weights=weights)
        of_1d += weights if rank == 1 else 0
    by_weights = sorted(counts.items(), key=lambda item: (-item[1]["weights"], item[0]))
    return [Shape(kernel, n["layers"], n["filters"], n["weights"], is_stored=False) for kernel, n in by_weights], of_1d


def _weights_of(filter_shapes: str) -> int:
    """Return the weights of a model's 2-D convolutions, from its counts of filters by kernel shape as JSON."""
    return sum(
        int(filters) * int(match[1]) * int(match[2])
        for shape, filters in json.loads(filter_shapes or "{}").items()
        if (match := _SHAPE.fullmatch(shape))
    )
