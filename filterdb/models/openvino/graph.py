"""Build the graph of an OpenVINO model: connect the layers, also those of bodies, and measure the longest paths.

The length of a path is its number of layers without Parameter and Result, which makes it comparable with ONNX. A path
starts at an input of the model; layers that no input reaches have no length. Inside a body (of Loop, TensorIterator,
If), paths continue from the layer that has the body.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from filterdb.errors import ModelError
from filterdb.models.convolutions import longest_paths
from filterdb.models.openvino.document import Document, Layer, Network
from filterdb.models.parse_errors import shortened

MAX_ENTRIES = 2_000_000
"""Most pairs of a layer and one that comes before it."""

_OPSET = re.compile(r"opset(\d{1,4})")


@dataclass(eq=False, slots=True)
class Node:
    """A layer in the graph. `inputs` has, for each input port, the node and the position of its output port."""

    layer: Layer
    position: int
    inputs: list[Source | None]
    owner: Node | None = None
    """The node in whose body it is."""
    consumers: list[Node] = field(default_factory=list)
    ends: list[Node] = field(default_factory=list)
    """The Results of its bodies."""
    alias: Source | None = None
    """For a Parameter of a body: the value from outside, if it is the same in each turn."""
    length: int | None = None

    @property
    def type(self) -> str:
        """The layer's type, such as Convolution."""
        return self.layer.type

    @property
    def is_computed(self) -> bool:
        """Whether its value depends on an input of the model."""
        return self.length is not None or (self.type == "Parameter" and self.alias is None)

    def input(self, position: int) -> Source | None:
        """Return what is connected to an input port; None if nothing is."""
        return self.inputs[position] if position < len(self.inputs) else None


Source = tuple[Node, int]
"""A value: a node, and the position of its output port."""


@dataclass(frozen=True, slots=True)
class Graph:
    """All layers of a model, those of bodies after their owner."""

    nodes: list[Node]

    @property
    def operators(self) -> dict[str, int]:
        """Number of layers of each type."""
        return dict(sorted(Counter(node.type for node in self.nodes).items()))

    @property
    def depth(self) -> int:
        """Number of distinct longest-path lengths over all layers."""
        return len({node.length for node in self.nodes if node.length is not None})

    @property
    def opset(self) -> int:
        """The latest operator set that a layer needs."""
        matches = (_OPSET.fullmatch(node.layer.opset) for node in self.nodes)
        return max((int(match[1]) for match in matches if match is not None), default=0)


def build_graph(document: Document, path: Path) -> Graph:
    """Build the graph of a parsed model. Raises ModelError for an edge from or to nowhere, and for a cycle."""
    nodes: list[Node] = []
    _add(document.network, None, nodes, path)
    reached = _reached(nodes, path)
    lengths = longest_paths([_steps(node, reached) if node in reached else [] for node in nodes])
    for node, length in zip(nodes, lengths, strict=True):
        node.length = length if node in reached and not _is_edge(node) else None
    return Graph(nodes)


def _is_edge(node: Node) -> bool:
    return node.type in {"Parameter", "Result"}


def _add(network: Network, owner: Node | None, nodes: list[Node], path: Path) -> None:
    """Append the nodes of a network to `nodes`."""
    own: dict[int, Node] = {}
    for number, layer in network.layers.items():
        own[number] = Node(layer, len(nodes), [None] * len(layer.inputs), owner)
        nodes.append(own[number])
    places: dict[tuple[int, str], dict[int, int]] = {}
    for start, output, end, port in network.edges:
        if start not in own or end not in own:
            raise ModelError(f"{path}: an edge names the layer {start if start not in own else end}, which is missing")
        source, target = own[start], own[end]
        index = _place(places, source, "outputs", output, path)
        place = _place(places, target, "inputs", port, path)
        if target.inputs[place] is not None:
            name = shortened(target.layer.name, 60)
            raise ModelError(f"{path}: layer {name!r}: expected one edge to input port {port}, got two")
        target.inputs[place] = (source, index)
        source.consumers.append(target)
    for node in own.values():
        for body in node.layer.bodies:
            first = len(nodes)
            _add(body, node, nodes, path)
            inner = [inside for inside in nodes[first:] if inside.owner is node]
            node.ends += [inside for inside in inner if inside.type == "Result"]
            for inside in inner:
                if inside.type == "Parameter":
                    inside.alias = _alias(inside, node, body.port_map)


def _place(places: dict[tuple[int, str], dict[int, int]], node: Node, side: str, port: int, path: Path) -> int:
    """Return the position of a port among the inputs or outputs of a node."""
    key = (node.position, side)
    if key not in places:
        ports = node.layer.inputs if side == "inputs" else node.layer.outputs
        places[key] = {number: place for place, number in reversed(list(enumerate(ports)))}
    if port not in places[key]:
        name = shortened(node.layer.name, 60)
        raise ModelError(f"{path}: an edge names port {port} of layer {name!r}, which is not among its {side}")
    return places[key][port]


def _alias(parameter: Node, owner: Node, port_map: str) -> Source | None:
    """Return the value that a Parameter of a body has in each turn; None if the turns differ."""
    number = parameter.layer.id
    source = owner.layer.body_inputs.get(port_map, {}).get(number)
    if source is None or source.is_sliced or number in owner.layer.back_edges:
        return None
    if source.port not in owner.layer.inputs:
        return None
    return owner.input(owner.layer.inputs.index(source.port))


def _before(node: Node) -> list[Node]:
    """Return the nodes that must be computed before a node."""
    before = [] if node.owner is None or node.type != "Parameter" else [node.owner]
    for source in node.inputs:
        if source is not None:
            before += [source[0], *source[0].ends]
    return before


def _reached(nodes: list[Node], path: Path) -> set[Node]:
    """Return the nodes that an input of the model reaches. Raises ModelError for a cycle."""
    before: list[list[int]] = []
    entries = 0
    for node in nodes:
        before.append([other.position for other in _before(node)])
        entries += len(before[-1])
        if entries > MAX_ENTRIES:
            raise ModelError(f"{path}: expected at most {MAX_ENTRIES:,} connections of layers, got more")
    order = longest_paths(before)
    for node, length in zip(nodes, order, strict=True):
        if length is None:
            raise ModelError(f"{path}: layer {shortened(node.layer.name, 60)!r} is on or behind a cycle")
    reached: set[Node] = set()
    for node in sorted(nodes, key=lambda node: order[node.position] or 0):
        if node.type != "Parameter":
            is_reached = any(other in reached for other in _before(node))
        elif node.owner is None:
            is_reached = True
        else:
            is_reached = (node.owner if node.alias is None else node.alias[0]) in reached
        if is_reached:
            reached.add(node)
    return reached


def _steps(node: Node, reached: set[Node]) -> list[int]:
    """Return the positions of the nodes that come right before a node on the paths from the model's inputs."""
    steps: list[int] = []
    pending = [source[0] for source in node.inputs if source is not None]
    while pending:
        source = pending.pop()
        if source not in reached:
            continue
        if source.type == "Parameter":
            steps += [source.owner.position] if source.owner is not None else []
        elif source.type == "Result":
            pending += [before[0] for before in source.inputs if before is not None]
        else:
            steps.append(source.position)
            pending += source.ends
    return steps
