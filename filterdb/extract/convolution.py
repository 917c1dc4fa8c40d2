"""What the weight of a convolution node is: Conv, QLinearConv, ConvInteger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from filterdb.extract.constants import Constant, Constants, NotStoredError, dequantize
from filterdb.extract.graph import Node, Value
from filterdb.schema import KERNEL, WEIGHTS

WEIGHT_INPUT = {"Conv": 1, "QLinearConv": 3, "ConvInteger": 1}
"""The operators whose weights are stored, and where the weight stands among their inputs."""

MAX_STEPS = 16
"""How far a ConvInteger's scale is looked for."""

MAX_FACTORS = 1_000
"""Values among which it is looked for: a product may have many factors, each of them a product."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A decoded weight: filters (n, 9) float32, C order of (out, in), each flattened row-major."""

    filters: np.ndarray
    source_dtype: str
    path: tuple[str, ...]
    scale_known: bool


def is_convolution(node: Node) -> bool:
    """Whether the node convolves at all, in any form and domain: it is stored or stands in the ledger."""
    return "Conv" in node.op_type and not node.is_call


def is_supported(node: Node) -> bool:
    """Whether the node is a form whose weights can be stored."""
    return node.is_standard and node.op_type in WEIGHT_INPUT


def has_rank_4(node: Node, constants: Constants) -> bool:
    """Whether the convolution is two-dimensional; judged by `kernel_shape` where the weight is computed."""
    rank = constants.rank(weight_value(node))
    if rank is None:
        kernel = node.integers("kernel_shape")
        rank = 2 + len(kernel) if kernel else None
    return rank == 4


def weight_value(node: Node) -> Value | None:
    """The value at the weight's input."""
    return node.input(WEIGHT_INPUT[node.op_type])


def weight_shape(node: Node, constants: Constants) -> tuple[int, ...]:
    """Shape of the weight; read from the tensor's head where it stands there. Raises NotStoredError if not constant."""
    return constants.shape(weight_value(node))


def read_weight(node: Node, constants: Constants) -> Weight:
    """Decode the weight of a 3×3 convolution. Raises NotStoredError where that cannot be done."""
    constant = constants.fold(weight_value(node))
    scale_known = True
    values = constant.values
    if values.ndim != 4 or values.shape[2:] != KERNEL:
        raise NotStoredError("unreadable", f"the weight's tensor has shape {values.shape}")
    if values.dtype.kind in "SUOTbcM":
        raise NotStoredError("dtype", f"the weight has dtype {values.dtype}, which is no number")
    if node.op_type == "QLinearConv":
        zero_point = _optional(node.input(5), constants)
        values = dequantize(values, constants.fold(node.input(4)).values, zero_point, axis=0)
        constant = constant.then(values, "QLinearConv")
    elif node.op_type == "ConvInteger":
        scale = _downstream_scale(node, constants, values.shape[0])
        scale_known = scale is not None
        one = np.ones((), np.float32)
        values = dequantize(values, one if scale is None else scale, _optional(node.input(3), constants), axis=0)
        constant = constant.then(values, "ConvInteger")
    with np.errstate(over="ignore"):
        filters = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, WEIGHTS)
    if not np.isfinite(filters).all():
        bad = int(np.count_nonzero(~np.isfinite(filters)))
        raise NotStoredError("nonfinite", f"{bad} of {filters.size} weights are NaN or infinite in float32")
    return Weight(filters, constant.source_dtype, constant.path, scale_known)


def _optional(value: Value | None, constants: Constants) -> np.ndarray | None:
    return None if value is None else constants.fold(value).values


def _downstream_scale(node: Node, constants: Constants, channels: int) -> np.ndarray | None:
    """The constant by which a ConvInteger's result is multiplied, a scalar or one per channel; None if not found."""
    value = node.outputs[0]
    for _ in range(MAX_STEPS):
        # A call consumes by what is inside the function.
        consumers = [consumer for consumer in value.consumers if not consumer.is_call]
        if len(consumers) != 1 or not consumers[0].is_standard:
            return None
        (consumer,) = consumers
        if consumer.op_type == "Mul":
            # Seen from inside a body the value is another object with the same consumers.
            others = [other for other in consumer.inputs if other and other.consumers is not value.consumers]
            factors = _constant_factors(others[0], constants) if len(others) == 1 else []
            if factors:
                return _per_channel(factors, channels)
        elif consumer.op_type not in {"Cast", "Identity"}:
            return None
        value = consumer.outputs[0]
    return None


def _constant_factors(value: Value | None, constants: Constants) -> list[Constant]:
    """The constants among the factors of a product (of an input's scale, not constant, and the weight's).

    Empty where there are too many values to look at.
    """
    found: list[Constant] = []
    pending = [(value, MAX_STEPS)]
    for _ in range(MAX_FACTORS):
        if not pending:
            return found
        operand, steps = pending.pop()
        try:
            found.append(constants.fold(operand))
        except NotStoredError:
            node = None if operand is None else operand.producer
            through = node is not None and node.is_standard and node.op_type in {"Mul", "Cast", "Identity"}
            if steps and node is not None and through and len(node.inputs) <= 2:
                pending += [(factor, steps - 1) for factor in reversed(node.inputs)]
    return []


def _per_channel(factors: list[Constant], channels: int) -> np.ndarray | None:
    """The product of factors that are scalars or one number per channel of an NCHW tensor."""
    scale = np.ones((), np.float32)
    for factor in factors:
        values = factor.values.astype(np.float32)
        if values.size == 1:
            scale = scale * values.reshape(())
        elif values.shape in {(channels, 1, 1), (1, channels, 1, 1)}:
            scale = scale * values.reshape(channels)
        else:
            return None
    return scale if factors else None
