"""Following a weight back to its constant, and folding what lies between, exactly.

Only operators whose result does not depend on a run are folded: Constant, Identity, Cast, Reshape, Transpose and
DequantizeLinear. Everything else is computed at run time, hence no trained parameter (method: the skip ledger).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.checker import ValidationError

from filterdb.extract.graph import Node, Value


class NotStoredError(Exception):
    """Why a convolution is not stored: a one-word code and a sentence."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""What reading an odd model can raise besides our own errors: such a model or layer is put aside with its reason."""


def one_line(error: BaseException, folder: Path) -> str:
    """An error of others' as the end of a line of ours; where the file lies just now is left out of it."""
    text = " ".join(str(error).replace(f"{folder}/", "").replace(str(folder), ".").split())
    return f"{type(error).__name__} {text[:200]}".strip()


@dataclass(frozen=True, slots=True)
class Constant:
    """A folded constant: its values, the dtype in which the model stores it, and the way from there."""

    values: np.ndarray
    source_dtype: str
    path: tuple[str, ...]

    def then(self, values: np.ndarray, step: str) -> Constant:
        """The constant after one more operator."""
        return Constant(values, self.source_dtype, (*self.path, step))


def fold(value: Value | None, folder: Path) -> Constant:
    """The constant that `value` stands for; external data lies in `folder`. Raises NotStoredError where it is none."""
    if value is None:
        raise NotStoredError("missing", "the convolution has no weight input")
    if isinstance(value.tensor, onnx.SparseTensorProto):
        raise NotStoredError("sparse", "the weight is a sparse initializer")
    if value.tensor is not None:
        return _stored(value.tensor, folder, value.origin)
    node = value.producer
    if node is None:
        raise NotStoredError("computed", f"the weight is {value.origin}")
    if node.is_standard and node.op_type in _FOLDERS:
        try:
            return _FOLDERS[node.op_type](node, folder)
        except ODD as error:
            reason = f"the weight's {node.op_type} cannot be folded: {one_line(error, folder)}"
            raise NotStoredError("unreadable", reason) from error
    if node.is_standard and node.op_type == "ConstantOfShape":
        raise NotStoredError("generated", "the weight is filled by ConstantOfShape")
    raise NotStoredError("computed", f"the weight is computed at run time by {node.op_type}")


def rank_of(value: Value | None, folder: Path) -> int | None:
    """Rank of a weight where it can be told without running the model; also for one that is not stored."""
    if value is None:
        return None
    if isinstance(value.tensor, onnx.SparseTensorProto):
        return len(value.tensor.dims)
    if value.tensor is not None:
        return len(value.tensor.dims)
    node = value.producer
    try:
        if node is not None and node.is_standard and node.op_type == "ConstantOfShape":
            return int(fold(node.input(0), folder).values.size)
        return int(fold(value, folder).values.ndim)
    except NotStoredError:
        return None


def _stored(tensor: onnx.TensorProto, folder: Path, origin: str) -> Constant:
    try:
        values = numpy_helper.to_array(tensor, base_dir=str(folder))
    except (*ODD, OSError, ValidationError) as error:
        raise NotStoredError("unreadable", f"the weight's tensor cannot be read: {one_line(error, folder)}") from error
    return Constant(values, str(values.dtype), (origin,))


def _constant(node: Node, folder: Path) -> Constant:
    # By its name here: inside a function the attribute may be one of the call's, under another name.
    name, attribute = next(iter(node.attributes.items()), ("nothing", None))
    if attribute is None or name == "sparse_value":
        raise NotStoredError("sparse", f"the weight is a Constant node with {name}")
    if name == "value":
        return _stored(attribute.t, folder, "Constant")
    dtype = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}.get(name)
    if dtype is None:
        raise NotStoredError("dtype", f"the weight is a Constant node with {name}")
    values = np.array(helper.get_attribute_value(attribute), dtype=dtype)
    return Constant(values, str(values.dtype), ("Constant",))


def _identity(node: Node, folder: Path) -> Constant:
    constant = fold(node.input(0), folder)
    return constant.then(constant.values, "Identity")


def _cast(node: Node, folder: Path) -> Constant:
    constant = fold(node.input(0), folder)
    target = _cast_target(node)
    # float8 and 4-bit targets saturate and round in ways of their own: no exporter casts a weight to them.
    if target not in _CASTABLE:
        raise NotStoredError("computed", f"the weight is cast to {target}, which is not folded")
    with np.errstate(over="ignore", invalid="ignore"):
        return constant.then(constant.values.astype(target), f"Cast({target})")


def _cast_target(node: Node) -> np.dtype:
    attribute = node.attributes.get("to")
    if attribute is not None and attribute.type == onnx.AttributeProto.STRING:  # opset 1 to 5
        return _dtype(onnx.TensorProto.DataType.Value(attribute.s.decode()))
    return _dtype(node.integer("to", 0))


def _reshape(node: Node, folder: Path) -> Constant:
    constant = fold(node.input(0), folder)
    shape = node.integers("shape")  # opset 1 to 4
    if shape is None:
        shape = [int(n) for n in fold(node.input(1), folder).values.ravel()]
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


def _transpose(node: Node, folder: Path) -> Constant:
    constant = fold(node.input(0), folder)
    order = node.integers("perm")
    try:
        return constant.then(np.transpose(constant.values, order), "Transpose")
    except ValueError as error:
        raise NotStoredError(
            "unreadable",
            f"the weight of rank {constant.values.ndim} is transposed by {order}, which does not fit",
        ) from error


def _dequantize_linear(node: Node, folder: Path) -> Constant:
    constant = fold(node.input(0), folder)
    scale = fold(node.input(1), folder).values
    zero_point = None if node.input(2) is None else fold(node.input(2), folder).values
    values = dequantize(
        constant.values, scale, zero_point, axis=node.integer("axis", 1), block=node.integer("block_size", 0)
    )
    output = node.integer("output_dtype", 0)
    return constant.then(values.astype(_dtype(output) if output else scale.dtype), "DequantizeLinear")


def dequantize(
    values: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None, axis: int, block: int = 0
) -> np.ndarray:
    """(values − zero_point) · scale in float32, per tensor, per channel along `axis`, or per `block` along it.

    ONNX operator DequantizeLinear. Integers are subtracted exactly, in int64.
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
    """A scale or zero point so that it broadcasts against `values`."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis += values.ndim if axis < 0 else 0
    fits = 0 <= axis < values.ndim
    if fits and block and parameter.ndim == values.ndim:
        wide = np.repeat(parameter, block, axis=axis).take(np.arange(values.shape[axis]), axis=axis, mode="clip")
        if wide.shape == values.shape:
            return wide
    elif fits and parameter.ndim == 1 and parameter.size == values.shape[axis]:
        return parameter.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    raise NotStoredError(
        "unreadable",
        f"a scale or zero point of shape {parameter.shape} does not fit a weight of shape {values.shape}, axis {axis}",
    )


def _dtype(code: int) -> np.dtype:
    try:
        dtype: np.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(code))
        return dtype
    except (KeyError, TypeError, ValueError) as error:
        raise NotStoredError("dtype", f"the weight has the unknown ONNX type {code}") from error


_CASTABLE = {np.dtype(c) for c in "?bBhHiIlLefd"} | {np.dtype(ml_dtypes.bfloat16)}

_FOLDERS: dict[str, Callable[[Node, Path], Constant]] = {
    "Constant": _constant,
    "Identity": _identity,
    "Cast": _cast,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "DequantizeLinear": _dequantize_linear,
}
