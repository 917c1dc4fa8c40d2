"""Apply the layers between a constant and its convolution, as OpenVINO's reference implementation computes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

from filterdb.models.openvino.document import Layer, integer
from filterdb.models.openvino.elements import DTYPES
from filterdb.models.parse_errors import NotStoredError, shortened

MAX_RANK = 64
"""Most dimensions of an array (NumPy's limit)."""

MAX_WEIGHTS = 2**29
"""Most numbers in a weight (2 GiB in float32). A larger one is invalid or is not a filter."""

_FLOATS = {np.dtype(c) for c in "efd"} | {np.dtype(ml_dtypes.bfloat16)}
"""The types in which layers compute."""


def result_shape(layer: Layer, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of the result of an elementwise layer. Raises NotStoredError if its operands do not fit."""
    spread = layer.data.get("auto_broadcast", "numpy")
    try:
        shape = np.broadcast_shapes(*shapes) if spread == "numpy" or len(set(shapes)) < 2 else None
    except ValueError:
        shape = None
    if shape is None:
        reason = f"the weight's {layer.type} has operands of shapes {', '.join(map(str, shapes))}, broadcast {spread!r}"
        raise NotStoredError("unreadable", reason)
    if math.prod(shape) > MAX_WEIGHTS:
        raise NotStoredError("unreadable", f"the weight's {layer.type} has {math.prod(shape):,} numbers")
    return shape


def reshaped(layer: Layer, shape: tuple[int, ...], target: np.ndarray) -> tuple[int, ...]:
    """Return the shape that Reshape gives an array of `shape`. Raises NotStoredError if `target` is no such shape."""
    wanted = [int(n) for n in target.reshape(-1)[: MAX_RANK + 1]]
    if layer.data.get("special_zero", "false").strip().lower() in {"true", "1"}:
        wanted = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(wanted)]
    rest = math.prod(n for n in wanted if n != -1)
    if wanted.count(-1) == 1 and rest > 0:
        wanted[wanted.index(-1)] = math.prod(shape) // rest
    if len(wanted) > MAX_RANK or min(wanted, default=0) < 0 or math.prod(wanted) != math.prod(shape):
        reason = f"the weight of shape {shape} is reshaped to {wanted[:MAX_RANK]}, which does not fit"
        raise NotStoredError("unreadable", reason)
    return tuple(wanted)


def check_inputs(layer: Layer) -> None:
    """Raise NotStoredError for a layer that is not evaluated, and for one that has too few inputs."""
    if layer.type not in _OPERATORS:
        reason = f"the weight is computed by {shortened(layer.type, 60)}, which filterdb does not evaluate"
        raise NotStoredError("unsupported", reason)
    needed, got = _INPUTS.get(layer.type, 1), len(layer.inputs)
    if got < needed:
        raise NotStoredError("unreadable", f"the weight's {layer.type} has {got} inputs, expected {needed}")


def apply(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Compute a layer that `check_inputs` accepts. Raises NotStoredError, and whatever NumPy raises."""
    with np.errstate(all="ignore"):
        return _OPERATORS[layer.type](layer, inputs)


def _convert(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    target = layer.data.get("destination_type", "").strip().lower()
    dtype = DTYPES.get(target)
    if dtype is None:
        raise NotStoredError("dtype", f"the weight is converted to the type {shortened(repr(target), 40)}")
    values = inputs[0]
    whole = dtype.kind in "iu" and values.dtype.kind in "biu" and dtype.itemsize > 1
    if dtype != values.dtype and dtype not in _FLOATS and not whole:
        # Types of 8 bits and fewer have rules of their own for saturation and rounding.
        raise NotStoredError("unsupported", f"the weight is converted from {values.dtype} to {target}")
    return values.astype(dtype)


def _arithmetic(compute: np.ufunc) -> Callable[[Layer, Sequence[np.ndarray]], np.ndarray]:
    def apply_to(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
        first, second = _same_floats(layer, inputs[:2])
        result_shape(layer, [first.shape, second.shape])
        values: np.ndarray = compute(first, second)
        return values

    return apply_to


def _same_floats(layer: Layer, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Return the operands of a layer. Raises NotStoredError unless they have the same floating type."""
    dtypes = {values.dtype for values in inputs}
    if len(dtypes) > 1:
        names = ", ".join(sorted(map(str, dtypes)))
        raise NotStoredError("unreadable", f"the weight's {layer.type} has operands of the types {names}")
    if not dtypes <= _FLOATS:
        raise NotStoredError("unsupported", f"the weight's {layer.type} computes with {inputs[0].dtype}")
    return inputs


def _fake_quantize(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Compute FakeQuantize: round to `levels` steps between two limits, and map these to two other limits."""
    operands = _same_floats(layer, inputs[:5])
    shape = result_shape(layer, [array.shape for array in operands])
    levels = integer(layer.data.get("levels"))
    if levels < 2:
        raise NotStoredError("unreadable", f"the weight's FakeQuantize has {levels} levels")
    # The reference implementation computes with at least float32.
    dtype = np.promote_types(operands[0].dtype, np.float32)
    values, low, high, out_low, out_high = (array.astype(dtype) for array in operands)
    steps = dtype.type(levels - 1)
    rounded = np.rint((values - low) / (high - low) * steps) / steps * (out_high - out_low) + out_low
    rounded = np.where(values <= np.minimum(low, high), out_low, rounded)
    rounded = np.where(values > np.maximum(low, high), out_high, rounded)
    return np.broadcast_to(rounded.astype(operands[0].dtype), shape)


def _reshape(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    return inputs[0].reshape(reshaped(layer, inputs[0].shape, inputs[1]))


def _transpose(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    order = [int(n) for n in inputs[1].reshape(-1)[: MAX_RANK + 1]]
    rank = inputs[0].ndim
    if order and sorted(order) != list(range(rank)):
        raise NotStoredError("unreadable", f"the weight of rank {rank} is transposed by {order[:MAX_RANK]}")
    return inputs[0].transpose(order or None)


def _squeeze(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    axes = [int(n) for n in inputs[1].reshape(-1)[: MAX_RANK + 1]] if len(inputs) > 1 else []
    return inputs[0].squeeze(tuple(axes) if axes else None)


def _unsqueeze(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    axes = [int(n) for n in inputs[1].reshape(-1)[: MAX_RANK + 1]]
    return np.expand_dims(inputs[0], tuple(axes))


ARITHMETIC = {"Add": np.add, "Subtract": np.subtract, "Multiply": np.multiply, "Divide": np.divide}
"""The layers that compute with two arrays, number by number."""

_OPERATORS: dict[str, Callable[[Layer, Sequence[np.ndarray]], np.ndarray]] = {
    **{name: _arithmetic(compute) for name, compute in ARITHMETIC.items()},
    "Convert": _convert,
    "FakeQuantize": _fake_quantize,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

_INPUTS = {**dict.fromkeys(ARITHMETIC, 2), "FakeQuantize": 5, "Reshape": 2, "Transpose": 2, "Unsqueeze": 2}
"""The inputs that a layer needs, if it needs more than one."""
