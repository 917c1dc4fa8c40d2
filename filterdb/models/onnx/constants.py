"""Trace a weight back to the constants that it is computed from, and compute it (constant folding).

The result of a deterministic operator on constants is itself constant: Identity, Cast and DequantizeLinear, but also
masks, norms, slices, and the branch of an If whose condition is constant. A value that depends on an input of the
model, or on random numbers, is computed at run time, so it is not a trained parameter.
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
"""Most values that are visited for one weight. A value may be used twice by the next, so paths can double each time."""

MAX_OPERATIONS = 2**32
"""Most operations for one weight: the numbers read and written, and the multiplications of matrix products."""

CACHEABLE_BYTES = 2**20
"""Most bytes of a folded constant that is kept in memory for its next use."""

CACHE_BYTES = 64 * 2**20
"""Most bytes of all constants that are kept in memory."""


@dataclass(slots=True)
class Constants:
    """The constants of a model, folded on request. External data is read from `folder`."""

    folder: Path
    _cache: dict[Value, Constant] = field(default_factory=dict, repr=False)
    _cache_room: int = CACHE_BYTES
    _failures: dict[Value, NotStoredError] = field(default_factory=dict, repr=False)
    _shapes: dict[Value, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _depth: int = 0
    _steps: int = 0
    _operations: int = 0

    def fold(self, value: Value | None) -> Constant:
        """Compute the constant behind `value`. Raises NotStoredError if it is not constant or cannot be computed."""
        if value is None:
            raise NotStoredError("missing", "the convolution has no weight input")
        if value in self._cache:
            return self._cache[value]
        if value in self._failures:
            raise NotStoredError(self._failures[value].code, self._failures[value].reason)
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
            if outermost:  # an inner value may be fine, and only the path to it too long
                self._failures[value] = NotStoredError(error.code, error.reason)
            raise
        finally:
            self._depth -= 1
        self._keep(value, constant)
        return constant

    def weight(self, value: Value | None) -> Constant:
        """Compute a weight. Raises NotStoredError also if the file stores none of its numbers."""
        constant = self.fold(value)
        if constant.generated and not constant.stored:
            raise _generated(constant.path[0])
        return constant

    def shape(self, value: Value | None) -> tuple[int, ...]:
        """Return the shape of a weight, from the tensor's header if possible. Raises NotStoredError."""
        if value is None or value not in self._shapes:
            if value is not None and isinstance(value.tensor, onnx.TensorProto):
                self._shapes[value] = tensor_shape(value.tensor, self.folder)
            elif value is not None and _is_filled(value.producer):
                raise _generated("ConstantOfShape")  # without allocating it
            else:
                return tuple(self.weight(value).values.shape)
        return self._shapes[value]

    def rank(self, value: Value | None) -> int | None:
        """Return the rank of a weight, also of one that is not stored; None if only running the model would tell."""
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
        if value not in self._cache and constant.nbytes <= min(CACHEABLE_BYTES, self._cache_room):
            self._cache_room -= constant.nbytes
            self._cache[value] = constant

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
        """Fold a node's inputs. If several fail, raise the error of one that is computed at run time, if any."""
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
        # Use the key: inside a function, the attribute may come from the call and have another name there.
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
        """Fold an output of the branch of an If that its constant condition selects."""
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
