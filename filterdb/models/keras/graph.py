"""Unroll the calls of a model's layers into nodes, and find their depths and the norms that follow them.

A layer that is called several times is as many nodes, and a nested model is its nodes for each of its calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from filterdb.models.convolutions import longest_paths
from filterdb.models.keras.config import Graph, Layer, Reference
from filterdb.models.keras.kernels import CHANNELWISE, KERNELS, NORMS, Kernel

MAX_STEPS = 2_000_000
"""Most calls and tensors that are followed. A small config can name a nested model exponentially often."""


@dataclass(frozen=True, slots=True)
class Node:
    """A call of a layer, or of one of its kernels, with the positions of the nodes that it reads."""

    layer: Layer = field(repr=False)
    kernel: Kernel | None
    inputs: list[int]
    is_first: bool = True
    """Whether it is the only node of its call, or the first."""
    is_last: bool = True


@dataclass(slots=True)
class Nodes:
    """The nodes of a model, in an order in which each follows those that it reads, and the nodes' depths."""

    nodes: list[Node]
    lengths: list[int | None]

    @property
    def depth(self) -> int:
        """The number of distinct depths."""
        return len(set(self.lengths))

    @property
    def operators(self) -> dict[str, int]:
        """How often each class of layers is called."""
        return dict(Counter(node.layer.class_name for node in self.nodes if node.is_first).most_common())

    def normalised(self) -> set[int]:
        """Return the convolutions that a batch normalisation follows, at once or behind layers that keep channels."""
        found: set[int] = set()
        pending = [source for node in self.nodes if node.layer.class_name in NORMS for source in node.inputs]
        seen = set(pending)
        while pending:
            position = pending.pop()
            node = self.nodes[position]
            if not _is_linear(node.layer):
                continue
            if node.kernel is not None:
                found |= {position} if node.is_last else set()
            elif node.layer.class_name in CHANNELWISE or node.layer.class_name == "Activation":
                new = set(node.inputs) - seen
                seen |= new
                pending += new
        return found


def unroll(graph: Graph) -> Nodes:
    """Return the nodes of a model. Raises ValueError if its calls have a cycle, or are too many."""
    unroller = _Unroller()
    unroller.run(graph, [[] for _ in graph.inputs])
    return Nodes(unroller.nodes, longest_paths([node.inputs for node in unroller.nodes]))


def _is_linear(layer: Layer) -> bool:
    """Return whether a layer has no activation that changes its values."""
    activation = layer.settings.get("activation")
    return activation is None or activation == "linear"


Results = dict[tuple[int, int], list[list[int]]]
"""For each call of a layer (position, number), the nodes behind each of its results."""


class _Unroller:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.orders: dict[int, list[tuple[int, int]]] = {}
        self.room = MAX_STEPS

    def run(self, graph: Graph, sources: Sequence[list[int]]) -> list[list[int]]:
        """Add the nodes of a call of a model whose inputs come from these nodes, and return those of its outputs."""
        if id(graph) not in self.orders:
            self.orders[id(graph)] = _order(graph)
        inputs = {(place, call): source for (place, call, _), source in zip(graph.inputs, sources, strict=True)}
        results: Results = {}
        for place, call in self.orders[id(graph)]:
            self._spend(1)
            layer = graph.layers[place]
            read = [self._resolve(graph, results, reference) for reference in layer.calls[call]]
            if layer.is_input:
                results[place, call] = [inputs.get((place, call), [])]
            elif layer.inner is not None:
                results[place, call] = self.run(layer.inner, self._arguments(layer.inner, read))
            else:
                results[place, call] = [[self._add(layer, self._union(read))]]
        return [self._resolve(graph, results, reference) for reference in graph.outputs]

    def _add(self, layer: Layer, inputs: list[int]) -> int:
        """Add the nodes of a call of a layer, and return the last."""
        kernels = KERNELS.get(layer.class_name, ())
        if not kernels:
            self.nodes.append(Node(layer, None, inputs))
        for number, kernel in enumerate(kernels):
            read = inputs if not number else [len(self.nodes) - 1]
            self.nodes.append(Node(layer, kernel, read, is_first=not number, is_last=number == len(kernels) - 1))
        return len(self.nodes) - 1

    def _arguments(self, inner: Graph, read: list[list[int]]) -> list[list[int]]:
        """Return the nodes behind each input of a nested model that is called with these tensors."""
        if len(read) == len(inner.inputs):
            return read
        return [self._union(read)] * len(inner.inputs)

    def _union(self, read: list[list[int]]) -> list[int]:
        self._spend(sum(map(len, read)))
        return sorted(set().union(*read))

    def _resolve(self, graph: Graph, results: Results, reference: Reference) -> list[int]:
        """Return the nodes behind a tensor."""
        place, _, tensor = reference
        found = results.get((place, _call(graph, reference)), [[]])
        self._spend(1 + len(found))
        return found[tensor] if tensor < len(found) else self._union(found)

    def _spend(self, steps: int) -> None:
        self.room -= steps
        if self.room < 0:
            raise ValueError(f"a config whose layers are called more than {MAX_STEPS:,} times")


def _call(graph: Graph, reference: Reference) -> int:
    """Return the number of the call that a reference means.

    Keras counts the calls of nested models differently in places: a number beyond the last means the last.
    """
    place, call, _ = reference
    return min(call, len(graph.layers[place].calls) - 1)


def _order(graph: Graph) -> list[tuple[int, int]]:
    """Return all calls of a model's layers, each behind those that it reads. Raises ValueError for a cycle."""
    keys = [(place, call) for place, layer in enumerate(graph.layers) for call in range(len(layer.calls))]
    places = {key: position for position, key in enumerate(keys)}
    inputs = [
        [places[source, _call(graph, (source, number, 0))] for source, number, _ in graph.layers[place].calls[call]]
        for place, call in keys
    ]
    lengths = longest_paths(inputs)
    if None in lengths:
        raise ValueError("a config whose layers read each other in a circle")
    return [keys[position] for position in sorted(range(len(keys)), key=lambda position: (lengths[position], position))]
