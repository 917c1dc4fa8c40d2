"""Read the arrays that pandas pickles into HDF5 files, without running anything that the pickle names.

All operations of the pickle are checked first, and stand-ins in this module replace NumPy's constructors.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

MAX_OPCODES = 2**24
"""Most operations of one pickle; the published ones have about a million."""

_NAMES = """
    PROTO FRAME STOP GLOBAL STACK_GLOBAL REDUCE BUILD MARK NONE NEWTRUE NEWFALSE MEMOIZE BINPUT LONG_BINPUT BINGET
    LONG_BINGET EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS BININT BININT1 BININT2 LONG1 BINFLOAT
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
"""
_OPCODES = frozenset(_NAMES.split())
"""All operations that an array of plain values needs. They can refer to code only through `find_class`."""

_KINDS = frozenset({"O", "O8", "b1", "f2", "f4", "f8", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))})


def unpickle(data: bytes) -> np.ndarray:
    """Load an array of plain values from a pickle: texts, numbers, None, lists and arrays of integers.

    Raises UnpicklingError for any other object, and whatever `pickle` and NumPy raise for a damaged pickle.
    """
    _scan(data)
    array = _Unpickler(data).load()
    if not isinstance(array, _Array) or array.values.dtype.kind != "O":
        raise pickle.UnpicklingError("another object")
    return array.values


def _scan(data: bytes) -> None:
    """Check all operations of a pickle before any of them runs."""
    stored = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"the operation {opcode.name}")
        if number >= MAX_OPCODES:
            raise pickle.UnpicklingError(f"more than {MAX_OPCODES:,} operations")
        if opcode.name in {"BINPUT", "LONG_BINPUT"} and (argument is None or argument > stored):
            # pickle allocates a memo with as many entries as the largest index, so a large index takes memory.
            raise pickle.UnpicklingError(f"entry {argument} of a memo of {stored}")
        stored += opcode.name in {"MEMOIZE", "BINPUT", "LONG_BINPUT"}


class _Unpickler(pickle.Unpickler):
    """An unpickler that accepts a few names and replaces each with a stand-in."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.room = len(data)
        self.stand_ins: dict[str, object] = {"numpy.dtype": _Dtype, "numpy.ndarray": object()}
        for core in ("numpy.core", "numpy._core"):
            self.stand_ins[f"{core}.multiarray._reconstruct"] = lambda *_: _Array(self)
            self.stand_ins[f"{core}.multiarray.scalar"] = lambda dtype, data: self.array(data, dtype, (1,), "C").item()
            self.stand_ins[f"{core}.numeric._frombuffer"] = self.array

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.stand_ins:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return self.stand_ins[f"{module}.{name}"]

    def array(self, data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
        """Make an array from a list of objects or from the bytes of numbers, after checking all arguments."""
        # The pickle contains each value of each array. If arrays have more values, it reuses them, like a zip bomb.
        self.room -= len(data)
        if self.room < 0:
            raise pickle.UnpicklingError("arrays of more values than it has")
        if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape) or order not in ("C", "F"):
            raise pickle.UnpicklingError("an array of an odd shape")
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a dtype")
        is_list = dtype.numpy.kind == "O"
        size = math.prod(shape) * (1 if is_list else dtype.numpy.itemsize)
        if type(data) not in ({list} if is_list else {bytes, bytearray}) or len(data) != size:
            raise pickle.UnpicklingError("an array whose shape is not that of its values")
        if is_list:  # pickled in C order, whatever the array's order was
            return np.fromiter(map(_plain, data), dtype=object, count=size).reshape(shape)
        return np.frombuffer(bytes(data), dtype.numpy).reshape(shape, order=order)


class _Dtype:
    """Stand-in for numpy.dtype: a code and a byte order."""

    def __init__(self, code: Any, *_: object) -> None:
        if code not in _KINDS:
            raise pickle.UnpicklingError(f"an array of {code!r}")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) < 5 or state[1] not in ("|", "<", ">", "=") or state[2:5] != (None, None, None):
            raise pickle.UnpicklingError("a compound dtype")
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """Stand-in for numpy.ndarray: values that have been checked."""

    def __init__(self, reader: _Unpickler) -> None:
        self.reader = reader
        self.values = np.empty(0, dtype=object)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.values = self.reader.array(data, dtype, shape, "F" if is_fortran else "C")


def _plain(value: object) -> object:
    """Return a cell if it is a text, a number, None, or ids (a list or an array of integers, checked when used)."""
    if isinstance(value, _Array):
        value = value.values
    if value is None or type(value) in {str, int, float, bool, list}:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu":
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__.strip('_')} in an array")
