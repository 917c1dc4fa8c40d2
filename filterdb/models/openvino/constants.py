"""Compute the weights of an OpenVINO model from its constants.

Compressed weights are constants of small types, followed by Convert, Subtract (a zero point), Multiply (a scale) and
Reshape; quantised ones are followed by FakeQuantize. A value that depends on an input of the model is computed at run
time, so it is not a trained parameter.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from filterdb.models.data_files import open_inside
from filterdb.models.openvino import operators
from filterdb.models.openvino.document import Layer, integer
from filterdb.models.openvino.elements import ELEMENTS, Element
from filterdb.models.openvino.graph import Node, Source
from filterdb.models.openvino.operators import ARITHMETIC, MAX_RANK, MAX_WEIGHTS
from filterdb.models.parse_errors import PARSE_ERRORS, NotStoredError, one_line, shortened

MAX_CHAIN = 100
"""Most layers between a constant and its convolution."""

MAX_STEPS = 10_000
"""Most values that are visited for one weight. A value may be used twice by the next, so paths can double each time."""

MAX_OPERATIONS = 2**32
"""Most numbers that are read and written for one weight."""

MAX_LEAVES = 100
"""Most layers that are visited to compare two weights."""

CACHEABLE_BYTES = 2**20
"""Most bytes of a value that is kept in memory for its next use."""

CACHE_BYTES = 64 * 2**20
"""Most bytes of all values that are kept in memory."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a Const has its numbers, and what they are."""

    element: Element
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Origin:
    """How a weight is computed: the type of its numbers in the file, the layers from there on, and its place.

    The places of two weights are equal if they are computed from the same bytes of the data file in the same way.
    """

    source_dtype: str
    path: tuple[str, ...]
    place: Hashable


def data_end(layer: Layer) -> int:
    """Return where the bytes of a Const end in the data file; 0 if it does not state that in valid numbers."""
    try:
        offset, size = integer(layer.data.get("offset")), integer(layer.data.get("size"))
    except ValueError:
        return 0
    return offset + size if min(offset, size) >= 0 else 0


def stored(layer: Layer) -> Stored:
    """Return what a Const states about its numbers. Raises NotStoredError if that cannot be true."""
    kind = layer.data.get("element_type", "").strip().lower()
    if kind not in ELEMENTS:
        raise NotStoredError("dtype", f"the weight has the element type {shortened(repr(kind), 40)}")
    try:
        shape = _shape(layer.data.get("shape", ""))
        offset, size = integer(layer.data.get("offset")), integer(layer.data.get("size"))
    except ValueError as error:
        raise NotStoredError("unreadable", f"the weight's constant is not valid: {error}") from error
    if len(shape) > MAX_RANK or min(shape, default=0) < 0 or math.prod(shape) > MAX_WEIGHTS:
        raise NotStoredError("unreadable", f"the weight's constant says that it has shape {shape[:MAX_RANK]}")
    needed = ELEMENTS[kind].size(shape)
    if min(offset, size) < 0 or size < needed:
        reason = f"the weight's constant has {size} bytes from {offset}; {kind} of shape {shape} takes {needed}"
        raise NotStoredError("unreadable", reason)
    return Stored(ELEMENTS[kind], shape, offset)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(integer(part) for part in text.split(",")) if text.strip() else ()


@dataclass(slots=True)
class Constants:
    """The constants of a model, computed on request. Their bytes are in the file `name` in `folder`."""

    folder: Path
    name: str
    _cache: dict[Node, np.ndarray] = field(default_factory=dict, repr=False)
    _cache_room: int = CACHE_BYTES
    _shapes: dict[Node, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _depth: int = 0
    _steps: int = 0
    _operations: int = 0

    def fold(self, source: Source | None) -> np.ndarray:
        """Compute a constant value. Raises NotStoredError if it is not constant or cannot be computed."""
        node = _node(source)
        if node in self._cache:
            return self._cache[node]
        self._descend()
        try:
            constant = self._folded(node)
        except MemoryError:
            raise NotStoredError("memory", "its weight takes more memory than reading a model may take") from None
        finally:
            self._depth -= 1
        if constant.nbytes <= min(CACHEABLE_BYTES, self._cache_room):
            self._cache_room -= constant.nbytes
            self._cache[node] = constant
        return constant

    def shape(self, source: Source | None) -> tuple[int, ...]:
        """Return the shape of a constant value, without reading it if possible. Raises NotStoredError."""
        node = _node(source)
        if node not in self._shapes:
            self._descend()
            try:
                self._shapes[node] = self._shape_of(node)
            finally:
                self._depth -= 1
        return self._shapes[node]

    def origin(self, source: Source | None) -> Origin:
        """Describe how a weight is computed, without reading it. Raises NotStoredError."""
        path: list[str] = []
        node = _node(source)
        while node.type != "Const" and len(path) <= MAX_CHAIN:
            if node.alias is not None:
                node = node.alias[0]
                continue
            kind = node.layer.data.get("destination_type", "").strip()
            path.append(f"Convert({shortened(kind, 20)})" if node.type == "Convert" else node.type)
            main = node.input(0)
            if node.type in ARITHMETIC:  # the scale may come first
                main = max(node.inputs, key=lambda operand: math.prod(self.shape(operand)))
            node = _node(main)
        if node.type != "Const":
            return Origin("", tuple(reversed(path)), node)
        path = ["Const", *reversed(path)]
        return Origin(stored(node.layer).element.name, tuple(path), (*path, *_leaves(_node(source))))

    def _descend(self) -> None:
        """Count one more value, and one more level, of the weight that is computed. Raises NotStoredError."""
        if not self._depth:
            self._steps = self._operations = 0
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise NotStoredError("unreadable", f"the weight takes more than {MAX_STEPS:,} steps to compute")
        if self._depth > MAX_CHAIN:
            raise NotStoredError("unreadable", f"the weight lies behind more than {MAX_CHAIN} layers")
        self._depth += 1

    def _shape_of(self, node: Node) -> tuple[int, ...]:
        if node.type == "Const":
            return stored(node.layer).shape
        if node.alias is not None:
            return self.shape(node.alias)
        _check(node)
        if node.type == "Convert":
            return self.shape(node.input(0))
        if node.type == "FakeQuantize" or node.type in ARITHMETIC:
            return operators.result_shape(node.layer, [self.shape(source) for source in node.inputs])
        if node.type == "Reshape":
            return operators.reshaped(node.layer, self.shape(node.input(0)), self._target(node))
        return tuple(self.fold((node, 0)).shape)

    def _folded(self, node: Node) -> np.ndarray:
        if node.type == "Const":
            return self._read(node.layer)
        if node.alias is not None:
            return self.fold(node.alias)
        _check(node)
        if node.type == "Reshape":
            inputs = [self.fold(node.input(0)), self._target(node)]
        else:
            inputs = [self.fold(source) for source in node.inputs]
        self._spend(sum(constant.size for constant in inputs))
        try:
            constant = operators.apply(node.layer, inputs)
        except MemoryError:
            raise
        except PARSE_ERRORS as error:
            reason = f"the weight's {node.type} cannot be computed: {one_line(error, self.folder)}"
            raise NotStoredError("unreadable", reason) from error
        self._spend(constant.size)
        return constant

    def _target(self, node: Node) -> np.ndarray:
        """Return the shape that a Reshape makes.

        A model that was saved unoptimised computes it by layers that are not evaluated. Then it is what the Reshape
        states as the shape of its output.
        """
        try:
            return self.fold(node.input(1))
        except NotStoredError as error:
            if error.code != "unsupported" or not node.layer.dims or min(node.layer.dims[0], default=0) < 1:
                raise
            return np.array(node.layer.dims[0], np.int64)

    def _spend(self, operations: int) -> None:
        self._operations += operations
        if self._operations > MAX_OPERATIONS:
            raise NotStoredError("unreadable", f"the weight takes more than {MAX_OPERATIONS:,} operations to compute")

    def _read(self, layer: Layer) -> np.ndarray:
        """Read the numbers of a Const. The data file is opened for each, as handles are few."""
        facts = stored(layer)
        size = facts.element.size(facts.shape)
        self._spend(size)
        try:
            with os.fdopen(open_inside(self.folder, self.name), "rb") as file:
                file.seek(facts.offset)
                data = np.fromfile(file, np.uint8, size)
        except MemoryError:
            raise
        except (*PARSE_ERRORS, OSError) as error:
            raise NotStoredError(
                "unreadable", f"its constant cannot be read: {one_line(error, self.folder)}"
            ) from error
        if len(data) != size:
            reason = f"its constant ends after {len(data)} of {size} bytes from {facts.offset} of {self.name}"
            raise NotStoredError("unreadable", reason)
        return facts.element.decode(data, math.prod(facts.shape)).reshape(facts.shape)


def _node(source: Source | None) -> Node:
    if source is None:
        raise NotStoredError("missing", "nothing is connected to the convolution's weight")
    return source[0]


def _check(node: Node) -> None:
    """Raise NotStoredError for a value that depends on an input of the model, or that cannot be evaluated."""
    if node.is_computed:
        kind = shortened(node.type, 60)
        raise NotStoredError("computed", f"the weight depends on an input of the model ({kind})")
    operators.check_inputs(node.layer)


def _leaves(node: Node) -> list[Hashable]:
    """Return the places of all constants that a value is computed from; the value itself if they are many."""
    leaves: list[Hashable] = []
    pending = [node]
    for _ in range(MAX_LEAVES):
        if not pending:
            return leaves
        other = pending.pop()
        if other.type == "Const":
            facts = stored(other.layer)
            leaves.append((facts.offset, facts.element.name, facts.shape))
        pending += [other.alias[0]] if other.alias is not None else [source[0] for source in other.inputs if source]
    return [node]
