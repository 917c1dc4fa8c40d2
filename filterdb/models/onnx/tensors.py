"""Read the tensors of a model file: shapes from their headers, and values, checked against the length of the data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.checker import ValidationError
from onnx.external_data_helper import uses_external_data

from filterdb.models.onnx.external import MAX_RANK, PACKED_BITS, external_length, read_external
from filterdb.models.parse_errors import PARSE_ERRORS, NotStoredError, one_line

MAX_WEIGHTS = 2**29
"""Most numbers in a weight (2 GiB in float32). A larger one is invalid or is not a filter."""


def tensor_shape(tensor: onnx.TensorProto, folder: Path) -> tuple[int, ...]:
    """Return the shape that a tensor states, after checking it against the length of its data.

    Raises NotStoredError for an impossible shape and for data of another length. (The functions that decode tensors
    take negative numbers for "as many as there are", and cut data that is too long.)
    """
    if len(tensor.dims) > MAX_RANK:
        raise NotStoredError("unreadable", f"the weight's tensor says that it has rank {len(tensor.dims):,}")
    shape = tuple(map(int, tensor.dims))
    if min(shape, default=0) < 0 or math.prod(shape) > MAX_WEIGHTS:
        raise NotStoredError("unreadable", f"the weight's tensor says that it has shape {shape}")
    dtype = numpy_dtype(tensor.data_type)
    if dtype.kind == "O":
        raise NotStoredError("dtype", "the weight's tensor is one of text")
    _check_single_source(tensor)
    try:
        expected, got = _lengths(tensor, math.prod(shape), dtype, folder)
    except (*PARSE_ERRORS, OSError) as error:
        raise _unreadable(error, folder) from error
    if expected != got:
        reason = f"the weight's tensor has data of length {got}, {dtype.name} of shape {shape} has {expected}"
        raise NotStoredError("unreadable", reason)
    return shape


def tensor_values(tensor: onnx.TensorProto, folder: Path) -> np.ndarray:
    """Return the values of a tensor, whose data may be external. Raises NotStoredError."""
    tensor_shape(tensor, folder)
    try:
        stored = read_external(tensor, folder) if uses_external_data(tensor) else tensor
        return np.asarray(numpy_helper.to_array(stored))
    except MemoryError:
        raise
    except (*PARSE_ERRORS, OSError, RuntimeError, ValidationError) as error:  # RuntimeError: C++ code, for file names
        raise _unreadable(error, folder) from error


def sparse_values(tensor: onnx.SparseTensorProto, folder: Path) -> np.ndarray:
    """Convert a sparse tensor to a dense array. Raises NotStoredError."""
    shape = tuple(map(int, tensor.dims))
    if not 0 < len(shape) <= MAX_RANK or min(shape) < 0 or math.prod(shape) > MAX_WEIGHTS:
        raise NotStoredError("unreadable", f"the weight's sparse tensor says that it has shape {shape[:MAX_RANK]}")
    values = tensor_values(tensor.values, folder)
    indices = tensor_values(tensor.indices, folder)
    fits = values.ndim == 1 and indices.shape in {(values.size,), (values.size, len(shape))}
    if not fits or indices.dtype != np.int64:
        reason = f"the weight's sparse tensor has {values.shape} values at {indices.dtype} indices of {indices.shape}"
        raise NotStoredError("unreadable", reason)
    bounds = np.array(shape) if indices.ndim == 2 else math.prod(shape)
    if (indices < 0).any() or (indices >= bounds).any():
        raise NotStoredError("unreadable", f"the weight's sparse tensor has indices beyond its shape {shape}")
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return dense


def numpy_dtype(code: int) -> np.dtype:
    """Return the NumPy dtype of an ONNX data type. Raises NotStoredError if it is unknown."""
    try:
        dtype: np.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(code))
        return dtype
    except (KeyError, TypeError, ValueError) as error:
        raise NotStoredError("dtype", f"the weight has the unknown ONNX type {code}") from error


_TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def _check_single_source(tensor: onnx.TensorProto) -> None:
    """Raise NotStoredError for a tensor with values in two places, because runtimes differ in which they use."""
    places = [name for name in _TYPED if len(getattr(tensor, name))]
    places += ["raw_data"] if tensor.HasField("raw_data") else []
    places += ["external data"] if uses_external_data(tensor) else []
    if len(places) > 1:
        raise NotStoredError("ambiguous", f"the weight's tensor has values in {' and in '.join(places)}")


def _unreadable(error: BaseException, folder: Path) -> NotStoredError:
    return NotStoredError("unreadable", f"the weight's tensor cannot be read: {one_line(error, folder)}")


def _lengths(tensor: onnx.TensorProto, count: int, dtype: np.dtype, folder: Path) -> tuple[int, int]:
    """Return the required and the actual length of a tensor's data, in bytes or in entries of the field it is in."""
    packed = -(-count * PACKED_BITS.get(dtype.name, 8 * dtype.itemsize) // 8)
    if uses_external_data(tensor):
        return packed, external_length(tensor, folder)
    if tensor.HasField("raw_data"):
        return packed, len(tensor.raw_data)
    entries = packed if PACKED_BITS.get(dtype.name) in {2, 4} else 2 * count if dtype.kind == "c" else count
    return entries, len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
