"""Reduce a model file that is not in the database as if it were. A child process sends its filters; none are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from filterdb.engine.reduction import Block
from filterdb.errors import InputError
from filterdb.ledger import is_unread
from filterdb.models.hub_files import pinned
from filterdb.models.inputs import local_copy
from filterdb.models.sandbox import Limits
from filterdb.models.scan import examine, reading, received
from filterdb.models.sources import NamedFile
from filterdb.reduce.reductions import HistogramsReduction
from filterdb.schema import KERNEL, WEIGHTS, Kernel, kernel_text
from filterdb.store.files import local_path
from filterdb.store.remote import store_errors
from filterdb.store.summary import Arrays

ROWS = 262_144
"""3×3 filters in memory at a time (9 MB, and as much again as columns); as many bytes of other shapes."""

UNCOMPILED = 2_097_152
"""Filters up to which NumPy takes less CPU time than importing Numba: 0.2 µs a filter, and half a second."""


@dataclass(frozen=True)
class Query:
    """The reduced layers of a model file."""

    shown: str
    """Name of the file in messages."""
    file_hash: str
    rows: list[dict[str, Any]]
    """Facts about each layer, as `examine` returns them."""
    arrays: Arrays
    """Arrays of the reduction, (layers, …)."""
    left_out: dict[str, str]
    """Layers that should have been counted but could not be: name → reason."""

    def column(self, name: str) -> np.ndarray:
        """Return one fact about every layer, (layers,)."""
        return np.array([row[name] for row in self.rows])


def reduce_model(file: NamedFile, reduction: HistogramsReduction, limits: Limits, kernel: Kernel = KERNEL) -> Query:
    """Reduce the layers of one kernel shape of a model file or URL as a pass reduces those of a segment.

    Raises InputError if there is no file, no model, or no layer with finite filters of this shape.
    """
    source = pinned(replace(file, path=local_path(file.path)).source())
    layers, skipped, *_ = examine(source, limits, (kernel,))
    rows = [row for row in layers if not row["nonfinite"]]
    left_out = {row["layer_name"]: row["nonfinite"] for row in layers if row["nonfinite"]}
    left_out |= {skip.layer: skip.reason for skip in skipped if is_unread(skip.code)}
    if not rows:
        expected = f"expected at least one {kernel_text(kernel)} convolution with a constant weight"
        raise InputError(f"{source.shown}: {expected}, found {_instead(left_out, len(skipped))}")
    weights = kernel[0] * kernel[1]
    step = ROWS * WEIGHTS // weights
    arrays = reduction.empty(len(rows))
    is_small = sum(row["row_size"] for row in rows) <= UNCOMPILED
    add = reduction.add_uncompiled if is_small else reduction.add
    wanted = [(row["layer_name"], 0, row["row_size"]) for row in rows]
    request = {"do": "filters", "wanted": wanted, "kernels": (kernel,)}
    with (
        local_copy(source.url) as local,
        store_errors("reading", source.shown),
        reading(source, local, limits, request) as (channel, companions),
    ):
        digest = local.digest(companions, source.key, source.order)
        channel.send({"go": True})
        for i, (name, _, size) in enumerate(wanted):
            if received(channel, local).get("rows") != size:
                raise InputError(f"{source.shown} layer {name!r}: expected {size} filters, it changed; run again")
            layer_arrays = {key: array[i : i + 1] for key, array in arrays.items()}
            peak = np.array([rows[i]["peak"]])
            for start in range(0, size, step):
                filters = np.empty((min(step, size - start), weights), np.float32)
                channel.receive_into(filters)
                if not np.isfinite(filters).all():  # a hostile file may have taken over the child process
                    raise InputError(f"{source.shown} layer {name!r}: expected finite numbers, got NaN or infinity")
                ends, first = (np.array([0]), np.array([len(filters)])), np.array([start])
                block = Block(np.ascontiguousarray(filters.T), *ends, peak, firsts=first)
                add(layer_arrays, block)
    return Query(source.shown, digest, rows, arrays, left_out)


def _instead(left_out: dict[str, str], skipped: int) -> str:
    """Say what a model without a usable layer of a kernel shape has instead."""
    if left_out:
        layer, reason = next(iter(left_out.items()))
        return f"{len(left_out):,} without usable weights, such as {layer!r}: {reason}"
    return f"{skipped:,} convolutions of other kinds" if skipped else "no convolution"
