"""List the convolutions of an OpenVINO model, and where the batch normalisation after each is."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from filterdb.models.convolutions import Convolution, make_model
from filterdb.models.model import Model, is_wanted
from filterdb.models.openvino.constants import Constants
from filterdb.models.openvino.document import Document, integer
from filterdb.models.openvino.graph import Node, build_graph
from filterdb.models.parse_errors import NotStoredError, shortened
from filterdb.schema import Kernels

MAX_SPATIAL = 64
"""Most numbers in strides and dilations."""

MAX_STEPS = 16
"""Most layers between a convolution and the batch normalisation that belongs to it."""

_CONVOLUTION = re.compile(r"conv(?!ert)", re.IGNORECASE)
_TRANSPOSED = re.compile(r"backprop|transpose|deconv", re.IGNORECASE)
_DEFORMABLE = re.compile(r"deform", re.IGNORECASE)

_FORMS = {"Convolution": 0, "GroupConvolution": 1}
"""The layers that are read, and the dimensions of their weight before (out, in, …): the groups."""


def read_model(document: Document, path: Path, data: str, kernels: Kernels) -> Model:
    """List the layers of the model at `path` that have one of these kernel shapes (None: any).

    Its constants are in the file `data` beside it. Raises ModelError if its graph is invalid.
    """
    graph = build_graph(document, path)
    constants = Constants(path.parent, data)
    convolutions = [_convolution(node, constants, kernels) for node in graph.nodes if _CONVOLUTION.search(node.type)]
    return make_model(
        convolutions,
        kernels,
        source_format="OpenVINO",
        depth_source="graph",
        producer=document.producer,
        opset=graph.opset,
        model_depth=graph.depth,
        operators=graph.operators,
    )


def _convolution(node: Node, constants: Constants, kernels: Kernels) -> Convolution:
    """Return what is known of a convolution without reading its weight."""
    convolution = Convolution(
        node.layer.name or node.type,
        (),
        partial(_read, node, constants),
        source_dtype="",
        place=("layer", node.position),
        length=node.length,
        operator=node.type,
    )
    try:
        _check_form(node, kernels)
        shape = _weight_shape(node, constants)
        if node.length is None:
            raise NotStoredError("unreachable", "no input of the model reaches the convolution")
        strides, dilations = _spatial(node, "strides"), _spatial(node, "dilations")
        origin = constants.origin(node.input(1))
    except NotStoredError as error:
        return replace(convolution, refused=_refusal(node, error, kernels))
    leading = _FORMS[node.type]
    groups = math.prod(shape[:leading])
    return replace(
        convolution,
        shape=(groups * shape[leading], *shape[leading + 1 :]),
        groups=groups,
        source_dtype=origin.source_dtype,
        place=origin.place,
        path=origin.path,
        batch_norm=_batch_norm(node, groups * shape[leading], constants),
        strides=strides,
        dilations=dilations,
    )


def _read(node: Node, constants: Constants) -> np.ndarray:
    """Read the weight of a convolution as (out, in per group, …). Raises NotStoredError."""
    values = constants.fold(node.input(1))
    if values.dtype.kind in "biu":
        raise NotStoredError("dtype", f"the weight is {values.dtype}, without a scale")
    return values.reshape(-1, *values.shape[_FORMS[node.type] + 1 :])


def _weight_shape(node: Node, constants: Constants) -> tuple[int, ...]:
    """Return the shape of the weight of a convolution, with its groups. Raises NotStoredError."""
    shape = constants.shape(node.input(1))
    if len(shape) < 2 + _FORMS[node.type]:
        raise NotStoredError("unreadable", f"the weight of {node.type} has shape {shape}")
    return shape


def _check_form(node: Node, kernels: Kernels) -> None:
    """Raise NotStoredError for other kinds of convolution."""
    if node.type in _FORMS:
        return
    kind = shortened(node.type, 60)
    if _TRANSPOSED.search(node.type):
        raise NotStoredError("transposed", f"a {kind}")
    if _DEFORMABLE.search(node.type):
        raise NotStoredError("deformable", f"a {kind}, which samples its input at positions of its own")
    _check_stated_kernel(node, kind, kernels)
    raise NotStoredError("operator", f"{kind} is not one of {', '.join(_FORMS)}")


def _refusal(node: Node, error: NotStoredError, kernels: Kernels) -> NotStoredError:
    """Return why a convolution is not stored, which is its kernel rather than that its weight was not computed."""
    try:
        if error.code == "unsupported":
            _check_stated_kernel(node, node.type, kernels)
    except NotStoredError as kernel:
        return kernel
    return error


def _check_stated_kernel(node: Node, kind: str, kernels: Kernels) -> None:
    """Raise NotStoredError if the port from which an unread weight comes says that its kernel is not asked for."""
    source = node.input(1)
    if source is None:
        return
    dims = source[0].layer.dims[source[1]]
    kernel = tuple(dims[2 + _FORMS.get(node.type, 0) :])
    if kernel and min(kernel) > 0 and not is_wanted(kernel, kernels):
        code = "kernel" if len(kernel) == 2 else "rank"
        raise NotStoredError(code, f"the kernel of {kind} is {'×'.join(map(str, kernel))}")


def _spatial(node: Node, name: str) -> list[int] | None:
    text = node.layer.data.get(name)
    if text is None:
        return None
    numbers = text.split(",", MAX_SPATIAL)
    if len(numbers) > MAX_SPATIAL:
        raise NotStoredError("unreadable", f"the convolution has more than {MAX_SPATIAL} {name}")
    try:
        return [integer(number) for number in numbers]
    except ValueError as error:
        raise NotStoredError("unreadable", f"the convolution's {name}: {error}") from error


def _batch_norm(node: Node, channels: int, constants: Constants) -> str:
    """Return where the batch normalisation after a convolution is (a value of `schema.BATCH_NORM`).

    It is apart if a BatchNormInference, or the Multiply and Add that OpenVINO replaces it by, follows the convolution
    or its bias. It may have been folded only into a weight with a bias.
    """
    has_bias = False
    value = node
    for _ in range(MAX_STEPS):
        if any(consumer.type == "BatchNormInference" for consumer in value.consumers):
            return "unfolded"
        following = [consumer for consumer in value.consumers if consumer.type != "Result"]
        if len(following) != 1:
            break
        (consumer,) = following
        if consumer.type == "Multiply" and _is_per_channel(consumer, value, channels, constants):
            after = consumer.consumers
            is_norm = len(after) == 1 and after[0].type in {"Add", "Subtract"}
            return (
                "unfolded" if is_norm and _is_per_channel(after[0], consumer, channels, constants) else _bias(has_bias)
            )
        if consumer.type in {"Add", "Subtract"} and _is_per_channel(consumer, value, channels, constants):
            has_bias = True
        elif consumer.type not in _CHANNELWISE:
            break
        value = consumer
    return _bias(has_bias)


def _bias(has_bias: bool) -> str:
    return "unknown" if has_bias else "none"


_CHANNELWISE = {"Convert", "FakeQuantize", "Pad"}
"""What may be between a convolution and its batch normalisation."""


def _is_per_channel(consumer: Node, value: Node, channels: int, constants: Constants) -> bool:
    """Return whether the other operand of an arithmetic layer is a constant with a number for each channel."""
    others = [source for source in consumer.inputs if source is None or source[0] is not value]
    if len(others) != 1 or others[0] is None:
        return False
    try:
        shape = constants.shape(others[0])
    except NotStoredError:
        # A model that was saved unoptimised computes the shape of a bias by layers that are not evaluated.
        return not others[0][0].is_computed
    return math.prod(shape) == channels and channels in shape
