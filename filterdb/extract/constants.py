"""Following a weight back to its constant, and folding what lies between, exactly.

Only operators whose result does not depend on a run are folded: Constant, Identity, Cast, Reshape, Transpose and
DequantizeLinear. Everything else is computed at run time, hence no trained parameter (method: the skip ledger).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.checker import ValidationError
from onnx.external_data_helper import uses_external_data

from filterdb.extract.external import MAX_RANK, PACKED_BITS, external_length, read_external
from filterdb.extract.graph import Node, Value, shortened

MAX_WEIGHTS = 2**29
"""Numbers of a weight (2 GiB in float32): one that says that it has more lies, or is no filter's."""

MAX_CHAIN = 200
"""Operators between a constant and its convolution."""

MAX_STEPS = 10_000
"""Values that are looked at for one weight: a value may be used twice by the next, and so on."""

SMALL, ROOM = 2**20, 64 * 2**20
"""Bytes of a constant that is kept once it is folded, and of all that are kept, for what uses it again."""


class NotStoredError(Exception):
    """Why a convolution is not stored: a one-word code and a sentence."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = shortened(reason)


ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""What reading an odd model can raise besides our own errors: such a model or layer is put aside with its reason."""


def one_line(error: BaseException, folder: Path) -> str:
    """An error of others' as the end of a line of ours; where the file lies just now is left out of it."""
    said = " ".join(str(error).replace(f"{folder}/", "").replace(str(folder), ".").split())
    return f"{type(error).__name__} {said[:200]}".strip()


@dataclass(frozen=True, slots=True)
class Constant:
    """A folded constant: its values, the dtype in which the model stores it, and the way from there."""

    values: np.ndarray
    source_dtype: str
    path: tuple[str, ...]

    def then(self, values: np.ndarray, step: str) -> Constant:
        """The constant after one more operator. Raises NotStoredError for too many."""
        if len(self.path) > MAX_CHAIN:
            raise _too_far()
        return Constant(values, self.source_dtype, (*self.path, step))


def _too_far() -> NotStoredError:
    return NotStoredError("unreadable", f"the weight lies behind more than {MAX_CHAIN} operators")


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

    def fold(self, value: Value | None) -> Constant:
        """The constant that `value` stands for. Raises NotStoredError where it is none."""
        if value is None:
            raise NotStoredError("missing", "the convolution has no weight input")
        if value in self._kept:
            return self._kept[value]
        if value in self._refused:
            raise NotStoredError(self._refused[value].code, self._refused[value].reason)
        outermost = not self._depth
        self._steps = 0 if outermost else self._steps + 1
        if self._steps > MAX_STEPS:
            raise NotStoredError("unreadable", f"the weight takes more than {MAX_STEPS:,} steps to fold")
        if self._depth > MAX_CHAIN:
            raise _too_far()
        self._depth += 1
        try:
            found = self._folded(value)
        except NotStoredError as error:
            if outermost:  # further in it may be the way so far that was too long
                self._refused[value] = NotStoredError(error.code, error.reason)
            raise
        finally:
            self._depth -= 1
        if found.values.nbytes <= min(SMALL, self._room):
            self._room -= found.values.nbytes
            self._kept[value] = found
        return found

    def _folded(self, value: Value) -> Constant:
        if isinstance(value.tensor, onnx.SparseTensorProto):
            raise NotStoredError("sparse", "the weight is a sparse initializer")
        if value.tensor is not None:
            return _stored(value.tensor, self.folder, value.origin)
        node = value.producer
        if node is None:
            raise NotStoredError("computed", f"the weight is {value.origin}")
        if node.is_standard and node.op_type in _FOLDERS:
            try:
                return _FOLDERS[node.op_type](node, self)
            except ODD as error:
                reason = f"the weight's {node.op_type} cannot be folded: {one_line(error, self.folder)}"
                raise NotStoredError("unreadable", reason) from error
        if node.is_standard and node.op_type == "ConstantOfShape":
            raise NotStoredError("generated", "the weight is filled by ConstantOfShape")
        raise NotStoredError("computed", f"the weight is computed at run time by {node.op_type}")

    def shape(self, value: Value | None) -> tuple[int, ...]:
        """Shape of a weight; of a tensor read from its head, once its data are as long. Raises NotStoredError."""
        if value is None or not isinstance(value.tensor, onnx.TensorProto):
            return tuple(self.fold(value).values.shape)
        if value not in self._shapes:
            self._shapes[value] = _shape(value.tensor, self.folder)
        return self._shapes[value]

    def rank(self, value: Value | None) -> int | None:
        """Rank of a weight where it can be told without running the model; also for one that is not stored."""
        if value is None:
            return None
        if value.tensor is not None:
            return len(value.tensor.dims)
        node = value.producer
        try:
            if node is not None and node.is_standard and node.op_type == "ConstantOfShape":
                return int(self.fold(node.input(0)).values.size)
            return int(self.fold(value).values.ndim)
        except NotStoredError:
            return None


def _stored(tensor: onnx.TensorProto, folder: Path, origin: str) -> Constant:
    _shape(tensor, folder)
    try:
        stored = read_external(tensor, folder) if uses_external_data(tensor) else tensor
        values = numpy_helper.to_array(stored)
    except (*ODD, OSError, RuntimeError, ValidationError) as error:  # RuntimeError: from C++, of file names
        raise _unreadable(error, folder) from error
    return Constant(values, str(values.dtype), (origin,))


def _unreadable(error: BaseException, folder: Path) -> NotStoredError:
    return NotStoredError("unreadable", f"the weight's tensor cannot be read: {one_line(error, folder)}")


def _shape(tensor: onnx.TensorProto, folder: Path) -> tuple[int, ...]:
    """The shape that a tensor says it has. Raises NotStoredError where it cannot have it, or its data are not as long.

    Readers further down take negative numbers for "as many as there are", and cut what is too long.
    """
    if len(tensor.dims) > MAX_RANK:
        raise NotStoredError("unreadable", f"the weight's tensor says that it has rank {len(tensor.dims):,}")
    shape = tuple(map(int, tensor.dims))
    if min(shape, default=0) < 0 or math.prod(shape) > MAX_WEIGHTS:
        raise NotStoredError("unreadable", f"the weight's tensor says that it has shape {shape}")
    dtype = _dtype(tensor.data_type)
    if dtype.kind == "O":
        raise NotStoredError("dtype", "the weight's tensor is one of text")
    try:
        expected, found = _lengths(tensor, math.prod(shape), dtype, folder)
    except (*ODD, OSError) as error:
        raise _unreadable(error, folder) from error
    if expected != found:
        reason = f"the weight's tensor has data of length {found}, {dtype.name} of shape {shape} has {expected}"
        raise NotStoredError("unreadable", reason)
    return shape


def _lengths(tensor: onnx.TensorProto, count: int, dtype: np.dtype, folder: Path) -> tuple[int, int]:
    """How long a tensor's data have to be, and are: in bytes, or in entries of the field that they stand in."""
    packed = -(-count * PACKED_BITS.get(dtype.name, 8 * dtype.itemsize) // 8)
    if uses_external_data(tensor):
        return packed, external_length(tensor, folder)
    if tensor.HasField("raw_data"):
        return packed, len(tensor.raw_data)
    entries = packed if PACKED_BITS.get(dtype.name) in {2, 4} else 2 * count if dtype.kind == "c" else count
    return entries, len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))


def _constant(node: Node, constants: Constants) -> Constant:
    # By its name here: inside a function the attribute may be one of the call's, under another name.
    name, attribute = next(iter(node.attributes.items()), ("nothing", None))
    if attribute is None or name == "sparse_value":
        raise NotStoredError("sparse", f"the weight is a Constant node with {name}")
    if name == "value":
        return _stored(attribute.t, constants.folder, "Constant")
    dtype = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}.get(name)
    if dtype is None:
        raise NotStoredError("dtype", f"the weight is a Constant node with {name}")
    values = np.array(helper.get_attribute_value(attribute), dtype=dtype)
    return Constant(values, str(values.dtype), ("Constant",))


def _identity(node: Node, constants: Constants) -> Constant:
    constant = constants.fold(node.input(0))
    return constant.then(constant.values, "Identity")


def _cast(node: Node, constants: Constants) -> Constant:
    constant = constants.fold(node.input(0))
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


def _reshape(node: Node, constants: Constants) -> Constant:
    constant = constants.fold(node.input(0))
    shape = node.integers("shape")  # opset 1 to 4
    if shape is None:
        given = constants.fold(node.input(1)).values
        shape = [int(n) for n in given.ravel()[: MAX_RANK + 1]]
    # NumPy would take any negative number for the rest, and shapes of any length.
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


def _transpose(node: Node, constants: Constants) -> Constant:
    constant = constants.fold(node.input(0))
    order = node.integers("perm")
    rank = constant.values.ndim
    # NumPy would count negative axes from the end.
    if order is not None and sorted(order) != list(range(rank)):
        raise NotStoredError(
            "unreadable", f"the weight of rank {rank} is transposed by {order[:MAX_RANK]}, which does not fit"
        )
    return constant.then(np.transpose(constant.values, order), "Transpose")


def _dequantize_linear(node: Node, constants: Constants) -> Constant:
    constant = constants.fold(node.input(0))
    scale = constants.fold(node.input(1)).values
    zero_point = None if node.input(2) is None else constants.fold(node.input(2)).values
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


def _dtype(code: int) -> np.dtype:
    try:
        dtype: np.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(code))
        return dtype
    except (KeyError, TypeError, ValueError) as error:
        raise NotStoredError("dtype", f"the weight has the unknown ONNX type {code}") from error


_CASTABLE = {np.dtype(c) for c in "?bBhHiIlLefd"} | {np.dtype(ml_dtypes.bfloat16)}

_FOLDERS: dict[str, Callable[[Node, Constants], Constant]] = {
    "Constant": _constant,
    "Identity": _identity,
    "Cast": _cast,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "DequantizeLinear": _dequantize_linear,
}
