"""List the layers of a model and what is not stored of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from filterdb.errors import ModelError
from filterdb.models.model import MAX_FILTERS, Model, Skip, Weight, shape_facts
from filterdb.models.onnx.constants import Constants
from filterdb.models.onnx.convolution import (
    check_form,
    form_of,
    has_rank_4,
    is_batch_normalised,
    is_convolution,
    read_weight,
    weight_shape,
    weight_value,
)
from filterdb.models.onnx.graph import Node, Value, build_graph, parse, text
from filterdb.models.parse_errors import MAX_NAME, NotStoredError, shortened
from filterdb.schema import KERNEL, distinct

MAX_SPATIAL = 64
"""Most numbers in strides and dilations."""

_SAME_WEIGHT = {"Identity", "Cast", "DequantizeLinear", "Reshape", "Transpose"}
"""Operators whose result counts as the same stored weight as their input."""


@dataclass(frozen=True, slots=True)
class OnnxLayer:
    """A 3×3 convolution whose weight can be read. `row` has the values that are known without reading it."""

    name: str
    row: dict[str, Any]
    node: Node = field(repr=False)
    constants: Constants = field(repr=False)

    @property
    def filters(self) -> int:
        """Number of filters according to the weight's header."""
        return int(self.row["in_channels"] * self.row["out_channels"])

    @property
    def stored_weight(self) -> int:
        """Identity of the tensor that holds the weight; equal for all layers that share it.

        This is the tensor in the file, because a constant inside a local function is another value for each call.
        """
        value = _stored_value(self.node)
        if value is not None and value.producer is not None and "value" in value.producer.attributes:
            return id(value.producer.attributes["value"])
        return id(value if value is None or value.tensor is None else value.tensor)

    def weight(self) -> Weight:
        """Decode the weight; filters are (out·in/groups, 9) float32. Raises NotStoredError."""
        return read_weight(self.node, self.constants)


def read_model(path: Path, proto: onnx.ModelProto | None = None) -> Model:
    """List the layers of the ONNX file at `path`. A layer decodes its weight on request.

    `proto` is the file's content, if it has been parsed already. Raises ModelError if the file is not a readable model.
    """
    graph = build_graph(parse(path) if proto is None else proto, str(path))
    constants = Constants(path.parent)
    convolutions = [node for node in graph.nodes if is_convolution(node)]
    names = distinct([_name(node) for node in convolutions])
    normalised = [is_batch_normalised(node, constants) for node in convolutions]
    ranks = _depth_ranks(convolutions, constants)
    deepest = max(ranks.values(), default=0)
    shapes: Counter[tuple[int, ...]] = Counter()
    ranked: list[tuple[int, int, OnnxLayer]] = []
    skipped: list[Skip] = []
    room = MAX_FILTERS
    for position, (node, name) in enumerate(zip(convolutions, names, strict=True)):
        try:
            shape = _stored_shape(node, constants, shapes)
            row = _row(node, name, shape)
            if shape[0] * shape[1] > room:
                raise NotStoredError("many", f"with it the model would have more than {MAX_FILTERS:,} filters")
            room -= shape[0] * shape[1]
        except NotStoredError as error:
            skipped.append(Skip(name, error.code, error.reason))
            continue
        if node.length is None:
            raise ModelError(f"{path}: expected layer {name!r} to follow from an input, got no path; please report it")
        rank = ranks[node.length]
        row |= {
            "conv_depth": rank,
            "conv_depth_norm": rank / deepest if deepest else 0.0,
            "bn_folded": not normalised[position],
            "batch_norm": "unfolded" if normalised[position] else _elsewhere(node, has_norms=any(normalised)),
        }
        ranked.append((rank, position, OnnxLayer(name, row, node, constants)))
    facts = {
        "producer": graph.producer,
        "opset": graph.opset,
        "model_depth": graph.depth,
        "operators": json.dumps(graph.operators),
        "source_format": "ONNX",
        "depth_source": "graph",
        **shape_facts(shapes),
    }
    return Model(facts, [layer for _, _, layer in sorted(ranked, key=lambda item: item[:2])], skipped, shapes)


_NUMBERED = re.compile(r"node_\w*conv\w*", re.IGNORECASE)
"""The names that PyTorch's dynamo exporter gives to convolutions, such as node_Conv_123 and node_conv2d_7."""

_GENERATED = re.compile(r"onnx::.*|\w*\d|\.?weight|")
"""Names of initializers that say no more than a number does, such as val_3 and onnx::Conv_12."""


def _name(node: Node) -> str:
    """Return the name of a node or, if it has none, of its first output.

    A node that is only numbered has the name of its weight, without ".weight", if that is one of a module.
    """
    if _NUMBERED.fullmatch(node.name):
        value = _stored_value(node)
        weight = text(getattr(None if value is None else value.tensor, "name", ""))
        if not _GENERATED.fullmatch(weight):
            return shortened(weight.removesuffix(".weight"), MAX_NAME)
    return node.name or next(iter(node.output_names), node.op_type)


def _stored_value(node: Node) -> Value | None:
    """Return the value of which a convolution's weight is made: the file's tensor, where there is one."""
    value = weight_value(node)
    while value is not None and value.producer is not None and value.producer.op_type in _SAME_WEIGHT:
        value = value.producer.input(0)
    return value


_FOLDED = re.compile(r"onnx::\w*Conv_\d+")
"""The names that PyTorch's exporter gives to weights into which it folded a batch normalisation."""


def _elsewhere(node: Node, *, has_norms: bool) -> str:
    """Return where the batch normalisation is of a convolution that none follows (a value of `schema.BATCH_NORM`).

    It may have been folded only into a weight with a bias, in a file that has no batch normalisation left.
    """
    value = weight_value(node)
    if value is not None and _FOLDED.fullmatch(str(getattr(value.tensor, "name", ""))):
        return "folded"
    form = form_of(node)
    bias = node.input(2) if form is None or form.weight == 1 else node.input(8)
    return "none" if has_norms or bias is None else "unknown"


def _row(node: Node, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the values of a layer's row that its node determines. Raises NotStoredError for invalid attributes."""
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
    """Return the shape of a weight to store, and count it in `shapes` if it is two-dimensional.

    Raises NotStoredError if the weight is not to be stored.
    """
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
    """Return the rank of each longest-path length among all two-dimensional convolutions that an input reaches.

    Convolutions that are not stored count too.
    """
    lengths = {node.length for node in convolutions if node.length is not None and has_rank_4(node, constants)}
    return {length: rank for rank, length in enumerate(sorted(lengths))}
