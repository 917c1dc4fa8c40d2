"""Apply the operators between a constant and its convolution, as ONNX Runtime computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx

from filterdb.models.onnx import evaluator
from filterdb.models.onnx.external import MAX_RANK
from filterdb.models.onnx.graph import Node
from filterdb.models.onnx.tensors import MAX_WEIGHTS, numpy_dtype
from filterdb.models.parse_errors import NotStoredError

MAX_CHAIN = 200
"""Most operators between a constant and its convolution."""

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

_CONTRIB_FOLDED = {"DequantizeLinear", "QuantizeLinear"}


@dataclass(frozen=True, slots=True)
class Constant:
    """A folded constant: its values, its dtype in the file, and the path of operators from there.

    `stored`: some of its numbers come from the file. `generated`: some come from an operator that fills a shape. A
    sequence of tensors has `items` and no values.
    """

    values: np.ndarray
    source_dtype: str
    path: tuple[str, ...]
    stored: bool = True
    generated: bool = False
    items: tuple[np.ndarray, ...] | None = None

    @property
    def size(self) -> int:
        """Number of its values."""
        return self.values.size if self.items is None else sum(item.size for item in self.items)

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.values.nbytes if self.items is None else sum(item.nbytes for item in self.items)

    def then(self, values: np.ndarray, step: str) -> Constant:
        """Return the constant after one more operator. Raises NotStoredError if the path becomes too long."""
        return self._with(values, step, [self])

    @classmethod
    def of(cls, result: np.ndarray | list[np.ndarray], step: str, inputs: Sequence[Constant | None]) -> Constant:
        """Return the result of an operator on several constants. Its path is that of the largest stored one."""
        given = [constant for constant in inputs if constant is not None]
        if not given:
            values, items = _parts(result)
            return cls(values, str(values.dtype), (step,), stored=False, items=items)
        main = max(given, key=lambda constant: (constant.stored, constant.size))
        return main._with(result, step, given)

    def _with(self, result: np.ndarray | list[np.ndarray], step: str, given: Sequence[Constant]) -> Constant:
        if len(self.path) > MAX_CHAIN:
            raise too_far()
        stored = any(constant.stored for constant in given)
        generated = any(constant.generated for constant in given)
        values, items = _parts(result)
        return Constant(values, self.source_dtype, (*self.path, step), stored, generated, items)


def _parts(result: np.ndarray | list[np.ndarray]) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
    return (np.empty(0, np.float32), tuple(result)) if isinstance(result, list) else (result, None)


def too_far() -> NotStoredError:
    """Return the error for a weight behind too many operators."""
    return NotStoredError("unreadable", f"the weight lies behind more than {MAX_CHAIN} operators")


def leaf(values: np.ndarray, origin: str) -> Constant:
    """Return a constant from the file. Single numbers and shapes do not count as stored weights."""
    is_parameter = values.size > 1 and not (values.dtype == np.int64 and values.ndim <= 1)
    return Constant(values, str(values.dtype), (origin,), stored=is_parameter)


def is_foldable(node: Node) -> bool:
    """Return whether `apply` supports the node's operator."""
    if node.domain == CONTRIB and not node.is_call:
        return node.op_type in _CONTRIB_FOLDED
    return node.is_standard and (node.op_type in _FOLDERS or node.op_type in evaluator.OPERATORS)


def is_random(node: Node) -> bool:
    """Return whether the node's result differs from run to run."""
    return node.is_standard and node.op_type in evaluator.RANDOM


def cost(node: Node, inputs: Sequence[Constant | None]) -> int:
    """Estimate the operations of `apply`, in addition to one for each number of its inputs and outputs."""
    return evaluator.operations(node.op_type, node.attributes, _arrays(inputs))


def apply(node: Node, inputs: Sequence[Constant | None], index: int) -> Constant:
    """Compute an output of a node for which `is_foldable` is true. Raises NotStoredError, and whatever NumPy raises."""
    fold = _FOLDERS.get(node.op_type)
    folded = fold(node, inputs) if fold is not None and not index else None
    return _evaluated(node, inputs, index) if folded is None else folded


def _evaluated(node: Node, inputs: Sequence[Constant | None], index: int) -> Constant:
    opset = evaluator.CONTRIB_OPSET if node.domain == CONTRIB else node.opset or onnx.defs.onnx_opset_version()
    arrays = _arrays(inputs)
    try:
        result = evaluator.evaluate(node.op_type, opset, node.attributes, arrays, len(node.outputs), index)
    except (RuntimeError, NotImplementedError) as error:  # onnx raises these for unknown operators and versions
        raise ValueError(str(error)) from error
    if node.op_type in _FILLING and isinstance(result, np.ndarray):
        return Constant(result, str(result.dtype), (node.op_type,), stored=False, generated=True)
    return Constant.of(result, node.op_type, inputs)


_FILLING = {"EyeLike", "Range", "BlackmanWindow", "HammingWindow", "HannWindow"}
"""Operators that generate numbers from a shape or size."""


def _arrays(inputs: Sequence[Constant | None]) -> list[evaluator.Input]:
    return [
        None if constant is None else constant.values if constant.items is None else list(constant.items)
        for constant in inputs
    ]


def _required(inputs: Sequence[Constant | None], position: int) -> Constant:
    constant = inputs[position] if position < len(inputs) else None
    if constant is None:
        raise NotStoredError("unreadable", f"an operator of the weight has no input {position}")
    return constant


def _optional(inputs: Sequence[Constant | None], position: int) -> np.ndarray | None:
    constant = inputs[position] if position < len(inputs) else None
    return None if constant is None else constant.values


def _identity(node: Node, inputs: Sequence[Constant | None]) -> Constant:
    constant = _required(inputs, 0)
    return constant.then(constant.values, "Identity")


def _constant_of_shape(node: Node, inputs: Sequence[Constant | None]) -> Constant:
    shape = [int(n) for n in _required(inputs, 0).values.ravel()[: MAX_RANK + 1]]
    size = 1
    for n in shape:
        size *= n
    if len(shape) > MAX_RANK or min(shape, default=0) < 0 or size > MAX_WEIGHTS:
        raise NotStoredError("unreadable", f"the weight's ConstantOfShape has the shape {shape}")
    attribute = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if attribute is None else np.asarray(onnx.numpy_helper.to_array(attribute.t))
    values = np.full(shape, fill.reshape(-1)[0], fill.dtype)
    return Constant(values, str(values.dtype), ("ConstantOfShape",), stored=False, generated=True)


def _cast(node: Node, inputs: Sequence[Constant | None]) -> Constant | None:
    """Return the cast constant; None for types that have their own rules for saturation and rounding."""
    constant = _required(inputs, 0)
    target = _cast_target(node)
    if target not in _CASTABLE:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return constant.then(constant.values.astype(target), f"Cast({target})")


def _cast_target(node: Node) -> np.dtype:
    attribute = node.attributes.get("to")
    if attribute is not None and attribute.type == onnx.AttributeProto.STRING:  # opset 1 to 5
        return numpy_dtype(onnx.TensorProto.DataType.Value(attribute.s.decode()))
    return numpy_dtype(node.integer("to", 0))


def _reshape(node: Node, inputs: Sequence[Constant | None]) -> Constant:
    constant = _required(inputs, 0)
    shape = node.integers("shape")  # opset 1 to 4
    if shape is None:
        given = _required(inputs, 1).values
        shape = [int(n) for n in given.ravel()[: MAX_RANK + 1]]
    # NumPy treats any negative number as -1 and accepts shapes of any length.
    if len(shape) > MAX_RANK or min(shape, default=0) < -1 or shape.count(-1) > 1:
        raise NotStoredError("unreadable", f"the weight is reshaped to {shape}, which is no shape")
    if not node.integer("allowzero", 0):
        old = constant.values.shape
        shape = [old[i] if n == 0 and i < len(old) else n for i, n in enumerate(shape)]
    try:
        return constant.then(constant.values.reshape(shape), "Reshape")
    except ValueError as error:
        raise NotStoredError(
            "unreadable",
            f"the weight of shape {constant.values.shape} is reshaped to {shape}, which does not fit",
        ) from error


def _transpose(node: Node, inputs: Sequence[Constant | None]) -> Constant:
    constant = _required(inputs, 0)
    order = node.integers("perm")
    rank = constant.values.ndim
    # NumPy counts negative axes from the end, ONNX does not.
    if order is not None and sorted(order) != list(range(rank)):
        raise NotStoredError(
            "unreadable", f"the weight of rank {rank} is transposed by {order[:MAX_RANK]}, which does not fit"
        )
    return constant.then(np.transpose(constant.values, order), "Transpose")


def _dequantize_linear(node: Node, inputs: Sequence[Constant | None]) -> Constant:
    constant, scale = _required(inputs, 0), _required(inputs, 1).values
    axis, block = node.integer("axis", 1), node.integer("block_size", 0)
    values = dequantize(constant.values, scale, _optional(inputs, 2), axis, block)
    output = node.integer("output_dtype", 0)
    return constant.then(values.astype(numpy_dtype(output) if output else scale.dtype), "DequantizeLinear")


def dequantize(
    values: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None, axis: int, block: int = 0
) -> np.ndarray:
    """Compute (values − zero_point) · scale in float32, per tensor, per channel along `axis`, or per `block` along it.

    This is ONNX's DequantizeLinear. Integers are subtracted exactly, in int64.
    """
    is_integer = np.issubdtype(values.dtype, np.integer) or values.dtype.name in {
        "int2",
        "uint2",
        "int4",
        "uint4",
    }
    shifted = values.astype(np.int64 if is_integer else np.float32)
    if zero_point is not None:
        if zero_point.dtype != values.dtype:
            raise NotStoredError(
                "unreadable", f"a zero point of {zero_point.dtype} does not fit {values.dtype} weights"
            )
        shifted = shifted - _along(zero_point.astype(shifted.dtype), values, axis, block)
    product: np.ndarray = shifted.astype(np.float32) * _along(scale.astype(np.float32), values, axis, block)
    return product


def _along(parameter: np.ndarray, values: np.ndarray, axis: int, block: int) -> np.ndarray:
    """Reshape a scale or zero point so that it broadcasts against `values`."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis += values.ndim if axis < 0 else 0
    fits = 0 <= axis < values.ndim
    if fits and block > 0 and parameter.ndim == values.ndim:
        size = values.shape[axis]
        if parameter.shape[axis] == -(-size // block):
            wide = parameter.take(np.arange(size) // block, axis=axis)
            if wide.shape == values.shape:
                return wide
    elif fits and parameter.ndim == 1 and parameter.size == values.shape[axis]:
        return parameter.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    raise NotStoredError(
        "unreadable",
        f"a scale or zero point of shape {parameter.shape} does not fit a weight of shape {values.shape}, axis {axis}",
    )


_CASTABLE = {np.dtype(c) for c in "?bBhHiIlLefd"} | {np.dtype(ml_dtypes.bfloat16)}

_FOLDERS: dict[str, Callable[[Node, Sequence[Constant | None]], Constant | None]] = {
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": _dequantize_linear,
    "Identity": _identity,
    "Reshape": _reshape,
    "Transpose": _transpose,
}
"""The most common operators, without unnecessary copies. All others are evaluated by onnx."""
