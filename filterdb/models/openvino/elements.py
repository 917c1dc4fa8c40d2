"""Decode the element types of OpenVINO's constants, with small numbers packed into bytes as OpenVINO packs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np


@dataclass(frozen=True, slots=True)
class Element:
    """An element type: its name in our tables, its bits, and how an array of bytes is decoded.

    `decode` gets the bytes and the count of numbers.
    """

    name: str
    bits: int
    decode: Callable[[np.ndarray, int], np.ndarray]

    def size(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of an array of this shape."""
        return -(-math.prod(shape) * self.bits // 8)


def _plain(dtype: np.dtype) -> Element:
    def decode(data: np.ndarray, count: int) -> np.ndarray:
        return data[: count * dtype.itemsize].view(dtype)

    return Element(dtype.name, 8 * dtype.itemsize, decode)


def _packed(name: str, bits: int, values: np.ndarray, *, highest_first: bool = False) -> Element:
    """Return the type of numbers of `bits` bits, whose codes stand for `values`. The lowest bits come first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    shifts = shifts[::-1] if highest_first else shifts

    def decode(data: np.ndarray, count: int) -> np.ndarray:
        # One lookup of a byte gives all of its numbers.
        codes = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & (2**bits - 1)
        unpacked: np.ndarray = values[codes][data]
        return unpacked.reshape(-1)[:count]

    return Element(name, bits, decode)


_NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
"""The 16 values of NormalFloat4 (QLoRA, arXiv 2305.14314, appendix E)."""

ELEMENTS = {
    **{name: _plain(np.dtype(np.float16)) for name in ("f16", "fp16")},
    **{name: _plain(np.dtype(np.float32)) for name in ("f32", "fp32")},
    **{name: _plain(np.dtype(np.float64)) for name in ("f64", "fp64")},
    "bf16": _plain(np.dtype(ml_dtypes.bfloat16)),
    "f8e4m3": _plain(np.dtype(ml_dtypes.float8_e4m3fn)),
    "f8e5m2": _plain(np.dtype(ml_dtypes.float8_e5m2)),
    "f8e8m0": _plain(np.dtype(ml_dtypes.float8_e8m0fnu)),
    **{f"{kind}{bits}": _plain(np.dtype(f"{kind}{bits // 8}")) for kind in "iu" for bits in (8, 16, 32, 64)},
    "boolean": _plain(np.dtype(np.bool_)),
    "i4": _packed("int4", 4, np.array([*range(8), *range(-8, 0)], np.int8)),
    "u4": _packed("uint4", 4, np.arange(16, dtype=np.uint8)),
    "u2": _packed("uint2", 2, np.arange(4, dtype=np.uint8)),
    "u1": _packed("uint1", 1, np.arange(2, dtype=np.uint8), highest_first=True),
    "nf4": _packed("nf4", 4, _NF4),
    "f4e2m1": _packed("float4_e2m1fn", 4, np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype("f4")),
}
"""The element types that are read, by OpenVINO's names in lower case."""

DTYPES = {name: element.decode(np.zeros(8, np.uint8), 1).dtype for name, element in ELEMENTS.items()}
"""The NumPy dtypes of their arrays. Packed numbers are unpacked."""
