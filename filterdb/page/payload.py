"""Encode results for the page's scripts: compact numbers, and text that cannot break out of its element."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

EXACT = 20_000
"""Arrays of at most this many numbers are float32; larger ones are 16-bit logarithms, exact to 0.03 %."""

LOWEST, HIGHEST = 1e-12, 1e4
"""Range of the 16-bit logarithms."""

_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def pack(values: np.ndarray) -> dict[str, str]:
    """Encode an array as base64 of little-endian numbers: `t` is the type, `d` the bytes."""
    if values.dtype.kind == "b" or (values.dtype.kind in "iu" and values.min(initial=0) >= 0):
        largest = int(values.max(initial=0))
        kind = next((name for name, most in (("u1", 2**8), ("u2", 2**16), ("u4", 2**32)) if largest < most), "f4")
    elif values.dtype == np.int8:
        kind = "i1"
    else:
        kind = "f4" if values.size <= EXACT or values.min(initial=0) < 0 else "l2"
    raw = logarithms(values) if kind == "l2" else values.astype(f"<{kind}")
    return {"t": kind, "d": base64.b64encode(raw.tobytes()).decode()}


def logarithms(values: np.ndarray) -> np.ndarray:
    """Convert positive numbers to 16-bit steps of their logarithm; 0 stands for 0, 65,535 for NaN."""
    step = (np.log(HIGHEST) - np.log(LOWEST)) / 65_533
    inside = np.clip(values, LOWEST, HIGHEST)
    codes = np.where(values > 0, 1 + np.rint((np.log(inside) - np.log(LOWEST)) / step), 0.0)
    return np.where(np.isfinite(values), codes, 65_535).astype("<u2")


def text(value: Any) -> str:
    """Return JSON that is safe in a script element: without `<`, `>`, `&`, JavaScript's line separators and NaN."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def script(name: str, value: Any) -> bytes:
    """Return a data file of the page: a script that calls `filterdb.put`."""
    return f"filterdb.put({text(name)},{text(value)});\n".encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
