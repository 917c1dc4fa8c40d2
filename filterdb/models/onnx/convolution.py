"""Read the weight of a convolution node, in every form that exporters and optimisers write."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx

from filterdb.models.convolutions import as_filters
from filterdb.models.model import Weight, is_wanted, kernel_of
from filterdb.models.onnx.constants import Constant, Constants, dequantize
from filterdb.models.onnx.graph import Node, Value
from filterdb.models.parse_errors import NotStoredError
from filterdb.schema import Kernels


@dataclass(frozen=True, slots=True)
class Form:
    """A form of convolution: which inputs hold the weight and its quantisation, and how the weight is laid out.

    `weight`, `zero_point` and `scale` are input positions. `scaled_downstream`: a later node multiplies by the scale.
    `channels_last`: the weight is (out, height, width, in).
    """

    weight: int = 1
    zero_point: int | None = None
    scale: int | None = None
    scaled_downstream: bool = False
    channels_last: bool = False


_PLAIN = Form()
_QLINEAR = Form(weight=3, scale=4, zero_point=5)
_INTEGER = Form(zero_point=3, scaled_downstream=True)

FORMS = {
    ("", "Conv"): _PLAIN,
    ("", "QLinearConv"): _QLINEAR,
    ("", "ConvInteger"): _INTEGER,
    ("com.microsoft", "FusedConv"): _PLAIN,
    ("com.microsoft", "NhwcFusedConv"): _PLAIN,
    # Its documentation is copied from Conv, but its exporter (fusion_nhwc_conv.py) and kernels put channels last.
    ("com.microsoft", "NhwcConv"): Form(channels_last=True),
    ("com.microsoft", "QLinearConv"): _QLINEAR,
    # ONNX Runtime's layout transformation transposes only the first input and the output, never the weight.
    ("com.ms.internal.nhwc", "Conv"): _PLAIN,
    ("com.ms.internal.nhwc", "FusedConv"): _PLAIN,
    ("com.ms.internal.nhwc", "QLinearConv"): _QLINEAR,
    ("com.ms.internal.nhwc", "ConvInteger"): _INTEGER,
}
"""The forms whose weights can be read, by domain and operator."""

_CONVOLUTION = re.compile(r"conv(?!ert)", re.IGNORECASE)
_TRANSPOSED = re.compile(r"convtranspose|deconv|transposed?conv", re.IGNORECASE)
_BLOCKED_DOMAIN = "com.microsoft.nchwc"

MAX_STEPS = 16
"""Most nodes between a convolution and the batch normalisation, or the scale of a ConvInteger, that belongs to it."""

MAX_VALUES = 1_000
"""Most values in that search: a product may have many factors, each of them a product."""


def is_convolution(node: Node) -> bool:
    """Return whether the node is a convolution of any form and domain, so that it is stored or in the ledger."""
    if node.op_type == "ATen" and "operator" in node.attributes:  # PyTorch's fallback for what it cannot export
        return _CONVOLUTION.search(node.attributes["operator"].s.decode("utf-8", "replace")) is not None
    return _CONVOLUTION.search(node.op_type) is not None and not node.is_call


def form_of(node: Node) -> Form | None:
    """Return the node's form; None if the weights of such nodes cannot be read."""
    return None if node.is_call else FORMS.get(("" if node.is_standard else node.domain, node.op_type))


def check_form(node: Node, kernels: Kernels) -> Form:
    """Return the node's form. Raises NotStoredError for other kinds of convolution and for unsupported forms.

    An unsupported form is not stored because of its kernel shape, if that is not one that is asked for.
    """
    form = form_of(node)
    if form is not None:
        return form
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    if _TRANSPOSED.search(node.op_type):
        raise NotStoredError("transposed", f"a {name}")
    if node.op_type == "DeformConv":
        raise NotStoredError("deformable", f"a {name}, which samples its input at positions of its own")
    kernel = _stated_kernel(node)
    if kernel is not None and not is_wanted(kernel, kernels):
        code = "kernel" if len(kernel) == 2 else "rank"
        raise NotStoredError(code, f"the kernel of {name} is {'×'.join(map(str, kernel))}")
    if node.domain == _BLOCKED_DOMAIN:
        reason = "its weight lies in blocks for one kind of CPU; take the model before ONNX Runtime optimised it"
        raise NotStoredError("operator", f"{name}: {reason}")
    known = ", ".join(dict.fromkeys(operator for _, operator in FORMS))
    raise NotStoredError("operator", f"{name} is not one of {known}")


def _stated_kernel(node: Node) -> tuple[int, ...] | None:
    """Return the kernel shape of a convolution of unknown form; None if it does not state one."""
    stated = node.integers("kernel_shape")
    if stated is not None:
        return tuple(stated)
    value = weight_value(node)
    if node.domain == _BLOCKED_DOMAIN and value is not None and isinstance(value.tensor, onnx.TensorProto):
        return tuple(map(int, value.tensor.dims[2:]))
    return None


def dimensions(node: Node, constants: Constants) -> int | None:
    """Return the number of a convolution's spatial dimensions, by its weight or else by `kernel_shape`.

    None for other kinds of convolution, and if only running the model would tell.
    """
    if _TRANSPOSED.search(node.op_type) or node.op_type == "DeformConv":
        return None
    rank = constants.rank(weight_value(node))
    if rank is not None:
        return rank - 2
    kernel = node.integers("kernel_shape")
    return len(kernel) if kernel else None


def weight_value(node: Node) -> Value | None:
    """Return the value at the weight's input, which is the second input for an unknown form."""
    return node.input((form_of(node) or _PLAIN).weight)


def weight_shape(node: Node, constants: Constants) -> tuple[int, ...]:
    """Return the shape (out, in, height, width) or (out, in, k) of a weight, from the tensor's header if possible.

    Raises NotStoredError if the weight is not constant.
    """
    shape = constants.shape(weight_value(node))
    form = form_of(node)
    if form is not None and form.channels_last and len(shape) == 4:
        return shape[0], shape[3], shape[1], shape[2]
    return shape


def read_weight(node: Node, constants: Constants, kernel: tuple[int, ...]) -> Weight:
    """Decode the weight of a convolution of one or two dimensions with this kernel.

    Raises NotStoredError if that is not possible.
    """
    form = check_form(node, None)
    constant = constants.weight(weight_value(node))
    scale_known = True
    values = constant.values
    if values.dtype.kind in "SUOTbcM":
        raise NotStoredError("dtype", f"the weight has dtype {values.dtype}, which is no number")
    if form.scale is not None:
        scale = constants.fold(node.input(form.scale)).values
        values = dequantize(values, scale, _zero_point(node, form, constants), axis=0)
        constant = constant.then(values, node.op_type)
    elif form.scaled_downstream:
        downstream = _downstream_scale(node, constants, values.shape)
        scale_known = downstream is not None
        scale = np.ones((), np.float32) if downstream is None else downstream
        values = dequantize(values, scale, _zero_point(node, form, constants), axis=0)
        constant = constant.then(values, node.op_type)
    if form.channels_last and values.ndim == 4:
        values = values.transpose(0, 3, 1, 2)
    if values.shape[2:] != kernel:
        raise NotStoredError("unreadable", f"the weight's tensor has shape {values.shape}")
    return Weight(as_filters(values, kernel_of(values.shape)), constant.source_dtype, constant.path, scale_known)


def _zero_point(node: Node, form: Form, constants: Constants) -> np.ndarray | None:
    value = None if form.zero_point is None else node.input(form.zero_point)
    return None if value is None else constants.fold(value).values


def is_batch_normalised(node: Node, constants: Constants) -> bool:
    """Return whether a BatchNormalization consumes the convolution's result.

    Operators in between may be those that keep channels as they are: casts, quantisation, padding, dropout, changes of
    layout, the addition of a bias, and the scale of an integer convolution.
    """
    form = form_of(node)
    channelwise = _CHANNELWISE | ({"Mul"} if form is not None and form.scaled_downstream else set())
    pending = [(value, MAX_STEPS) for value in node.outputs]
    for _ in range(MAX_VALUES):
        if not pending:
            return False
        value, steps = pending.pop()
        for consumer in value.consumers:
            if consumer.op_type == "BatchNormalization":
                return True
            if not steps or consumer.is_call:
                continue
            if consumer.op_type in channelwise or _is_bias(consumer, value, constants):
                pending.append((consumer.outputs[0], steps - 1))
    return False


_CHANNELWISE = {
    "Cast", "Clip", "DequantizeLinear", "Dropout", "Identity", "Pad", "QuantizeLinear", "Reshape", "Squeeze",
    "Transpose", "Unsqueeze",
}  # fmt: skip


def _is_bias(consumer: Node, value: Value, constants: Constants) -> bool:
    """Return whether a node adds a constant to (or subtracts one from) `value`."""
    if not consumer.is_standard or consumer.op_type not in {"Add", "Sub"} or not consumer.outputs:
        return False
    # Inside a body, the same value is another object with the same list of consumers.
    others = [other for other in consumer.inputs if other and other.consumers is not value.consumers]
    return len(others) == 1 and _is_constant(others[0], constants)


def _is_constant(value: Value, constants: Constants) -> bool:
    try:
        constants.fold(value)
    except NotStoredError:
        return False
    return True


def _downstream_scale(node: Node, constants: Constants, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the constant that multiplies the result of a ConvInteger whose weight has this shape.

    It is a scalar or has one number for each output channel; None if there is none.
    A bias may be added before the scale, as integers, or after it.
    """
    value = node.outputs[0]
    for _ in range(MAX_STEPS):
        # The nodes inside a called function are consumers themselves.
        consumers = [consumer for consumer in value.consumers if not consumer.is_call]
        if len(consumers) != 1 or not consumers[0].is_standard or not consumers[0].outputs:
            return None
        (consumer,) = consumers
        if consumer.op_type == "Mul":
            others = [other for other in consumer.inputs if other and other.consumers is not value.consumers]
            factors = _constant_factors(others[0], constants) if len(others) == 1 else []
            if factors:
                return _per_channel(factors, shape)
        elif consumer.op_type not in {"Cast", "Identity"} and not _is_bias(consumer, value, constants):
            return None
        value = consumer.outputs[0]
    return None


def _constant_factors(value: Value | None, constants: Constants) -> list[Constant]:
    """Return the constant factors of a product, typically of the input's scale (not constant) and the weight's.

    Returns none if the product has too many factors to search.
    """
    factors: list[Constant] = []
    pending = [(value, MAX_STEPS)]
    for _ in range(MAX_VALUES):
        if not pending:
            return factors
        operand, steps = pending.pop()
        try:
            factors.append(constants.fold(operand))
        except NotStoredError:
            node = None if operand is None else operand.producer
            if steps and node is not None and _is_product(node):
                pending += [(factor, steps - 1) for factor in reversed(node.inputs)]
    return []


def _is_product(node: Node) -> bool:
    return node.is_standard and node.op_type in {"Mul", "Cast", "Identity"} and len(node.inputs) <= 2


def _per_channel(factors: list[Constant], shape: tuple[int, ...]) -> np.ndarray | None:
    """Multiply factors that are scalars or have one number for each channel of a tensor with channels first.

    `shape` is that of the weight. None for factors of any other shape.
    """
    channels = (*shape[:1], *(1,) * len(shape[2:]))
    scale = np.ones((), np.float32)
    for factor in factors:
        values = factor.values.astype(np.float32)
        if values.size == 1:
            scale = scale * values.reshape(())
        elif values.shape in {channels, (1, *channels)}:
            scale = scale * values.reshape(-1)
        else:
            return None
    return scale if factors else None
