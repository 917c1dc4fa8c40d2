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
from filterdb.models.model import Model, Room, Skip, Weight, check_shape, kernel_of, parted, shape_facts
from filterdb.models.onnx.constants import Constants
from filterdb.models.onnx.convolution import (
    check_form,
    dimensions,
    form_of,
    is_batch_normalised,
    is_convolution,
    read_weight,
    weight_shape,
    weight_value,
)
from filterdb.models.onnx.graph import Node, Value, build_graph, parse, text
from filterdb.models.parse_errors import MAX_NAME, NotStoredError, shortened
from filterdb.schema import KERNEL, Kernel, Kernels, distinct, has_bank

MAX_SPATIAL = 64
"""Most numbers in strides and dilations."""

_SAME_WEIGHT = {"Identity", "Cast", "DequantizeLinear", "Reshape", "Transpose"}
"""Operators whose result counts as the same stored weight as their input."""


@dataclass(frozen=True, slots=True)
class OnnxLayer:
    """A convolution whose weight can be read. `row` has the values that are known without reading it."""

    name: str
    row: dict[str, Any]
    shape: tuple[int, ...]
    """The shape of the weight as (out, in, height, width) or (out, in, k)."""
    node: Node = field(repr=False)
    constants: Constants = field(repr=False)

    @property
    def kernel(self) -> Kernel:
        """Rows and columns of its filters."""
        return kernel_of(self.shape)

    @property
    def rank(self) -> int:
        """Dimensions of the convolution."""
        return len(self.shape) - 2

    @property
    def filters(self) -> int:
        """Number of filters according to the weight's header."""
        return self.shape[0] * self.shape[1]

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
        """Decode the weight; filters are (out·in/groups, weights) float32. Raises NotStoredError."""
        return read_weight(self.node, self.constants, self.shape[2:])


def read_model(path: Path, proto: onnx.ModelProto | None = None, kernels: Kernels = (KERNEL,)) -> Model:
    """List the layers of the ONNX file at `path` that have one of these kernel shapes (None: any).

    A layer decodes its weight on request.
    `proto` is the file's content, if it has been parsed already. Raises ModelError if the file is not a readable model.
    """
    graph = build_graph(parse(path) if proto is None else proto, str(path))
    constants = Constants(path.parent)
    convolutions = [node for node in graph.nodes if is_convolution(node)]
    names = distinct([_name(node) for node in convolutions])
    normalised = [is_batch_normalised(node, constants) for node in convolutions]
    has_norms = any(normalised)
    ranks = _depth_ranks(convolutions, constants)
    deepest = {number: max(series.values(), default=0) for number, series in ranks.items()}
    shapes: Counter[tuple[int, ...]] = Counter()
    ranked: list[tuple[int, int, OnnxLayer]] = []
    skipped: list[Skip] = []
    stored, read = Room(), Room()
    for position, (node, name) in enumerate(zip(convolutions, names, strict=True)):
        try:
            shape = _stored_shape(node, constants, shapes, kernels)
            row = _row(node, name, shape)
            (stored if has_bank(kernel_of(shape)) else read).take(shape)
        except NotStoredError as error:
            skipped.append(Skip(name, error.code, error.reason))
            continue
        if node.length is None:
            raise ModelError(f"{path}: expected layer {name!r} to follow from an input, got no path; please report it")
        rank, largest = ranks[len(shape) - 2][node.length], deepest[len(shape) - 2]
        row |= {
            "conv_depth": rank,
            "conv_depth_norm": rank / largest if largest else 0.0,
            "bn_folded": not normalised[position],
            "batch_norm": "unfolded" if normalised[position] else _elsewhere(node, has_norms=has_norms),
        }
        ranked.append((rank, position, OnnxLayer(name, row, shape, node, constants)))
    facts = {
        "producer": graph.producer,
        "opset": graph.opset,
        "model_depth": graph.depth,
        "operators": json.dumps(graph.operators),
        "source_format": "ONNX",
        "depth_source": "graph",
        **shape_facts(shapes),
    }
    layers, others = parted(ranked)
    return Model(facts, layers, skipped, shapes, others)


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
        "strides": _spatial(node, "strides", len(shape) - 2),
        "dilations": _spatial(node, "dilations", len(shape) - 2),
    }


def _spatial(node: Node, name: str, dimensions: int) -> str:
    values = node.integers(name) or [1] * dimensions
    if len(values) > MAX_SPATIAL:
        raise NotStoredError("unreadable", f"the convolution has {len(values):,} {name}")
    return json.dumps(values)


def _stored_shape(
    node: Node, constants: Constants, shapes: Counter[tuple[int, ...]], kernels: Kernels
) -> tuple[int, ...]:
    """Return the shape of a weight to read, and count it in `shapes` if it is two-dimensional.

    Raises NotStoredError if the weight is not to be read.
    """
    check_form(node, kernels)
    shape = weight_shape(node, constants)
    check_shape(shape, shapes, kernels)
    if node.length is None:
        raise NotStoredError("unreachable", "no graph input reaches the convolution")
    return shape


def _depth_ranks(convolutions: list[Node], constants: Constants) -> dict[int, dict[int, int]]:
    """Return the rank of each longest-path length among all convolutions that an input reaches, by their dimensions.

    Convolutions that are not stored count too. Those of one dimension are a series of their own.
    """
    lengths: dict[int, set[int]] = {1: set(), 2: set()}
    for node in convolutions:
        number = dimensions(node, constants)
        if node.length is not None and number in lengths:
            lengths[number].add(node.length)
    return {number: {length: rank for rank, length in enumerate(sorted(own))} for number, own in lengths.items()}
