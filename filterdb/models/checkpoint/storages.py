"""The storages and tensors of a checkpoint: what the pickle says of them, and how their values are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from filterdb.models.checkpoint.pickles import Instance, Name
from filterdb.models.parse_errors import MAX_NAME, NotStoredError, shortened

MAX_RANK = 64

_MLDTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")

DTYPES: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "bool", "complex64", "complex128")},
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _MLDTYPES},
}
"""The types of PyTorch that can be read, by its names, which are those of NumPy and ml_dtypes."""

_STORAGES = {
    **{"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Byte": "uint8"},
    **{"Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Bool": "bool"},
    **{"ComplexFloat": "complex64", "ComplexDouble": "complex128"},
    **{"QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32", "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4"},
    **{"Untyped": "uint8"},
}
"""The types of PyTorch's storage classes."""

_SIZES = {"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1}
"""Bytes per number of the types that are only skipped."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage of a checkpoint, or a view of one: `count` numbers of a type, from the number `start` on."""

    key: str
    dtype: str
    count: int
    start: int = 0

    @property
    def item_bytes(self) -> int:
        """Bytes per number."""
        return DTYPES[self.dtype].itemsize if self.dtype in DTYPES else _SIZES[self.dtype]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as the pickle states it: a view of a storage. Offset and strides count numbers of its type."""

    storage: Storage | None
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def values(self, read: Callable[[Storage, int, int], bytes], *, is_big_endian: bool) -> np.ndarray:
        """Return its values as a view of the bytes that it needs, which `read(storage, first, length)` returns.

        Raises NotStoredError if it has no values or a type that is not read, ValueError if the storage is too short.
        """
        if self.storage is None:
            raise NotStoredError("missing", "the tensor has no data: it was saved from the device `meta`")
        dtype = DTYPES.get(self.dtype)
        if dtype is None:
            raise NotStoredError("dtype", f"the tensor has dtype {shortened(self.dtype, 40)}, which is not read")
        if 0 in self.shape:
            return np.empty(self.shape, dtype)
        reach = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)) + 1
        length = self.storage.count * self.storage.item_bytes
        if (self.offset + reach) * dtype.itemsize > length:
            needed = (self.offset + reach) * dtype.itemsize
            raise ValueError(f"expected a storage of at least {needed:,} bytes, got {length:,}")
        start = self.storage.start * self.storage.item_bytes + self.offset * dtype.itemsize
        data = read(self.storage, start, reach * dtype.itemsize)
        if is_big_endian:
            part = dtype.itemsize // (2 if dtype.kind == "c" else 1)
            data = np.frombuffer(data, np.uint8).reshape(-1, part)[:, ::-1].tobytes()
        # NumPy checks once more that shape and strides stay inside these bytes.
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.ndarray(self.shape, dtype, data, strides=strides)


def storage_of(pid: Any) -> Storage:
    """Return the storage that a persistent id names. Raises TypeError or ValueError if it is no valid id.

    The id is ("storage", class, key, device, count), and in the form before PyTorch 1.6 also a view: None, or (key,
    start, count).
    """
    if type(pid) is not tuple or not 5 <= len(pid) <= 6 or pid[0] != "storage":
        raise TypeError("a persistent id that names no storage")
    _, kind, key, _, count = pid[:5]
    view = pid[5] if len(pid) == 6 else None
    dtype = _storage_dtype(kind)
    if type(key) not in (str, int) or (type(key) is str and len(key) > MAX_NAME):
        raise TypeError("a storage whose key is neither a text nor a number")
    _require_counts((count, *(view[1:] if type(view) is tuple else ())))
    if view is None:
        return Storage(str(key), dtype, count)
    if type(view) is not tuple or len(view) != 3 or view[1] + view[2] > count:
        raise ValueError("a view that reaches beyond its storage")
    return Storage(str(key), dtype, view[2], view[1])


def _storage_dtype(kind: Any) -> str:
    """Return the type of a storage class, such as torch.FloatStorage or torch.cuda.HalfStorage."""
    if isinstance(kind, Name):
        module, _, name = kind.name.rpartition(".")
        dtype = _STORAGES.get(name.removesuffix("Storage"))
        if module.split(".")[0] == "torch" and name.endswith("Storage") and dtype is not None:
            return dtype
        raise ValueError(f"a storage of class {shortened(kind.name, 100)}")
    raise TypeError("a storage whose class is no class")


def _require_counts(values: Any) -> None:
    """Raise ValueError unless all values are whole numbers from 0 on that fit 63 bits."""
    if not all(type(value) is int and 0 <= value < 2**63 for value in values):
        raise ValueError("sizes, strides or offsets that are no whole numbers from 0 on")


def _dims(values: Any) -> tuple[int, ...]:
    if isinstance(values, Instance):  # torch.Size of older versions
        values = values.args[0] if type(values.args) is tuple and values.args else None
    if type(values) not in (tuple, list) or len(values) > MAX_RANK:
        raise TypeError("a shape that is no tuple of numbers")
    _require_counts(values)
    return tuple(values)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    """Return the tensor of torch._utils._rebuild_tensor and of its second version."""
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return _view(storage, storage.dtype, offset, size, stride)


def _view(storage: Storage | None, dtype: str, offset: Any, size: Any, stride: Any) -> StoredTensor:
    shape, strides = _dims(size), _dims(stride)
    _require_counts((offset,))
    if math.prod(shape) >= 2**60:
        raise ValueError("a tensor of more than 2**60 numbers")
    if len(shape) != len(strides):
        raise ValueError(f"a tensor of {len(shape)} sizes and {len(strides)} strides")
    return StoredTensor(storage, dtype, offset, shape, strides)


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> StoredTensor:
    """Return the tensor of torch._utils._rebuild_tensor_v3, whose storage has no type."""
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return _view(storage, _dtype_name(dtype), offset, size, stride)


def _dtype_name(dtype: Any) -> str:
    if not isinstance(dtype, Name) or not dtype.name.startswith("torch."):
        raise TypeError("a tensor whose dtype is not one of torch's")
    return dtype.name.removeprefix("torch.")


def _quantised(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    """Return the tensor of torch._utils._rebuild_qtensor. Its scale is not read, so its type is that of its storage."""
    return _tensor(storage, offset, size, stride)


def _meta_tensor(dtype: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    """Return the tensor of torch._utils._rebuild_meta_tensor_no_storage, which has no values."""
    return _view(None, _dtype_name(dtype), 0, size, stride)


def _first(value: Any = None, *_: Any) -> Any:
    """Return the first argument. The others are attributes that are not needed."""
    return value


def _of_type(function: Any, _: Any, args: Any, *__: Any) -> Any:
    """Return the tensor of torch._tensor._rebuild_from_type_v2: one of a class of its own, that `function` makes."""
    own = FUNCTIONS.get(function.name) if isinstance(function, Name) else None
    if own is None or own is _of_type or type(args) is not tuple:
        return Instance("torch._tensor._rebuild_from_type_v2", args)
    return own(*args)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.nn.parameter.Parameter": _first,
    "torch.autograd.variable.Variable": _first,
    "torch.storage.TypedStorage": _first,
    "torch.Size": _first,
}
"""What stands for the functions of PyTorch that checkpoints call. Each only checks and keeps its arguments."""
