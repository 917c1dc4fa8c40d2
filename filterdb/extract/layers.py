"""One model → its layer rows, its filters, its skip ledger (method §1)."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.external_data_helper import uses_external_data

from filterdb.extract.constants import NotStoredError
from filterdb.extract.convolution import (
    Weight,
    has_rank_4,
    is_convolution,
    is_supported,
    read_weight,
    weight_shape,
)
from filterdb.extract.graph import Node, build_graph, parse
from filterdb.schema import KERNEL, distinct

MAX_WEIGHTS = 2**29
"""Numbers of a weight (2 GiB in float32): one that says that it has more lies, or is no filter's."""


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
    folder: Path

    def weight(self) -> Weight:
        """Decode the weight; filters are (out·in/groups, 9) float32. Raises NotStoredError."""
        return read_weight(self.node, self.folder)


@dataclass(frozen=True, slots=True)
class Model:
    """A model's facts, its 3×3 layers in order of (conv_depth, topological order), and what is not stored."""

    facts: dict[str, Any]
    layers: list[Layer]
    skipped: list[Skip]


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
    folder = path.parent
    convolutions = [node for node in graph.nodes if is_convolution(node)]
    # A layer is called by its node, else by its first output.
    names = distinct([node.name or next(iter(node.output_names), node.op_type) for node in convolutions])
    ranks = _depth_ranks(convolutions, folder)
    deepest = max(ranks.values(), default=0)
    shapes: Counter[tuple[int, ...]] = Counter()
    found: list[tuple[int, int, Layer]] = []
    skipped: list[Skip] = []
    consumers = _batch_normalised(convolutions)
    for position, (node, name) in enumerate(zip(convolutions, names, strict=True)):
        try:
            shape = _stored_shape(node, folder, shapes)
        except NotStoredError as error:
            skipped.append(Skip(name, error.code, error.reason))
            continue
        assert node.length is not None
        rank = ranks[node.length]
        groups = node.integer("group", 1)
        row = {
            "layer_name": name,
            "conv_depth": rank,
            "conv_depth_norm": rank / deepest if deepest else 0.0,
            "graph_depth": node.length,
            "in_channels": shape[1],
            "out_channels": shape[0],
            "groups": groups,
            "depthwise": groups > 1 and shape[1] == 1,
            "operator": node.op_type,
            "strides": json.dumps(node.integers("strides") or [1, 1]),
            "dilations": json.dumps(node.integers("dilations") or [1, 1]),
            "bn_folded": node not in consumers,
        }
        found.append((rank, position, Layer(name, row, node, folder)))
    total = sum(count for kernel, count in shapes.items() if kernel != (1, 1))
    facts = {
        "producer": graph.producer,
        "opset": graph.opset,
        "model_depth": graph.depth,
        "operators": json.dumps(graph.operators),
        "filter_shapes": json.dumps({str(kernel): count for kernel, count in sorted(shapes.items())}),
        "total_filters": total,
        "share_3x3": shapes[KERNEL] / total if total else float("nan"),
    }
    return Model(facts, [layer for _, _, layer in sorted(found, key=lambda item: item[:2])], skipped)


def _stored_shape(node: Node, folder: Path, shapes: Counter[tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of a weight that is to be stored, counted in `shapes` if two-dimensional; else raises NotStoredError."""
    if node.op_type == "ConvTranspose":
        raise NotStoredError("transposed", "a ConvTranspose")
    if not is_supported(node):
        domain = f"{node.domain}." if node.domain else ""
        raise NotStoredError("operator", f"{domain}{node.op_type} is not one of Conv, QLinearConv, ConvInteger")
    shape = weight_shape(node, folder)
    if len(shape) != 4:
        raise NotStoredError("rank", f"the weight has rank {len(shape)}, a filter of {len(shape) - 2} dimensions")
    if min(shape) < 1:
        raise NotStoredError("empty", f"the weight has shape {shape}")
    if math.prod(shape) > MAX_WEIGHTS:
        raise NotStoredError("unreadable", f"the weight's tensor says that it has shape {shape}")
    shapes[shape[2:]] += shape[0] * shape[1]
    if shape[2:] != KERNEL:
        raise NotStoredError("kernel", f"the kernel is {shape[2]}×{shape[3]}")
    if node.length is None:
        raise NotStoredError("unreachable", "no graph input reaches the convolution")
    return shape


def _depth_ranks(convolutions: list[Node], folder: Path) -> dict[int, int]:
    """Longest-path length → rank, over all two-dimensional convolutions that an input reaches, skipped ones too."""
    lengths = {
        node.length
        for node in convolutions
        if node.length is not None and is_supported(node) and has_rank_4(node, folder)
    }
    return {length: rank for rank, length in enumerate(sorted(lengths))}


def _batch_normalised(convolutions: list[Node]) -> set[Node]:
    """The convolutions whose result a BatchNormalization consumes."""
    return {
        node
        for node in convolutions
        for value in node.outputs
        if any(consumer.op_type == "BatchNormalization" for consumer in value.consumers)
    }


def external_files(proto: onnx.ModelProto) -> list[str]:
    """Locations of external data that a model names, relative to its folder, in order, each once."""
    entries = (entry for tensor in _tensors(proto) if uses_external_data(tensor) for entry in tensor.external_data)
    return list(dict.fromkeys(entry.value for entry in entries if entry.key == "location"))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: of the graph, of bodies and of local functions."""
    pending: list[Any] = [model.graph, *model.functions]
    while pending:
        owner = pending.pop()
        yield from getattr(owner, "initializer", ())
        for node in owner.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    yield attribute.t
                yield from attribute.tensors
                pending += [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
