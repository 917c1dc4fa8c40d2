"""Results as the page's scripts read them: short numbers, and text that cannot leave its place."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

EXACT = 20_000
"""Up to this many numbers are sent as float32; more of them as 16-bit logarithms, within 0.03 %."""

LOWEST, HIGHEST = 1e-12, 1e4
"""Where the 16-bit logarithms begin and end."""

_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def pack(values: np.ndarray) -> dict[str, str]:
    """An array as base64 of little-endian numbers: `t` names the type, `d` holds the bytes."""
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
    """Positive numbers as 16-bit steps of their logarithm; 0 is 0, 65,535 is not a number."""
    step = (np.log(HIGHEST) - np.log(LOWEST)) / 65_533
    inside = np.clip(values, LOWEST, HIGHEST)
    codes = np.where(values > 0, 1 + np.rint((np.log(inside) - np.log(LOWEST)) / step), 0.0)
    return np.where(np.isfinite(values), codes, 65_535).astype("<u2")


def text(value: Any) -> str:
    """JSON that may stand in a script element: no `<`, `>` or `&`, no line separator of JavaScript's, no NaN."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def script(name: str, value: Any) -> bytes:
    """A data file of the page, a call of `filterdb.put`."""
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
