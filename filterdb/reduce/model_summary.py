"""Reduce a model file that is not in the database as if it were. A child process sends its filters; none are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from filterdb.engine.reduction import Block
from filterdb.errors import InputError
from filterdb.ledger import is_unread
from filterdb.models.catalog import ModelSource
from filterdb.models.hub_files import pinned
from filterdb.models.inputs import local_copy
from filterdb.models.sandbox import Channel, Limits
from filterdb.models.scan import examine, reading, received
from filterdb.models.sources import NamedFile
from filterdb.reduce.reductions import HistogramsReduction
from filterdb.schema import KERNEL, WEIGHTS, Kernel, Kernels, kernel_text, parse_kernel
from filterdb.store.files import local_path
from filterdb.store.remote import store_errors
from filterdb.store.summary import Arrays
from filterdb.wording import counted

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


@dataclass(frozen=True)
class Examined:
    """The layers of a model file by kernel shape, before their filters are reduced."""

    source: ModelSource
    rows: dict[Kernel, list[dict[str, Any]]]
    """Facts about each layer with finite weights, as `examine` returns them."""
    left_out: dict[str, str]
    """Layers that should be counted but cannot be: name → reason."""
    skipped: int
    """Convolutions of other kinds."""

    def check(self, kernel: Kernel) -> None:
        """Raise InputError if the file has no layer of a kernel shape."""
        if not self.rows.get(kernel):
            expected = f"expected at least one {kernel_text(kernel)} convolution with a constant weight"
            raise InputError(f"{self.source.shown}: {expected}, found {_instead(self.left_out, self.skipped)}")


def examine_model(file: NamedFile, limits: Limits, kernels: Kernels) -> Examined:
    """List the layers of a model file or URL. Raises InputError if there is no file or no model."""
    source = pinned(replace(file, path=local_path(file.path)).source())
    layers, skipped, *_ = examine(source, limits, kernels)
    rows: dict[Kernel, list[dict[str, Any]]] = {}
    for row in layers:
        if not row["nonfinite"]:
            rows.setdefault(parse_kernel(row["kernel"]), []).append(row)
    left_out = {row["layer_name"]: row["nonfinite"] for row in layers if row["nonfinite"]}
    left_out |= {skip.layer: skip.reason for skip in skipped if is_unread(skip.code)}
    return Examined(source, rows, left_out, len(skipped))


def reduce_model(file: NamedFile, reduction: HistogramsReduction, limits: Limits, kernel: Kernel = KERNEL) -> Query:
    """Reduce the layers of one kernel shape of a model file or URL as a pass reduces those of a segment.

    Raises InputError if there is no file, no model, or no layer with finite filters of this shape.
    """
    examined = examine_model(file, limits, (kernel,))
    examined.check(kernel)
    return reduce_examined(examined, {kernel: reduction}, limits)[kernel]


def reduce_examined(
    examined: Examined, reductions: Mapping[Kernel, HistogramsReduction], limits: Limits
) -> dict[Kernel, Query]:
    """Reduce the layers of some kernel shapes, each by its reduction. The file is read once."""
    source = examined.source
    rows = {kernel: examined.rows[kernel] for kernel in reductions}
    arrays = {kernel: reduction.empty(len(rows[kernel])) for kernel, reduction in reductions.items()}
    places = [(kernel, i, row) for kernel in reductions for i, row in enumerate(rows[kernel])]
    wanted = [(row["layer_name"], 0, row["row_size"]) for _, _, row in places]
    request = {"do": "filters", "wanted": wanted, "kernels": tuple(reductions)}
    with (
        local_copy(source.url) as local,
        store_errors("reading", source.shown),
        reading(source, local, limits, request) as (channel, companions),
    ):
        digest = local.digest(companions, source.key, source.order)
        channel.send({"go": True})
        for kernel, i, row in places:
            name, size = row["layer_name"], row["row_size"]
            if received(channel, local).get("rows") != size:
                raise InputError(
                    f"{source.shown} layer {name!r}: expected {counted(size, 'filter')}, it changed; run again"
                )
            is_small = sum(own["row_size"] for own in rows[kernel]) <= UNCOMPILED
            add = reductions[kernel].add_uncompiled if is_small else reductions[kernel].add
            layer_arrays = {key: array[i : i + 1] for key, array in arrays[kernel].items()}
            for block in _blocks(channel, row, kernel, source.shown):
                add(layer_arrays, block)
    return {
        kernel: Query(source.shown, digest, rows[kernel], arrays[kernel], examined.left_out) for kernel in reductions
    }


def _blocks(channel: Channel, row: dict[str, Any], kernel: Kernel, shown: str) -> Iterator[Block]:
    """Yield the filters of a layer that a child sends, some at a time."""
    weights = kernel[0] * kernel[1]
    step, size, peak = ROWS * WEIGHTS // weights, row["row_size"], np.array([row["peak"]])
    for start in range(0, size, step):
        filters = np.empty((min(step, size - start), weights), np.float32)
        channel.receive_into(filters)
        if not np.isfinite(filters).all():  # a hostile file may have taken over the child process
            raise InputError(
                f"{shown} layer {row['layer_name']!r}: expected finite numbers, got NaN or infinity; remove the file"
            )
        ends, first = (np.array([0]), np.array([len(filters)])), np.array([start])
        yield Block(np.ascontiguousarray(filters.T), *ends, peak, firsts=first)


def _instead(left_out: dict[str, str], skipped: int) -> str:
    """Say what a model without a usable layer of a kernel shape has instead."""
    if left_out:
        layer, reason = next(iter(left_out.items()))
        return f"{len(left_out):,} without usable weights, such as {layer!r}: {reason}"
    return f"{counted(skipped, 'convolution')} of other kinds" if skipped else "no convolution"
