"""Tell from names and shapes which weights are kernels, for layers that no config describes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from filterdb.models.keras.kernels import KERNELS, RECURRENT, TRANSPOSED, Kernel
from filterdb.models.keras.weights import Unit
from filterdb.models.keras.weights_file import StoredTensor
from filterdb.models.parse_errors import NotStoredError, shortened
from filterdb.schema import KERNEL

_CLASSES = {
    "conv2d": "Conv2D",
    "conv2d_transpose": "Conv2DTranspose",
    "conv_lstm2d": "ConvLSTM2D",
    "depthwise_conv2d": "DepthwiseConv2D",
    "separable_conv2d": "SeparableConv2D",
}
"""The classes of layers by the name that Keras gives to a layer or to its group, without the number."""

_TRANSPOSED_NAME = re.compile(r"deconv|trans|up_?conv|conv_?up|up_?sampl|(^|_)up(_|\d|$)|unpool", re.IGNORECASE)
"""Names that people give to transposed convolutions, and to others."""

_DEPTHWISE_NAME = re.compile(r"depth_?wise|dw_?conv|conv_?dw|(^|_)dw(_|\d|$)", re.IGNORECASE)
"""Names that people give to depthwise convolutions."""

_ROLES = {"kernel": Kernel("kernel", 4), "depthwise_kernel": KERNELS["DepthwiseConv2D"][0]}
_ROLES["pointwise_kernel"] = KERNELS["SeparableConv2D"][1]

UNDECIDED = NotStoredError("transposed?", "it may be a transposed convolution: its name says so, or nothing tells")


@dataclass(frozen=True, slots=True)
class Found:
    """A kernel of a unit, and why it is not stored."""

    name: tuple[str, ...]
    operator: str
    kernel: Kernel
    tensor: StoredTensor
    refused: NotStoredError | None
    has_bias: bool


def is_norm(unit: Unit) -> bool:
    """Return whether a unit is a batch normalisation, which keeps a mean and a variance.

    In a weights file of Keras 3 its weights have numbers: three or four vectors of one length.
    """
    if "moving_mean" in unit.tensors or any(label.startswith("batch_normalization") for label in unit.labels):
        return True
    shapes = {tensor.shape for tensor in unit.tensors.values()}
    return set(unit.tensors) in _NORM_NUMBERS and len(shapes) == 1 and all(map(_is_vector, shapes))


_NORM_NUMBERS = ({"0", "1", "2"}, {"0", "1", "2", "3"})


def _is_vector(shape: tuple[int, ...]) -> bool:
    return len(shape) == 1


def find_kernels(units: Sequence[Unit]) -> list[Found]:
    """Return the kernels of rank 4 among units, in order."""
    found = []
    for unit, follower in zip(units, [*units[1:], None], strict=False):
        matrices = {name: tensor for name, tensor in unit.tensors.items() if len(tensor.shape) == 4}
        if matrices:
            found += _of_unit(unit, matrices, _channels(unit, follower))
    return found


def _channels(unit: Unit, follower: Unit | None) -> int | None:
    """Return how many output channels a unit's bias or the norm that follows it says there are; None if neither."""
    for tensors in (unit.tensors, follower.tensors if follower is not None and is_norm(follower) else {}):
        vectors = [tensor.shape[0] for tensor in tensors.values() if _is_vector(tensor.shape)]
        if vectors:
            return vectors[0]
    return None


def _of_unit(unit: Unit, matrices: dict[str, StoredTensor], channels: int | None) -> list[Found]:
    has_bias = any(_is_vector(tensor.shape) for tensor in unit.tensors.values())
    is_numbered = all(map(str.isdecimal, unit.tensors))
    found = []
    for (name, tensor), (operator, kernel, refused) in zip(
        matrices.items(),
        _by_number(unit, matrices, channels) if is_numbered else _by_role(unit, matrices, channels),
        strict=True,
    ):
        if refused is not None and refused.code == "operator" and tensor.shape[:2] != KERNEL:
            continue
        own = unit.name if len(matrices) == 1 else (*unit.name, kernel.role if kernel.role != "kernel" else name)
        found.append(Found(own, operator, kernel, tensor, refused, has_bias))
    return found


Decision = tuple[str, Kernel, NotStoredError | None]


def _by_role(unit: Unit, matrices: dict[str, StoredTensor], channels: int | None) -> list[Decision]:
    """Return what each kernel is by the names of the weights."""
    decisions: list[Decision] = []
    for name, tensor in matrices.items():
        if "recurrent_kernel" in unit.tensors:
            decisions.append(("ConvLSTM2D", _ROLES["kernel"], RECURRENT))
        elif name in {"depthwise_kernel", "pointwise_kernel"}:
            is_separable = "pointwise_kernel" in unit.tensors
            decisions.append(("SeparableConv2D" if is_separable else "DepthwiseConv2D", _ROLES[name], None))
        elif name == "kernel" and _is_depthwise(unit, tensor, channels):
            decisions.append(("DepthwiseConv2D", _ROLES["depthwise_kernel"], None))
        elif name == "kernel":
            refused = _transposed(unit, tensor, channels)
            decisions.append(("Conv2DTranspose" if refused == TRANSPOSED else "Conv2D", _ROLES[name], refused))
        else:
            decisions.append(("", _ROLES["kernel"], _unknown(tensor)))
    return decisions


def _class(unit: Unit) -> str | None:
    """Return the class that the names of a unit say, as Keras names layers by default."""
    for label in unit.labels:
        stem = re.sub(r"_\d+$", "", label)
        if stem in _CLASSES:
            return _CLASSES[stem]
    return None


def _is_depthwise(unit: Unit, tensor: StoredTensor, channels: int | None) -> bool:
    """Return whether a `kernel` is a depthwise one, as Keras 3 calls it."""
    named = _class(unit)
    if named is not None:
        return named == "DepthwiseConv2D"
    first, second = tensor.shape[2:]
    return channels in {None, first * second} and (
        any(map(_DEPTHWISE_NAME.search, unit.labels)) or (channels == first * second and first > 1 and second > 1)
    )


def _transposed(unit: Unit, tensor: StoredTensor, channels: int | None) -> NotStoredError | None:
    """Return why a `kernel` is not that of a convolution, or may be another's; None if it is one."""
    named = _class(unit)
    if named is not None:
        return TRANSPOSED if named.endswith("Transpose") else None
    first, second = tensor.shape[2:]
    if first != second and channels in {first, second}:
        return TRANSPOSED if channels == first else None
    return UNDECIDED if any(map(_TRANSPOSED_NAME.search, unit.labels)) else None


def _by_number(unit: Unit, matrices: dict[str, StoredTensor], channels: int | None) -> list[Decision]:
    """Return what each kernel is by the class that names say or, if they say none, by the shapes of the weights."""
    named = _class(unit)
    if named is not None and len(matrices) == len(KERNELS[named]):
        refused = TRANSPOSED if named.endswith("Transpose") else RECURRENT if named == "ConvLSTM2D" else None
        return [(named, kernel, refused) for kernel in KERNELS[named]]
    shapes = [tensor.shape for tensor in matrices.values()]
    if len(shapes) == 2 and shapes[1][:3] == (1, 1, shapes[0][2] * shapes[0][3]):
        return [("SeparableConv2D", kernel, None) for kernel in KERNELS["SeparableConv2D"]]
    if len(shapes) != 1:
        return [("", _ROLES["kernel"], _unknown(tensor)) for tensor in matrices.values()]
    first, second = shapes[0][2:]
    fits = {"Conv2D": second, "DepthwiseConv2D": first * second, "Conv2DTranspose": first}
    kinds = [kind for kind, count in fits.items() if channels in {None, count}]
    if kinds == ["DepthwiseConv2D"] or (first == 1 and kinds[:2] == ["Conv2D", "DepthwiseConv2D"]):
        return [("DepthwiseConv2D", KERNELS["DepthwiseConv2D"][0], None)]
    if "Conv2D" not in kinds or (second == 1 and first > 1):
        return [("", _ROLES["kernel"], TRANSPOSED if kinds == ["Conv2DTranspose"] else UNDECIDED)]
    is_doubtful = len(kinds) > 1 and any(map(_TRANSPOSED_NAME.search, unit.labels))
    return [("Conv2D", _ROLES["kernel"], UNDECIDED if is_doubtful else None)]


def _unknown(tensor: StoredTensor) -> NotStoredError:
    reason = f"{shortened(tensor.name, 80)} may be a kernel, of a layer whose class is not known"
    return NotStoredError("operator", reason)
