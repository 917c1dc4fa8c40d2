"""The weights of a file's 3×3 convolutions as onnxruntime computes them from the file, independently of filterdb.

Functions are inlined by onnx, an `If` whose condition is constant is replaced by its branch, and the weight inputs of
all convolutions become the outputs of a model that onnxruntime runs without any optimisation.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WEIGHT = {
    ("", "Conv"): 1,
    ("", "ConvInteger"): 1,
    ("", "QLinearConv"): 3,
    ("com.microsoft", "QLinearConv"): 3,
    ("com.microsoft", "FusedConv"): 1,
    ("com.microsoft", "NhwcFusedConv"): 1,
    ("com.microsoft.nchwc", "Conv"): 1,
}
"""Convolutions (domain, operator) and where their weight stands."""

BLOCKED = "com.microsoft.nchwc"

RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}

EXACT = frozenset(
    """
    Constant Identity Cast CastLike Reshape Transpose Squeeze Unsqueeze Flatten Expand Tile Slice Gather GatherND
    GatherElements Concat Split Pad Where Mul Add Sub Div Neg Abs Sign Sqrt Clip Relu Min Max Floor Ceil Round
    QuantizeLinear DequantizeLinear ScatterElements ScatterND ConstantOfShape Shape Size Range Greater Less
    GreaterOrEqual LessOrEqual Equal Not And Or Xor BitwiseAnd BitwiseOr BitShift Mod Trilu OneHot ReduceMax ReduceMin
    EyeLike Dropout
    """.split()  # noqa: SIM905 - a list of sixty quoted words would be read by nobody
)
"""Operators whose float32 result every correct implementation agrees on, bit for bit."""

BEFORE_BATCH_NORM = {"Cast", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear", "Pad", "Add"}
"""What may stand between a convolution and the BatchNormalization of its result."""


@dataclass
class Truth:
    """What is true of one convolution node of a file; `weight` (out, in, …) float32, None where it is not constant."""

    name: str
    operator: str
    domain: str
    weight: np.ndarray | None
    rank: int | None
    kernel: list[int] | None
    exact: bool = True
    reason: str = ""
    groups: int = 1
    strides: list[int] = field(default_factory=list)
    dilations: list[int] = field(default_factory=list)
    batch_norm: bool = False
    length: int | None = None
    path: list[str] = field(default_factory=list)
    is_stored: bool = True

    @property
    def is_3x3(self) -> bool:
        """Whether the node is a two-dimensional convolution with a 3×3 kernel, and not transposed."""
        return self.rank == 4 and self.kernel == [3, 3] and self.operator != "ConvTranspose"


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.nodes = list(graph.node)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.tensors |= {sparse.values.name: sparse for sparse in graph.sparse_initializer}
        self.inputs = {info.name for info in graph.input} - set(self.tensors)
        self.index()

    def index(self) -> None:
        """Look up producers and consumers, those in bodies too: exporters use a name once in a whole file."""
        self.every = list(_all_nodes(self.nodes))
        self.producer = {name: node for node in self.every for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.every:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
            for body in _bodies(node):
                self.tensors |= {tensor.name: tensor for tensor in body.initializer}

    def closure(self, name: str) -> list[onnx.NodeProto] | None:
        """Return the nodes that compute `name` from constants, None where it depends on an input or on chance."""
        needed: dict[int, onnx.NodeProto] = {}
        pending = [name]
        while pending:
            current = pending.pop()
            if not current or current in self.tensors:
                continue
            node = self.producer.get(current)
            if node is None or node.op_type in RANDOM:
                return None
            if id(node) not in needed:
                needed[id(node)] = node
                pending += list(node.input) + [name for body in _bodies(node) for name in _free(body)]
        return [node for node in self.every if id(node) in needed]

    def stored(self, name: str, closure: list[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
        """Return the tensors in the file that `name` is computed from by the nodes of `closure`."""
        for used in {name, *(operand for node in closure for operand in node.input)} & set(self.tensors):
            yield getattr(self.tensors[used], "values", self.tensors[used])
        for node in closure:
            for value in node.attribute:
                if value.type == onnx.AttributeProto.TENSOR:
                    yield value.t
                elif node.op_type == "Constant" and value.floats:
                    yield helper.make_tensor("", TensorProto.FLOAT, [len(value.floats)], value.floats)


def _is_parameter(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor has numbers of a weight: more than one, and no shape or place."""
    return bool(math.prod(tensor.dims) > 1) and tensor.data_type != TensorProto.INT64


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def _free(body: onnx.GraphProto) -> set[str]:
    own = {info.name for info in body.input} | {t.name for t in body.initializer}
    own |= {name for node in body.node for name in node.output}
    used = {name for node in body.node for name in node.input} | {out.name for out in body.output}
    used |= {name for node in body.node for inner in _bodies(node) for name in _free(inner)}
    return used - own


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return a node's attribute as a Python value."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def run(model: onnx.ModelProto, outputs: Iterable[str], feeds: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    """Run a model by onnxruntime without optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values: list[np.ndarray] = session.run(list(outputs), feeds or {})
    return values


def _computed(graph: _Graph, wanted: dict[str, list[onnx.NodeProto]]) -> dict[str, np.ndarray]:
    """Return the constants `wanted` (name → added nodes that end in it) in float32, computed by onnxruntime."""
    values = {}
    for name, added in wanted.items():
        start = next(iter(added)).input[0] if added else name
        needed = list(graph.closure(start) or [])
        for extra in added:
            for operand in extra.input[1:]:
                needed += [node for node in graph.closure(operand) or [] if node not in needed]
        order = {id(node): i for i, node in enumerate(graph.every)}
        needed.sort(key=lambda node: order.get(id(node), -1))
        final = helper.make_node("Cast", [name], ["filterdb_truth"], to=TensorProto.FLOAT)
        used = {n for node in [*needed, *added, final] for n in node.input}
        used |= {n for node in needed for body in _bodies(node) for n in _free(body)}
        constants = [t for n, t in graph.tensors.items() if n in used and isinstance(t, TensorProto)]
        sparse = [t for n, t in graph.tensors.items() if n in used and not isinstance(t, TensorProto)]
        output = helper.make_tensor_value_info("filterdb_truth", TensorProto.FLOAT, None)
        body = helper.make_graph([*needed, *added, final], "truth", [], [output], constants, sparse_initializer=sparse)
        versions = {"opset_imports": graph.model.opset_import, "ir_version": graph.model.ir_version}
        values[name] = run(helper.make_model(body, **versions), ["filterdb_truth"])[0]
    return values


def _inline_constant_ifs(graph: _Graph) -> None:
    """Replace each `If` whose condition is constant by the nodes of the branch that is taken."""
    while True:
        for node in graph.nodes:
            if node.op_type != "If" or graph.closure(node.input[0]) is None:
                continue
            condition = bool(_computed(graph, {node.input[0]: []})[node.input[0]].ravel()[0])
            branch = attribute(node, "then_branch" if condition else "else_branch", None)
            ends = [
                helper.make_node("Identity", [inner.name], [outer])
                for inner, outer in zip(branch.output, node.output, strict=True)
            ]
            position = graph.nodes.index(node)
            graph.nodes[position : position + 1] = [*branch.node, *ends]
            graph.tensors |= {tensor.name: tensor for tensor in branch.initializer}
            graph.index()
            break
        else:
            return


def truths(path: Path, blocked: list[np.ndarray] | None = None) -> list[Truth]:
    """Return what is true of each convolution of the file at `path`, in the file's order of nodes.

    `blocked`: the weights of the convolutions whose own are in blocks (NCHWc), by order.
    """
    model = onnx.load(path)
    lengths = _lengths(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = _Graph(model)
    _inline_constant_ifs(graph)
    found: list[Truth] = []
    for node in graph.every:
        if "Conv" not in node.op_type:
            continue
        truth = _truth(graph, node, blocked, len(found))
        truth.length = lengths.get(node.output[0])
        found.append(truth)
    return found


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in _bodies(node):
            yield from _all_nodes(body.node)


def _truth(graph: _Graph, node: onnx.NodeProto, blocked: list[np.ndarray] | None, index: int) -> Truth:
    domain = "" if node.domain == "ai.onnx" else node.domain
    kernel = attribute(node, "kernel_shape", None)
    truth = Truth(
        name=node.name or node.output[0],
        operator=node.op_type,
        domain=domain,
        weight=None,
        rank=2 + len(kernel) if kernel else None,
        kernel=list(kernel) if kernel else None,
        groups=attribute(node, "group", 1),
        strides=list(attribute(node, "strides", None) or [1, 1]),
        dilations=list(attribute(node, "dilations", None) or [1, 1]),
        batch_norm=_is_batch_normalised(graph, node),
    )
    position = WEIGHT.get((domain, node.op_type))
    if node.op_type == "ConvTranspose":
        position = 1
    if position is None:
        truth.reason = "operator"
        return truth
    name = node.input[position]
    closure = graph.closure(name)
    if closure is None:
        truth.reason = "computed"
        return truth
    truth.path = [step.op_type for step in closure]
    truth.exact = set(truth.path) <= EXACT
    truth.is_stored = any(_is_parameter(tensor) for tensor in graph.stored(name, closure))
    if domain == BLOCKED:
        truth.weight = blocked[index] if blocked and index < len(blocked) else None
        truth.reason = "" if truth.weight is not None else "blocked"
    else:
        truth.weight = _value(graph, node, name)
    if truth.weight is not None:
        truth.rank, truth.kernel = truth.weight.ndim, list(truth.weight.shape[2:])
    if _length_of(graph, node.input[0]) is None:
        truth.reason = "unreachable"
    return truth


def _length_of(graph: _Graph, name: str) -> int | None:
    """Return 1 where the value depends on a graph input, else None."""
    return 1 if graph.closure(name) is None else None


def _value(graph: _Graph, node: onnx.NodeProto, name: str) -> np.ndarray | None:
    added: list[onnx.NodeProto] = []
    scale = zero = ""
    if node.op_type == "QLinearConv":
        scale, zero = node.input[4], node.input[5]
    elif node.op_type == "ConvInteger":
        # onnxruntime's quantiser calls it so; the node itself has no scale.
        scale, zero = f"{name.removesuffix('_quantized')}_scale", node.input[3] if len(node.input) > 3 else ""
        if scale not in graph.tensors:
            return None
    if scale:
        # Before opset 13 there is no axis, and no scale per channel either.
        per_channel = scale in graph.tensors and math.prod(graph.tensors[scale].dims) > 1
        axis = {"axis": 0} if per_channel else {}
        added = [helper.make_node("DequantizeLinear", [name, scale, zero], ["dequantised"], **axis)]
    try:
        if not added and name in graph.tensors and isinstance(graph.tensors[name], TensorProto):
            return np.asarray(numpy_helper.to_array(graph.tensors[name]), dtype=np.float32)
        (value,) = _computed(graph, {"dequantised" if added else name: added}).values()
    except Exception as error:  # noqa: BLE001 - whatever the runtime raises: there is no truth from it
        print(f"no value of {name}: {str(error)[:200]}", file=sys.stderr)
        return None
    return np.asarray(value, dtype=np.float32)


def _is_batch_normalised(graph: _Graph, convolution: onnx.NodeProto) -> bool:
    name = convolution.output[0]
    between = BEFORE_BATCH_NORM | ({"Mul"} if convolution.op_type == "ConvInteger" else set())  # by its scale
    for _ in range(16):
        consumers = graph.consumers.get(name, [])
        if any(node.op_type == "BatchNormalization" for node in consumers):
            return True
        if len(consumers) != 1 or consumers[0].op_type not in between:
            return False
        (node,) = consumers
        others = [other for other in node.input if other and other != name]
        if node.op_type == "Add" and any(graph.closure(other) is None for other in others):
            return False
        name = node.output[0]
    return False


def _lengths(model: onnx.ModelProto) -> dict[str, int | None]:
    """Return the nodes on the longest path from any input to each value; of files without bodies and functions only."""
    nodes = list(model.graph.node)
    if model.functions or any(True for node in nodes for _ in _bodies(node)):
        return {}
    tensors = {t.name for t in model.graph.initializer}
    lengths: dict[str, int | None] = {info.name: 0 for info in model.graph.input if info.name not in tensors}
    for node in nodes:  # ONNX files are in topological order
        before = [length for name in node.input if (length := lengths.get(name)) is not None]
        for name in node.output:
            lengths[name] = max(before) + 1 if before else None
    return lengths
