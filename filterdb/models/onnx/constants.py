"""Following a weight back to the constants that it is made of, and computing it from them.

Whatever a deterministic operator computes from constants is a constant: Identity, Cast and DequantizeLinear as much as
a mask, a norm, a slice or the branch of an If whose condition is constant. What depends on an input of the model, or
is drawn at random, is computed at run time, hence no trained parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from filterdb.models.onnx import operators
from filterdb.models.onnx.graph import Node, Value
from filterdb.models.onnx.operators import MAX_CHAIN, Constant, dequantize, leaf, too_far
from filterdb.models.onnx.tensors import (
    MAX_WEIGHTS,
    sparse_values,
    tensor_shape,
    tensor_values,
)
from filterdb.models.parse_errors import PARSE_ERRORS, NotStoredError, one_line

__all__ = ["Constant", "Constants", "dequantize"]

MAX_STEPS = 10_000
"""Most values that are looked at for one weight: a value may be used twice by the next, and so on."""

MAX_OPERATIONS = 2**32
"""Most operations that computing one weight may take: numbers read and written, and what products take besides."""

SMALL, ROOM = 2**20, 64 * 2**20
"""Bytes of a constant that is kept once it is folded, and of all that are kept, for what uses it again."""


@dataclass(slots=True)
class Constants:
    """The constants of a model, folded when asked for; its external data lies in `folder`."""

    folder: Path
    _kept: dict[Value, Constant] = field(default_factory=dict, repr=False)
    _room: int = ROOM
    _refused: dict[Value, NotStoredError] = field(default_factory=dict, repr=False)
    _shapes: dict[Value, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _depth: int = 0
    _steps: int = 0
    _operations: int = 0

    def fold(self, value: Value | None) -> Constant:
        """Return the constant that `value` stands for. Raises NotStoredError where it is none."""
        if value is None:
            raise NotStoredError("missing", "the convolution has no weight input")
        if value in self._kept:
            return self._kept[value]
        if value in self._refused:
            raise NotStoredError(self._refused[value].code, self._refused[value].reason)
        outermost = not self._depth
        if outermost:
            self._steps = self._operations = 0
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise NotStoredError("unreadable", f"the weight takes more than {MAX_STEPS:,} steps to fold")
        if self._depth > MAX_CHAIN:
            raise too_far()
        self._depth += 1
        try:
            constant = self._folded(value)
        except MemoryError:
            raise NotStoredError("memory", "its weight takes more memory than reading a model may take") from None
        except NotStoredError as error:
            if outermost:  # further in it may be the way so far that was too long
                self._refused[value] = NotStoredError(error.code, error.reason)
            raise
        finally:
            self._depth -= 1
        self._keep(value, constant)
        return constant

    def weight(self, value: Value | None) -> Constant:
        """Return the constant as a weight. Raises NotStoredError also where none of its numbers stand in the file."""
        constant = self.fold(value)
        if constant.generated and not constant.stored:
            raise _generated(constant.path[0])
        return constant

    def shape(self, value: Value | None) -> tuple[int, ...]:
        """Return the shape of a weight; that of a tensor is read from its head. Raises NotStoredError."""
        if value is None or value not in self._shapes:
            if value is not None and isinstance(value.tensor, onnx.TensorProto):
                self._shapes[value] = tensor_shape(value.tensor, self.folder)
            elif value is not None and _is_filled(value.producer):
                raise _generated("ConstantOfShape")  # without filling it
            else:
                return tuple(self.weight(value).values.shape)
        return self._shapes[value]

    def rank(self, value: Value | None) -> int | None:
        """Return the rank of a weight where it can be told without running the model; also for one not stored."""
        if value is None:
            return None
        if value.tensor is not None:
            return len(value.tensor.dims)
        if value in self._shapes:
            return len(self._shapes[value])
        node = value.producer
        try:
            if node is not None and _is_filled(node):
                return int(self.fold(node.input(0)).values.size)
            return int(self.fold(value).values.ndim)
        except NotStoredError:
            return None

    def _keep(self, value: Value, constant: Constant) -> None:
        self._shapes[value] = tuple(constant.values.shape)
        if value not in self._kept and constant.nbytes <= min(SMALL, self._room):
            self._room -= constant.nbytes
            self._kept[value] = constant

    def _folded(self, value: Value) -> Constant:
        if isinstance(value.tensor, onnx.SparseTensorProto):
            return leaf(sparse_values(value.tensor, self.folder), value.origin)
        if value.tensor is not None:
            return leaf(tensor_values(value.tensor, self.folder), value.origin)
        node = value.producer
        if node is None:
            code = "missing" if value.length is None else "computed"
            raise NotStoredError(code, f"the weight comes from {value.origin}")
        if node.is_standard and node.op_type == "Constant":
            return self._constant(node)
        if node.is_standard and node.op_type == "If":
            return self._branch(node, value.index)
        if operators.is_random(node):
            raise NotStoredError("computed", f"the weight is drawn at random by {node.op_type}")
        inputs = self._inputs(node)
        if not operators.is_foldable(node):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise NotStoredError("unsupported", f"the weight is computed by {name}, which filterdb does not evaluate")
        return self._applied(node, inputs, value.index)

    def _inputs(self, node: Node) -> list[Constant | None]:
        """Fold a node's inputs. One that is known at run time only outweighs one that cannot be read."""
        constants: list[Constant | None] = []
        errors: list[NotStoredError] = []
        for value in node.inputs:
            try:
                constants.append(None if value is None else self.fold(value))
            except NotStoredError as error:
                errors.append(error)
                if error.code == "computed":
                    break
        if errors:
            raise next((error for error in errors if error.code == "computed"), errors[0])
        return constants

    def _applied(self, node: Node, inputs: Sequence[Constant | None], index: int) -> Constant:
        try:
            read = sum(constant.size for constant in inputs if constant is not None)
            self._spend(read + operators.cost(node, inputs))
            constant = operators.apply(node, inputs, index)
        except MemoryError:
            raise
        except PARSE_ERRORS as error:
            reason = f"the weight's {node.op_type} cannot be folded: {one_line(error, self.folder)}"
            raise NotStoredError("unreadable", reason) from error
        if constant.size > MAX_WEIGHTS:
            raise NotStoredError("unreadable", f"the weight's {node.op_type} has {constant.size:,} numbers")
        self._spend(constant.size)
        return constant

    def _spend(self, operations: int) -> None:
        self._operations += operations
        if self._operations > MAX_OPERATIONS:
            raise NotStoredError("unreadable", f"the weight takes more than {MAX_OPERATIONS:,} operations to compute")

    def _constant(self, node: Node) -> Constant:
        # By its name here: inside a function the attribute may be one of the call's, under another name.
        name, attribute = next(iter(node.attributes.items()), ("no value", None))
        if attribute is not None and name == "value":
            return leaf(tensor_values(attribute.t, self.folder), "Constant")
        if attribute is not None and name == "sparse_value":
            return leaf(sparse_values(attribute.sparse_tensor, self.folder), "Constant")
        dtype = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}.get(name)
        if attribute is None or dtype is None:
            raise NotStoredError("dtype", f"the weight is a Constant node with {name}")
        try:
            return leaf(np.array(helper.get_attribute_value(attribute), dtype=dtype), "Constant")
        except PARSE_ERRORS as error:
            reason = f"the weight's Constant has an odd {name}: {one_line(error, self.folder)}"
            raise NotStoredError("unreadable", reason) from error

    def _branch(self, node: Node, output: int) -> Constant:
        """Fold an output of the branch that a constant condition chooses."""
        condition = self.fold(node.input(0)).values
        if condition.size != 1:
            raise NotStoredError("unreadable", f"the weight's If has a condition of shape {condition.shape}")
        branch = node.bodies.get("then_branch" if condition.reshape(-1)[0] else "else_branch", ())
        if output >= len(branch):
            raise NotStoredError("unreadable", f"the weight's If has no output {output} in the chosen branch")
        return self.fold(branch[output])


def _is_filled(node: Node | None) -> bool:
    return node is not None and node.is_standard and node.op_type == "ConstantOfShape"


def _generated(op_type: str) -> NotStoredError:
    return NotStoredError("generated", f"the weight is filled by {op_type}, it is not stored in the file")
