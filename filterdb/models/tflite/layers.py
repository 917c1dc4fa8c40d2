"""List the convolutions of a TensorFlow Lite model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from filterdb.errors import ModelError
from filterdb.models.convolutions import UNKNOWN_GROUPS, Convolution
from filterdb.models.model import MAX_FILTERS
from filterdb.models.parse_errors import NotStoredError
from filterdb.models.tflite.constants import Constant, trace
from filterdb.models.tflite.flatbuffer import INT8, INT32
from filterdb.models.tflite.graph import MAX_RANK, NO_TENSOR, Graph, Operator, Tensor
from filterdb.models.tflite.schema import DEPTH_MULTIPLIER, OPERATORS, ConvolutionOptions

_TRANSPOSED = {"TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"}
_BUILTIN = {"CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "STABLEHLO_CONVOLUTION", *_TRANSPOSED}
_CUSTOM = re.compile(r"conv(?!ert)", re.IGNORECASE)
_CUSTOM_TRANSPOSED = re.compile(r"transpose|deconv|backprop", re.IGNORECASE)
_COMPILED = {"ethos-u", "edgetpu-custom-op"}
"""Operators that are whole networks, compiled for an accelerator."""

MAX_PER_BYTE = 4
"""Most numbers of a weight that a byte can hold."""

MAX_STEPS = 8
"""Most operators between a convolution and the batch normalisation that follows it."""

_CHANNELWISE = {"CAST", "DEQUANTIZE", "QUANTIZE"}
"""Operators that may be between a convolution and its batch normalisation."""


_LAYOUTS = {
    "CONV_2D": (0, 3, 1, 2),  # (out, height, width, in)
    "DEPTHWISE_CONV_2D": (3, 0, 1, 2),  # (1, height, width, out)
    "CONV_3D": (4, 3, 0, 1, 2),  # (depth, height, width, in, out)
}
"""The dimensions of an operator's weight in the order (out, in per group, spatial dimensions)."""


def convolutions(graphs: list[Graph], file: BinaryIO) -> list[Convolution]:
    """Return the convolutions of all graphs, in the order of execution."""
    return [
        _convolution(graph, position, file)
        for graph in graphs
        for position, operator in enumerate(graph.operators)
        if _is_convolution(operator.name)
    ]


def _is_convolution(name: str) -> bool:
    """Return whether operators of this name are convolutions of any form, so that they are stored or in the ledger."""
    if name in OPERATORS:
        return name in _BUILTIN
    return name in _COMPILED or _CUSTOM.search(name) is not None


def _convolution(graph: Graph, position: int, file: BinaryIO) -> Convolution:
    """Describe a convolution. One that cannot be described is refused, with the reason."""
    operator = graph.operators[position]
    name = f"{operator.name}_{graph.index}_{position}"
    try:
        _check_form(operator.name)
        return _described(graph, position, file)
    except NotStoredError as error:
        refused = error
    except ModelError:
        raise
    except ValueError as error:
        refused = NotStoredError("unreadable", f"the convolution's tables cannot be read: {error}")
    index = operator.input(1)
    if operator.name not in _COMPILED and index != NO_TENSOR:
        name = graph.tensor_name(index) or name
    return Convolution(name, (), _unread, "", None, operator=operator.name, refused=refused)


def _unread() -> np.ndarray:
    raise NotStoredError("unreadable", "the convolution is refused")


def _check_form(name: str) -> None:
    """Raise NotStoredError for forms of convolutions that are not stored."""
    if name in _TRANSPOSED or (name not in _BUILTIN and _CUSTOM_TRANSPOSED.search(name)):
        raise NotStoredError("transposed", f"a {name}")
    if name in _COMPILED:
        reason = f"the network is compiled for an accelerator ({name}); take the model before it was compiled"
        raise NotStoredError("operator", reason)
    if name not in _LAYOUTS:
        raise NotStoredError("operator", f"{name} is not one of {', '.join(_LAYOUTS)}")


def _described(graph: Graph, position: int, file: BinaryIO) -> Convolution:
    """Describe a convolution with a weight. Raises NotStoredError, or ValueError for invalid tables."""
    operator = graph.operators[position]
    index = operator.input(1)
    if index == NO_TENSOR:
        raise NotStoredError("missing", "the convolution has no weight input")
    weight = graph.tensor(index)
    shape = _shape(operator.name, weight)
    length = graph.lengths[position]
    refused, constant, failure = None, None, None
    if length is None:
        refused = NotStoredError(
            "unreachable", "no input of the model reaches the convolution in the order of execution"
        )
    try:
        constant = trace(graph, index)
    except NotStoredError as error:
        failure = error
        if error.code == "computed":
            refused = error
    stored = weight if constant is None else constant.stored
    is_larger = stored.sparsity is None and math.prod(shape) > MAX_PER_BYTE * graph.model.file_size
    if refused is None and is_larger:
        refused = NotStoredError("unreadable", f"the weight has shape {shape}, more numbers than the file has room for")
    elif refused is None and math.prod(shape[:2]) > MAX_FILTERS:
        refused = NotStoredError("many", f"the weight has shape {shape}, more than {MAX_FILTERS:,} filters")
    strides, dilations = _steps(operator)
    return Convolution(
        stored.name or weight.name or f"{operator.name}_{graph.index}_{position}",
        shape,
        _reader(constant, failure, _LAYOUTS[operator.name], shape, file),
        stored.dtype,
        ("tensor", graph.index, index) if constant is None else constant.place,
        path=() if constant is None else constant.path,
        batch_norm=_batch_norm(graph, position, shape[0]),
        length=length,
        groups=_groups(graph, operator, shape),
        operator=operator.name,
        strides=strides,
        dilations=dilations,
        scale_known=constant is None or constant.scale_known,
        refused=refused,
    )


def _shape(name: str, weight: Tensor) -> tuple[int, ...]:
    """Return the shape of a weight as (out, in per group, …). Raises NotStoredError if it is invalid."""
    if len(weight.shape) > MAX_RANK:
        raise NotStoredError(
            "unreadable", f"the weight has {len(weight.shape):,} dimensions, expected at most {MAX_RANK}"
        )
    order = _LAYOUTS[name]
    if len(weight.shape) != len(order) or min(weight.shape) < 0:
        raise NotStoredError("unreadable", f"the weight of {name} has shape {weight.shape}")
    if name == "DEPTHWISE_CONV_2D" and weight.shape[0] != 1:
        raise NotStoredError(
            "unreadable", f"the weight of {name} has shape {weight.shape}, expected 1 as the first size"
        )
    return tuple(weight.shape[dimension] for dimension in order)


def _reader(
    constant: Constant | None,
    failure: NotStoredError | None,
    order: tuple[int, ...],
    shape: tuple[int, ...],
    file: BinaryIO,
) -> Callable[[], np.ndarray]:
    """Return the function that reads a weight, or raises `failure`, which is why there is no constant."""

    def read() -> np.ndarray:
        if constant is None:
            raise failure or NotStoredError("missing", "the convolution has no weight")
        values = constant.values(file)
        if values.ndim != len(order):
            raise NotStoredError("unreadable", f"the weight has shape {values.shape}, expected {shape}")
        return values.transpose(order)

    return read


def _groups(graph: Graph, operator: Operator, shape: tuple[int, ...]) -> int:
    """Return the groups of a convolution: the channels of its input by those of a filter. 0 if that is unknown."""
    index = operator.input(0)
    channels = graph.tensor(index).shape[-1:] if index != NO_TENSOR else ()
    if operator.name == "DEPTHWISE_CONV_2D":
        options = operator.options()
        multiplier = options.number(DEPTH_MULTIPLIER, INT32) if options is not None else 0
        groups = channels[0] if channels else shape[0] // multiplier if multiplier > 0 else 0
    else:
        groups = channels[0] // shape[1] if channels and shape[1] > 0 and channels[0] % shape[1] == 0 else 0
    return groups if groups > 0 and shape[0] % groups == 0 else UNKNOWN_GROUPS


def _steps(operator: Operator) -> tuple[list[int] | None, list[int] | None]:
    """Return the strides and the dilations (height, width) of a convolution; None if it does not state them."""
    options = None if operator.name == "CONV_3D" else operator.options()
    if options is None:
        return None, None
    shift = _shift(operator)
    strides = [options.number(field, INT32) for field in (ConvolutionOptions.STRIDE_H, ConvolutionOptions.STRIDE_W)]
    fields = (ConvolutionOptions.DILATION_H, ConvolutionOptions.DILATION_W)
    return strides, [options.number(field + shift, INT32, 1) for field in fields]


def _shift(operator: Operator) -> int:
    """Return how much later fields come in the options, which for depthwise convolutions have one more."""
    return 1 if operator.name == "DEPTHWISE_CONV_2D" else 0


def _batch_norm(graph: Graph, position: int, channels: int) -> str:
    """Return where the batch normalisation of a convolution is (a value of `schema.BATCH_NORM`).

    Converters fold it into weight and bias if they can, so a convolution without a bias has none. What follows apart
    is a MUL and an ADD (or SUB) with a constant for each channel.
    """
    operator = graph.operators[position]
    if not _has_activation(operator) and operator.outputs and _is_normalised(graph, operator.outputs[0], channels):
        return "unfolded"
    return "none" if operator.input(2) == NO_TENSOR else "unknown"


def _has_activation(operator: Operator) -> bool:
    options = None if operator.name == "CONV_3D" else operator.options()
    return options is not None and options.number(ConvolutionOptions.ACTIVATION + _shift(operator), INT8) != 0


def _is_normalised(graph: Graph, tensor: int, channels: int) -> bool:
    """Return whether a tensor is multiplied by a constant for each channel, and then one is added or subtracted."""
    scaled = False
    for _ in range(MAX_STEPS):
        readers = graph.consumers.get(tensor, [])
        if len(readers) != 1 or not graph.operators[readers[0]].outputs:
            return False
        consumer = graph.operators[readers[0]]
        wanted = {"ADD", "SUB"} if scaled else {"MUL"}
        if consumer.name in wanted:
            others = [index for index in consumer.inputs if index != tensor]
            if len(others) != 1 or not _is_per_channel(graph, others[0], channels):
                return False
            if scaled:
                return True
            scaled = True
        elif consumer.name not in _CHANNELWISE:
            return False
        tensor = consumer.outputs[0]
    return False


def _is_per_channel(graph: Graph, index: int, channels: int) -> bool:
    """Return whether a tensor is constant and has one number for each channel, the last dimension."""
    if index == NO_TENSOR or index in graph.live:
        return False
    shape = graph.tensor(index).shape
    return shape[-1:] == (channels,) and math.prod(shape) == channels
