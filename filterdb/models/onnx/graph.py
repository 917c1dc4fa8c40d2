"""Build a model's graph: resolve every name, inline subgraphs and local functions, and measure the longest paths.

The length of a path is its number of nodes. A node's `length` is that of the longest path from any graph input to it,
including itself, or None if no graph input reaches it. (P1's `conv_depth` is the rank of these lengths.) Inside a body
(of If, Loop, Scan, or a local function), paths continue from the owning node.
"""

from __future__ import annotations

import heapq
import resource
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from filterdb.errors import ModelError
from filterdb.models.file_kinds import describe
from filterdb.models.formats import ONNX, SUFFIXES
from filterdb.models.parse_errors import MAX_NAME, shortened

MAX_NODES = 500_000
"""Maximum number of nodes after local functions are expanded. (Nested functions can grow exponentially.)"""

MAX_ENTRIES = 2_000_000
"""Maximum number of inputs, outputs, attributes, initializers and functions, before and after expanding functions."""

MAX_NESTING = 64
"""Maximum number of levels of nested bodies."""


@dataclass(eq=False, slots=True)
class Value:
    """What a name refers to: an initializer, a node's output, or an input (of the graph or of a body)."""

    length: int | None = None
    tensor: onnx.TensorProto | onnx.SparseTensorProto | None = None
    producer: Node | None = None
    origin: str = "a name that nothing defines"
    consumers: list[Node] = field(default_factory=list)
    index: int = 0
    """Position among the producer's outputs."""


@dataclass(eq=False, slots=True)
class Node:
    """A node as executed. The nodes of a local function occur once for each call of the function."""

    op_type: str
    domain: str
    name: str
    attributes: Mapping[str, onnx.AttributeProto]
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...]
    length: int | None
    is_call: bool
    opset: int
    """Version of the operator's domain; 0 if the model does not state it."""
    bodies: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    """The outputs of its bodies, by attribute name."""

    @property
    def is_standard(self) -> bool:
        """Whether the operator is ONNX's own."""
        return self.domain in {"", "ai.onnx"} and not self.is_call

    def input(self, position: int) -> Value | None:
        """Return the value at an input position; None if it is omitted."""
        return self.inputs[position] if position < len(self.inputs) else None

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int(self.attributes[name].i) if name in self.attributes else default

    def integers(self, name: str) -> list[int] | None:
        """Return an attribute that is a list of integers; None if it is absent."""
        return [int(i) for i in self.attributes[name].ints] if name in self.attributes else None


@dataclass(frozen=True, slots=True)
class Graph:
    """All nodes of a model in topological order; the nodes of a body follow their owner."""

    nodes: list[Node]
    producer: str
    opset: int

    @property
    def operators(self) -> dict[str, int]:
        """Number of nodes of each operator, by name."""
        return dict(sorted(Counter(node.op_type for node in self.nodes).items()))

    @property
    def depth(self) -> int:
        """Number of distinct longest-path lengths over all nodes."""
        return len({node.length for node in self.nodes if node.length is not None})


def parse(path: Path, memory: int | None = None) -> onnx.ModelProto:
    """Parse the ONNX file at `path`, without its external data. Raises ModelError if it is not a readable model.

    `memory` is the limit of this process in bytes. The error mentions it only if running out of memory may be the
    cause.
    """
    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        expected = "expected a protobuf ModelProto"
        # protobuf raises the same error for a damaged file and for running out of memory.
        if memory is not None and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > memory // 2:
            expected += " that can be read within the memory limit (--model-memory)"
        if path.suffix in SUFFIXES and path.suffix not in ONNX.suffixes:
            raise ModelError(f"{path}: not a {path.suffix} file: got {_opening(path)}") from error
        raise ModelError(f"{path}: not an ONNX model: {expected}, got {_opening(path)}") from error
    if not model.HasField("graph") or not (model.ir_version and model.opset_import):
        raise ModelError(
            f"{path}: not an ONNX model: expected a graph, an ir_version and an opset, got {_opening(path)}"
        )
    _check_size(model, path)
    return model


def _check_size(model: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError if the model has too many nodes or its bodies are nested too deeply, before any other work."""
    nodes, entries = 0, len(model.functions)
    _check_entries(entries, str(path))
    pending: list[tuple[Any, int]] = [*((function, 1) for function in model.functions), (model.graph, 1)]
    while pending:
        owner, depth = pending.pop()
        nodes += len(owner.node)
        if nodes > MAX_NODES:
            raise ModelError(f"{path}: expected at most {MAX_NODES:,} nodes, got more")
        if depth > MAX_NESTING:
            raise ModelError(f"{path}: expected subgraphs nested at most {MAX_NESTING} deep, got deeper ones")
        entries += sum(len(getattr(owner, name, ())) for name in _LISTS)
        for node in owner.node:
            entries += len(node.input) + len(node.output) + len(node.attribute)
            _check_entries(entries, str(path))
            for attribute in node.attribute:
                pending += [(body, depth + 1) for body in _graphs(attribute)]
        _check_entries(entries, str(path))


_LISTS = ("input", "output", "initializer", "sparse_initializer", "attribute_proto")
"""The lists of a graph or function besides its nodes."""


def _check_entries(entries: int, where: str) -> None:
    if entries > MAX_ENTRIES:
        raise ModelError(
            f"{where}: expected at most {MAX_ENTRIES:,} inputs, outputs, attributes, initializers and functions, "
            "got more"
        )


def _opening(path: Path) -> str:
    """Describe the file at `path`, which is not a model."""
    with path.open("rb") as file:
        return describe(file)


def build_graph(model: onnx.ModelProto, where: str = "model") -> Graph:
    """Resolve every name of `model`; `where` names it in errors. Raises ModelError for a cycle or endless recursion."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    builder = _Builder(where, functions, _opsets(model.opset_import))
    builder.graph(model.graph, {}, None)
    producer = f"{_name(model.producer_name)} {_name(model.producer_version)}".strip()
    return Graph(builder.nodes, producer, builder.opsets.get("", 0))


def _opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Return opset versions by domain. ONNX's own domain has two names."""
    return {_domain(entry.domain): entry.version for entry in imports}


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


Scope = dict[str, Value]
Attributes = Mapping[str, onnx.AttributeProto]


class _Builder:
    def __init__(
        self, where: str, functions: dict[tuple[str, str, str], onnx.FunctionProto], opsets: dict[str, int]
    ) -> None:
        self.where = where
        self.functions = functions
        self.opsets = opsets
        self.nodes: list[Node] = []
        self.entries = 0
        self.active: list[tuple[str, str, str]] = []

    def graph(self, graph: onnx.GraphProto, outer: Scope, owner: Node | None, call: Attributes | None = None) -> Scope:
        """Walk a graph or a body, in which the names of `outer` are visible, and return its scope."""
        length, origin = (
            (0, "a graph input") if owner is None else (owner.length, f"an input of a {owner.op_type} body")
        )
        # Paths into a body lead through its owner, so captured values get the owner's length.
        scope = {name: _seen_through(value, owner) for name, value in outer.items()} if owner else dict(outer)
        self.entries += len(scope)
        _check_entries(self.entries, self.where)
        for info in graph.input:
            scope[info.name] = Value(length, origin=origin)
        # After the inputs: an initializer that is also listed as an input is a weight.
        for tensor in graph.initializer:
            scope[tensor.name] = Value(tensor=tensor, origin="initializer")
        for sparse in graph.sparse_initializer:
            scope[sparse.values.name] = Value(tensor=sparse, origin="a sparse initializer")
        self.walk(graph.node, scope, call or {})
        return scope

    def walk(self, nodes: Iterable[onnx.NodeProto], scope: Scope, call: Attributes) -> None:
        for proto in _topological(list(nodes), self.where):
            self.place(proto, scope, call)

    def place(self, proto: onnx.NodeProto, scope: Scope, call: Attributes) -> None:
        if len(self.nodes) >= MAX_NODES:
            raise ModelError(
                f"{self.where}: expected at most {MAX_NODES:,} nodes, got more once functions are expanded"
            )
        self.entries += len(proto.input) + len(proto.output)
        _check_entries(self.entries, self.where)
        attributes = _resolve(proto.attribute, call)
        bodies = [(name, graph) for name, attribute in attributes.items() for graph in _graphs(attribute)]
        inputs = tuple(scope.setdefault(name, Value()) if name else None for name in proto.input)
        captured = [scope[name] for _, body in bodies for name in _free_names(body) if name in scope]
        before = [value.length for value in (*inputs, *captured) if value is not None and value.length is not None]
        key = (proto.domain, proto.op_type, proto.overload)
        node = Node(
            op_type=_name(proto.op_type),
            domain=_name(proto.domain),
            name=_name(proto.name),
            attributes=attributes,
            inputs=inputs,
            outputs=(),
            output_names=tuple(_name(name) for name in proto.output if name),
            length=max(before) + 1 if before else None,
            is_call=key in self.functions,
            opset=self.opsets.get(_domain(proto.domain), 0),
        )
        self.nodes.append(node)
        for value in inputs:
            if value is not None:
                value.consumers.append(node)
        if node.is_call:
            outputs = self.expand(node, key)
        else:
            node.bodies = {name: self.body(body, scope, node, call) for name, body in bodies}
            # Outputs of a body continue the paths through its nodes.
            ends = [value.length for outputs in node.bodies.values() for value in outputs]
            length = max((end for end in (*ends, node.length) if end is not None), default=None)
            outputs = [
                Value(length, producer=node, origin=f"a {proto.op_type}", index=index)
                for index in range(len(proto.output))
            ]
        node.outputs = tuple(outputs)
        for name, value in zip(proto.output, outputs, strict=False):
            if name:
                scope[name] = value

    def body(self, body: onnx.GraphProto, scope: Scope, owner: Node, call: Attributes) -> tuple[Value, ...]:
        """Walk a body; return its outputs."""
        visible = {name: scope[name] for name in _free_names(body) if name in scope}
        inner = self.graph(body, visible, owner, call)
        return tuple(inner.get(out.name, Value()) for out in body.output)

    def expand(self, node: Node, key: tuple[str, str, str]) -> list[Value]:
        """Expand a call: walk the nodes of its local function, and return the values of the function's outputs."""
        function = self.functions[key]
        if key in self.active:
            name = shortened(text(function.name))
            raise ModelError(f"{self.where}: local function {name!r} calls itself, directly or through others")
        self.entries += len(function.input) + len(function.output) + len(function.attribute_proto)
        _check_entries(self.entries, self.where)
        self.active.append(key)
        outer, self.opsets = self.opsets, _opsets(function.opset_import) or self.opsets
        scope: Scope = {}
        for name, value in zip(function.input, (*node.inputs, *[None] * len(function.input)), strict=False):
            scope[name] = Value(origin="an input left out") if value is None else _seen_through(value, node)
        defaults = {attribute.name: attribute for attribute in function.attribute_proto}
        self.walk(function.node, scope, {**defaults, **node.attributes})
        self.active.pop()
        self.opsets = outer
        return [scope.get(name, Value()) for name in function.output]


def text(value: str | bytes) -> str:
    """Return a text from the file as str. protobuf returns bytes if the text is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _name(value: str | bytes) -> str:
    """Return a name from the file, cut to MAX_NAME characters."""
    return shortened(text(value), MAX_NAME)


def _seen_through(value: Value, owner: Node) -> Value:
    """Return `value` as seen inside a body of `owner`: with the owner's length, unless it is a constant."""
    if value.length is None or value.length == owner.length:
        return value
    return Value(owner.length, value.tensor, value.producer, value.origin, value.consumers, value.index)


def _resolve(attributes: Iterable[onnx.AttributeProto], call: Attributes) -> dict[str, onnx.AttributeProto]:
    """Return attributes by name, and replace those that refer to an attribute of the enclosing function's call."""
    resolved = {}
    for attribute in attributes:
        if not attribute.ref_attr_name:
            resolved[attribute.name] = attribute
        elif attribute.ref_attr_name in call:
            resolved[attribute.name] = call[attribute.ref_attr_name]
    return resolved


def _graphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.type == onnx.AttributeProto.GRAPH:
        yield attribute.g
    elif attribute.type == onnx.AttributeProto.GRAPHS:
        yield from attribute.graphs


def _free_names(graph: onnx.GraphProto) -> dict[str, None]:
    """Return the names that a body takes from outside, in order of use (a dict keeps the order)."""
    own = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    own |= {sparse.values.name for sparse in graph.sparse_initializer}
    used = [name for node in graph.node for name in _names_used(node)]
    used += [out.name for out in graph.output]
    return {name: None for name in used if name and name not in own}


def _names_used(node: onnx.NodeProto) -> list[str]:
    """Return the names that a node needs before it can run, including those that its bodies use."""
    bodies = [graph for attribute in node.attribute for graph in _graphs(attribute)]
    return [*node.input, *(name for body in bodies for name in _free_names(body))]


def _topological(nodes: list[onnx.NodeProto], where: str) -> Iterator[onnx.NodeProto]:
    """Sort nodes so that each follows what it needs, and otherwise keep file order.

    ONNX requires files to be sorted, but not all exporters comply.
    """
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{producer[name] for name in _names_used(node) if name in producer} for node in nodes]
    needed_by: list[list[int]] = [[] for _ in nodes]
    for i, sources in enumerate(needs):
        for source in sources:
            needed_by[source].append(i)
    missing = [len(sources) for sources in needs]
    ready = [i for i, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    done = 0
    while ready:
        i = heapq.heappop(ready)
        done += 1
        yield nodes[i]
        for follower in needed_by[i]:
            missing[follower] -= 1
            if not missing[follower]:
                heapq.heappush(ready, follower)
    if done < len(nodes):
        raise ModelError(f"{where}: expected a graph without cycles, got one through {len(nodes) - done} nodes")
