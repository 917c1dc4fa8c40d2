"""One model → its layer rows, its filters, its skip ledger (method §1)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from filterdb.errors import ModelError
from filterdb.models.onnx.constants import Constants, NotStoredError
from filterdb.models.onnx.convolution import (
    Weight,
    check_form,
    has_rank_4,
    is_batch_normalised,
    is_convolution,
    read_weight,
    weight_shape,
)
from filterdb.models.onnx.graph import Node, build_graph, parse
from filterdb.schema import KERNEL, distinct

MAX_FILTERS = 2**28
"""Filters of a model (9 GiB): one weight may stand in any number of convolutions, and is stored for each."""

MAX_SPATIAL = 64
"""Numbers that strides and dilations may have."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A convolution that is not stored (`layer` empty: the whole file), a one-word code and a sentence."""

    layer: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A 3×3 convolution whose weight can be read. `row` has what is known without reading it."""

    name: str
    row: dict[str, Any]
    node: Node = field(repr=False)
    constants: Constants = field(repr=False)

    @property
    def filters(self) -> int:
        """Number of filters, as far as the weight's head says."""
        return int(self.row["in_channels"] * self.row["out_channels"])

    def weight(self) -> Weight:
        """Decode the weight; filters are (out·in/groups, 9) float32. Raises NotStoredError."""
        return read_weight(self.node, self.constants)


@dataclass(frozen=True, slots=True)
class Model:
    """A model's facts, its 3×3 layers in order of (conv_depth, topological order), and what is not stored.

    `shapes`: its filters by kernel shape, as the facts have them too.
    """

    facts: dict[str, Any]
    layers: list[Layer]
    skipped: list[Skip]
    shapes: Counter[tuple[int, ...]]


def weight_row(weight: Weight) -> dict[str, Any]:
    """What a layer's row says of its weight: hash, peak, how it was reached."""
    return {
        "row_size": len(weight.filters),
        "source_dtype": weight.source_dtype,
        "weight_source": " → ".join(weight.path),
        "scale_known": weight.scale_known,
        "hash": filters_hash(weight.filters),
        "peak": float(np.abs(weight.filters).max(initial=0.0)),
    }


def filters_hash(filters: np.ndarray) -> str:
    """SHA-256 of filters (n, 9) as little-endian float32, rows first."""
    return hashlib.sha256(np.ascontiguousarray(filters, dtype="<f4").data).hexdigest()


def read_model(path: Path, proto: onnx.ModelProto | None = None) -> Model:
    """Read the graph of the ONNX file at `path` (parsed already: `proto`); a layer decodes its weight when asked.

    Raises ModelError where the file is no readable model.
    """
    graph = build_graph(parse(path) if proto is None else proto, str(path))
    constants = Constants(path.parent)
    convolutions = [node for node in graph.nodes if is_convolution(node)]
    # A layer is called by its node, else by its first output.
    names = distinct([node.name or next(iter(node.output_names), node.op_type) for node in convolutions])
    ranks = _depth_ranks(convolutions, constants)
    deepest = max(ranks.values(), default=0)
    shapes: Counter[tuple[int, ...]] = Counter()
    found: list[tuple[int, int, Layer]] = []
    skipped: list[Skip] = []
    room = MAX_FILTERS
    for position, (node, name) in enumerate(zip(convolutions, names, strict=True)):
        try:
            shape = _stored_shape(node, constants, shapes)
            row = _row(node, name, shape)
            room -= shape[0] * shape[1]
            if room < 0:
                raise NotStoredError("many", f"with it the model would have more than {MAX_FILTERS:,} filters")
        except NotStoredError as error:
            skipped.append(Skip(name, error.code, error.reason))
            continue
        if node.length is None:
            raise ModelError(f"{path}: expected layer {name!r} to follow from an input, got no path; please report it")
        rank = ranks[node.length]
        row |= {
            "conv_depth": rank,
            "conv_depth_norm": rank / deepest if deepest else 0.0,
            "bn_folded": not is_batch_normalised(node, constants),
        }
        found.append((rank, position, Layer(name, row, node, constants)))
    facts = {
        "producer": graph.producer,
        "opset": graph.opset,
        "model_depth": graph.depth,
        "operators": json.dumps(graph.operators),
        **shape_facts(shapes),
    }
    return Model(facts, [layer for _, _, layer in sorted(found, key=lambda item: item[:2])], skipped, shapes)


def shape_facts(shapes: Counter[tuple[int, ...]]) -> dict[str, Any]:
    """What a model's facts say of its filters by kernel shape."""
    counts = {kernel: count for kernel, count in sorted(shapes.items()) if count}
    total = sum(count for kernel, count in counts.items() if kernel != (1, 1))
    return {
        "filter_shapes": json.dumps({str(kernel): count for kernel, count in counts.items()}),
        "total_filters": total,
        "share_3x3": counts.get(KERNEL, 0) / total if total else float("nan"),
    }


def _row(node: Node, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What a layer's row says of its node. Raises NotStoredError for attributes that no convolution has."""
    groups = node.integer("group", 1)
    return {
        "layer_name": name,
        "graph_depth": node.length,
        "in_channels": shape[1],
        "out_channels": shape[0],
        "groups": groups,
        "depthwise": groups > 1 and shape[1] == 1,
        "operator": node.op_type,
        "strides": _spatial(node, "strides"),
        "dilations": _spatial(node, "dilations"),
    }


def _spatial(node: Node, name: str) -> str:
    values = node.integers(name) or [1, 1]
    if len(values) > MAX_SPATIAL:
        raise NotStoredError("unreadable", f"the convolution has {len(values):,} {name}")
    return json.dumps(values)


def _stored_shape(node: Node, constants: Constants, shapes: Counter[tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of a weight that is to be stored, counted in `shapes` if two-dimensional; else raises NotStoredError."""
    check_form(node)
    shape = weight_shape(node, constants)
    if len(shape) != 4:
        raise NotStoredError("rank", f"the weight has rank {len(shape)}, a filter of {len(shape) - 2} dimensions")
    if min(shape) < 1:
        raise NotStoredError("empty", f"the weight has shape {shape}")
    shapes[shape[2:]] += shape[0] * shape[1]
    if shape[2:] != KERNEL:
        raise NotStoredError("kernel", f"the kernel is {shape[2]}×{shape[3]}")
    if node.length is None:
        raise NotStoredError("unreachable", "no graph input reaches the convolution")
    return shape


def _depth_ranks(convolutions: list[Node], constants: Constants) -> dict[int, int]:
    """Longest-path length → rank, over all two-dimensional convolutions that an input reaches, skipped ones too."""
    lengths = {node.length for node in convolutions if node.length is not None and has_rank_4(node, constants)}
    return {length: rank for rank, length in enumerate(sorted(lengths))}
