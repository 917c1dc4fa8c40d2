"""Read the values of constant tensors: stored ones of any type, and what simple operators make of them."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import BinaryIO

import ml_dtypes  # noqa: F401 - registers bfloat16 and float8 with NumPy
import numpy as np

from filterdb.models.parse_errors import NotStoredError
from filterdb.models.tflite.flatbuffer import Span
from filterdb.models.tflite.graph import NO_TENSOR, SOURCES, Graph, Quantization, Tensor
from filterdb.models.tflite.schema import BITS
from filterdb.models.tflite.sparse import densify

MAX_CHAIN = 16
"""Most operators between a stored tensor and the convolution that uses it."""

_RESHAPING = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
_CONVERTING = {"DEQUANTIZE", "CAST", "DENSIFY"}
_FLOATING = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")
_INTEGERS = ("int8", "uint8", "int16", "int4", "uint4", "int2")


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that is computed from a stored one.

    `steps` are the operators in between, in the order of execution, with the tensors that they write; for a TRANSPOSE
    also the order of the dimensions.
    """

    stored: Tensor
    steps: tuple[tuple[str, Tensor, tuple[int, ...]], ...] = field(repr=False)

    @property
    def path(self) -> tuple[str, ...]:
        """The name of the stored tensor, and those of the operators."""
        return self.stored.name, *(name for name, _, _ in self.steps)

    @property
    def place(self) -> Hashable:
        """Identity of the stored values."""
        return self.stored.data

    @property
    def scale_known(self) -> bool:
        """Whether the file says which numbers the stored integers mean."""
        return self.stored.dtype not in _INTEGERS or self.stored.quantization is not None

    def values(self, file: BinaryIO) -> np.ndarray:
        """Return the values. Raises NotStoredError, or what parsers raise."""
        values = stored_values(self.stored, file)
        for name, tensor, order in self.steps:
            if name in _RESHAPING:
                values = values.reshape(tensor.shape) if values.size == math.prod(tensor.shape) else values
            elif name == "TRANSPOSE":
                values = values.transpose(order)
            else:
                if tensor.dtype not in _FLOATING and tensor.dtype not in _INTEGERS:
                    raise NotStoredError("unsupported", f"the weight is converted to {tensor.dtype} by {name}")
                if tensor.dtype in _FLOATING:
                    values = values.astype(tensor.dtype, copy=False)
            if values.shape != tensor.shape:
                raise NotStoredError("unreadable", f"{name} makes shape {values.shape}, expected {tensor.shape}")
        return values


def trace(graph: Graph, index: int) -> Constant:
    """Find the stored tensor that a tensor is computed from. Raises NotStoredError if it is not constant."""
    steps: list[tuple[str, Tensor, tuple[int, ...]]] = []
    for _ in range(MAX_CHAIN + 1):
        if index == NO_TENSOR:
            raise NotStoredError("missing", "the convolution has no weight input")
        tensor = graph.tensor(index)
        writers = graph.producers.get(index, [])
        if index in graph.live or tensor.is_variable:
            raise NotStoredError("computed", "the weight depends on an input of the model or on a random operator")
        if not writers:
            _require_values(tensor)
            return Constant(tensor, tuple(reversed(steps)))
        if len(writers) > 1 or tensor.data is not None:
            raise NotStoredError("ambiguous", "the weight's tensor has its values in two places")
        operator = graph.operators[writers[0]]
        if operator.name in SOURCES or operator.name not in _RESHAPING | _CONVERTING | {"TRANSPOSE"}:
            raise NotStoredError("unsupported", f"the weight is the result of {operator.name}")
        order = _order(graph, operator.input(1)) if operator.name == "TRANSPOSE" else ()
        steps.append((operator.name, tensor, order))
        index = operator.input(0)
        if operator.name == "CAST" and index != NO_TENSOR and graph.tensor(index).dtype not in _FLOATING:
            raise NotStoredError("unsupported", "the weight is the CAST of integers")
    raise NotStoredError("unreadable", f"more than {MAX_CHAIN} operators compute the weight")


def _require_values(tensor: Tensor) -> None:
    if tensor.is_external:
        raise NotStoredError("unsupported", "the weight is in another file; convert the model to one file")
    if tensor.data is None and 0 not in tensor.shape:
        raise NotStoredError("missing", "the weight's tensor has no values")


def _order(graph: Graph, index: int) -> tuple[int, ...]:
    """Return the order of the dimensions that a TRANSPOSE has as its second input. Raises NotStoredError."""
    tensor = None if index == NO_TENSOR or index in graph.producers else graph.tensor(index)
    if tensor is None or tensor.data is None or tensor.dtype != "int32" or tensor.data.length > 64:
        raise NotStoredError("unsupported", "the weight is transposed in an order that is not stored")
    span = tensor.data
    return tuple(np.frombuffer(graph.model.buffer.data, "<i4", span.length // 4, span.start).tolist())


def stored_values(tensor: Tensor, file: BinaryIO) -> np.ndarray:
    """Return the values of a stored tensor as real numbers. Raises NotStoredError, or what parsers raise."""
    if tensor.dtype not in _FLOATING and tensor.dtype not in _INTEGERS:
        raise NotStoredError("dtype", f"the weight's type is {tensor.dtype}, which no convolution uses")
    count = math.prod(tensor.shape)
    if tensor.sparsity is not None:
        values = densify(tensor.sparsity, tensor.shape, _decoded(tensor, None, file))
    else:
        values = _decoded(tensor, count, file).reshape(tensor.shape)
    if tensor.dtype in _FLOATING or tensor.quantization is None:
        return values
    return _dequantized(values, tensor.quantization)


def _decoded(tensor: Tensor, count: int | None, file: BinaryIO) -> np.ndarray:
    """Return the stored numbers in one dimension; `count` of them, or all if it is None."""
    data = tensor.data or Span(0, 0)
    bits = BITS.get(tensor.dtype)
    if bits is None:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        expected = data.length if count is None else count * dtype.itemsize
    else:
        dtype = np.dtype(np.uint8)
        expected = data.length if count is None else -(-count * bits // 8)
    if data.length != expected:
        shape = "×".join(map(str, tensor.shape))
        raise NotStoredError(
            "unreadable", f"{tensor.dtype} of shape {shape} takes {expected:,} bytes, got {data.length:,}"
        )
    file.seek(data.start)
    numbers: np.ndarray = np.fromfile(file, dtype, data.length // dtype.itemsize)
    if numbers.nbytes != data.length:
        raise NotStoredError("unreadable", f"expected {data.length:,} bytes at {data.start:,}, got {numbers.nbytes:,}")
    return numbers if bits is None else _unpacked(numbers, bits, tensor.dtype.startswith("int"))[:count]


def _unpacked(packed: np.ndarray, bits: int, is_signed: bool) -> np.ndarray:
    """Return integers of a few bits each, of which the first is in the lowest bits of a byte."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    numbers: np.ndarray = (packed[:, None] >> shifts & (2**bits - 1)).astype(np.int8).reshape(-1)
    return np.where(numbers >= 2 ** (bits - 1), numbers - 2**bits, numbers).astype(np.int8) if is_signed else numbers


def _dequantized(values: np.ndarray, quantization: Quantization) -> np.ndarray:
    """Return scale · (integer − zero point) in float32, bit for bit as TensorFlow Lite's reference kernel does.

    With a zero point that is not 0, which only uint8 models have, its fast kernels on x86 round once more.
    """
    if not quantization.is_supported:
        raise NotStoredError("unsupported", "the weight is quantised in blocks, which is not read")
    scale, zero_point = quantization.scale, quantization.zero_point
    if not len(zero_point):
        zero_point = np.zeros(1, np.int64)
    if zero_point.min() < -(2**15) or zero_point.max() >= 2**16:
        raise NotStoredError("unreadable", "a zero point of the weight is outside the range of its type")
    shape = [1] * values.ndim
    channels = 1
    if len(scale) > 1:
        if not 0 <= quantization.axis < values.ndim:
            reason = f"its weight has scales along dimension {quantization.axis} of {values.ndim}"
            raise NotStoredError("unreadable", reason)
        channels = shape[quantization.axis] = values.shape[quantization.axis]
    if len(scale) != channels or len(zero_point) not in {1, channels}:
        got = f"{len(scale)} scales and {len(zero_point)} zero points"
        raise NotStoredError("unreadable", f"the weight has {got} for {channels} channels")
    zeros = zero_point.reshape(shape if len(zero_point) > 1 else [1] * values.ndim).astype(np.int32)
    dequantized: np.ndarray = (values.astype(np.int32) - zeros).astype(np.float32) * scale.reshape(shape)
    return dequantized
