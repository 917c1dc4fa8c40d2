"""Tell from names and shapes which weights are kernels, for layers that no config describes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from filterdb.models.keras.kernels import KERNELS, RECURRENT, TRANSPOSED, Kernel
from filterdb.models.keras.weights import Unit
from filterdb.models.keras.weights_file import StoredTensor
from filterdb.models.model import is_wanted, wants_1d
from filterdb.models.parse_errors import NotStoredError, shortened
from filterdb.schema import MAX_WEIGHTS, Kernels, has_bank

_CLASSES = {
    f"{name}{d}d{more}": f"{start}{d}D{end}"
    for d in (1, 2)
    for name, start, more, end in (
        ("conv", "Conv", "", ""),
        ("conv", "Conv", "_transpose", "Transpose"),
        ("conv_lstm", "ConvLSTM", "", ""),
        ("depthwise_conv", "DepthwiseConv", "", ""),
        ("separable_conv", "SeparableConv", "", ""),
    )
}
"""The classes of layers by the name that Keras gives to a layer or to its group, without the number."""

_CONVOLUTION_NAME = re.compile(r"conv(?!ert)", re.IGNORECASE)
"""Names that people give to convolutions."""

_TRANSPOSED_NAME = re.compile(r"deconv|trans|up_?conv|conv_?up|up_?sampl|(^|_)up(_|\d|$)|unpool", re.IGNORECASE)
"""Names that people give to transposed convolutions, and to others."""

_DEPTHWISE_NAME = re.compile(r"depth_?wise|dw_?conv|conv_?dw|(^|_)dw(_|\d|$)", re.IGNORECASE)
"""Names that people give to depthwise convolutions."""

_ROLES = {
    (kernel.role, kernel.rank): kernel
    for d in (1, 2)
    for kernel in (*KERNELS[f"Conv{d}D"], *KERNELS[f"SeparableConv{d}D"])
}

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


def find_kernels(units: Sequence[Unit], kernels: Kernels) -> tuple[list[Found], list[Found]]:
    """Return the kernels among units in order: those of rank 4, and those of rank 3 if any such shape is asked for.

    Layers of other classes, such as attention, have weights of rank 3, so only a layer whose name says so convolves.
    """
    found: dict[int, list[Found]] = {4: [], 3: []}
    for unit, follower in zip(units, [*units[1:], None], strict=False):
        for rank, listed in found.items():
            matrices = {name: tensor for name, tensor in unit.tensors.items() if len(tensor.shape) == rank}
            if matrices and (rank == 4 or (wants_1d(kernels) and _is_1d(unit, matrices))):
                listed.extend(_of_unit(unit, matrices, _channels(unit, follower), kernels))
    return found[4], found[3]


def _is_1d(unit: Unit, matrices: dict[str, StoredTensor]) -> bool:
    """Return whether the names of a unit with weights of rank 3 say that it convolves."""
    if _class(unit, 3) is not None:
        return True
    fits = all(tensor.shape[0] <= MAX_WEIGHTS for tensor in matrices.values())
    return fits and any(map(_CONVOLUTION_NAME.search, unit.labels))


def _channels(unit: Unit, follower: Unit | None) -> int | None:
    """Return how many output channels a unit's bias or the norm that follows it says there are; None if neither."""
    for tensors in (unit.tensors, follower.tensors if follower is not None and is_norm(follower) else {}):
        vectors = [tensor.shape[0] for tensor in tensors.values() if _is_vector(tensor.shape)]
        if vectors:
            return vectors[0]
    return None


def _of_unit(unit: Unit, matrices: dict[str, StoredTensor], channels: int | None, kernels: Kernels) -> list[Found]:
    has_bias = any(_is_vector(tensor.shape) for tensor in unit.tensors.values())
    is_numbered = all(map(str.isdecimal, unit.tensors))
    found = []
    for (name, tensor), (operator, kernel, refused) in zip(
        matrices.items(),
        _by_number(unit, matrices, channels) if is_numbered else _by_role(unit, matrices, channels),
        strict=True,
    ):
        if refused is not None and refused.code == "operator" and not _may_be_kernel(tensor.shape[:-2], kernels):
            continue
        own = unit.name if len(matrices) == 1 else (*unit.name, kernel.role if kernel.role != "kernel" else name)
        found.append(Found(own, operator, kernel, tensor, refused, has_bias))
    return found


def _may_be_kernel(shape: tuple[int, ...], kernels: Kernels) -> bool:
    """Return whether filters of this shape are asked for, and a weight of an unknown layer may have them.

    Other weights, such as the tables of an attention's positions, are rarely as high as wide.
    """
    is_usual = len(shape) == 1 or (shape[0] == shape[1] and has_bank((shape[0], shape[1])))
    return is_usual and is_wanted(shape, kernels)


Decision = tuple[str, Kernel, NotStoredError | None]


def _by_role(unit: Unit, matrices: dict[str, StoredTensor], channels: int | None) -> list[Decision]:
    """Return what each kernel is by the names of the weights."""
    decisions: list[Decision] = []
    for name, tensor in matrices.items():
        rank = len(tensor.shape)
        d = f"{rank - 2}D"
        if "recurrent_kernel" in unit.tensors:
            decisions.append((f"ConvLSTM{d}", _ROLES["kernel", rank], RECURRENT))
        elif name in {"depthwise_kernel", "pointwise_kernel"}:
            is_separable = "pointwise_kernel" in unit.tensors
            decisions.append((f"{'Separable' if is_separable else 'Depthwise'}Conv{d}", _ROLES[name, rank], None))
        elif name == "kernel" and _is_depthwise(unit, tensor, channels):
            decisions.append((f"DepthwiseConv{d}", _ROLES["depthwise_kernel", rank], None))
        elif name == "kernel":
            refused = _transposed(unit, tensor, channels)
            end = "Transpose" if refused == TRANSPOSED else ""
            decisions.append((f"Conv{d}{end}", _ROLES[name, rank], refused))
        else:
            decisions.append(("", _ROLES["kernel", rank], _unknown(tensor)))
    return decisions


def _class(unit: Unit, rank: int) -> str | None:
    """Return the class with kernels of this rank that the names of a unit say, as Keras names layers by default."""
    for label in unit.labels:
        named = _CLASSES.get(re.sub(r"_\d+$", "", label))
        if named is not None and KERNELS[named][0].rank == rank:
            return named
    return None


def _is_depthwise(unit: Unit, tensor: StoredTensor, channels: int | None) -> bool:
    """Return whether a `kernel` is a depthwise one, as Keras 3 calls it."""
    named = _class(unit, len(tensor.shape))
    if named is not None:
        return named.startswith("DepthwiseConv")
    first, second = tensor.shape[-2:]
    return channels in {None, first * second} and (
        any(map(_DEPTHWISE_NAME.search, unit.labels)) or (channels == first * second and first > 1 and second > 1)
    )


def _transposed(unit: Unit, tensor: StoredTensor, channels: int | None) -> NotStoredError | None:
    """Return why a `kernel` is not that of a convolution, or may be another's; None if it is one."""
    named = _class(unit, len(tensor.shape))
    if named is not None:
        return TRANSPOSED if named.endswith("Transpose") else None
    first, second = tensor.shape[-2:]
    if first != second and channels in {first, second}:
        return TRANSPOSED if channels == first else None
    return UNDECIDED if any(map(_TRANSPOSED_NAME.search, unit.labels)) else None


def _by_number(unit: Unit, matrices: dict[str, StoredTensor], channels: int | None) -> list[Decision]:
    """Return what each kernel is by the class that names say or, if they say none, by the shapes of the weights."""
    shapes = [tensor.shape for tensor in matrices.values()]
    rank = len(shapes[0])
    d = f"{rank - 2}D"
    named = _class(unit, rank)
    if named is not None and len(matrices) == len(KERNELS[named]):
        refused = TRANSPOSED if named.endswith("Transpose") else RECURRENT if named.startswith("ConvLSTM") else None
        return [(named, kernel, refused) for kernel in KERNELS[named]]
    if len(shapes) == 2 and shapes[1][:-1] == (*(1,) * (rank - 2), shapes[0][-2] * shapes[0][-1]):
        return [(f"SeparableConv{d}", kernel, None) for kernel in KERNELS[f"SeparableConv{d}"]]
    if len(shapes) != 1:
        return [("", _ROLES["kernel", rank], _unknown(tensor)) for tensor in matrices.values()]
    first, second = shapes[0][-2:]
    fits = {"Conv": second, "DepthwiseConv": first * second, "ConvTranspose": first}
    kinds = [kind for kind, count in fits.items() if channels in {None, count}]
    if kinds == ["DepthwiseConv"] or (first == 1 and kinds[:2] == ["Conv", "DepthwiseConv"]):
        return [(f"DepthwiseConv{d}", _ROLES["depthwise_kernel", rank], None)]
    if "Conv" not in kinds or (second == 1 and first > 1):
        return [("", _ROLES["kernel", rank], TRANSPOSED if kinds == ["ConvTranspose"] else UNDECIDED)]
    is_doubtful = len(kinds) > 1 and any(map(_TRANSPOSED_NAME.search, unit.labels))
    return [(f"Conv{d}", _ROLES["kernel", rank], UNDECIDED if is_doubtful else None)]


def _unknown(tensor: StoredTensor) -> NotStoredError:
    reason = f"{shortened(tensor.name, 80)} may be a kernel, of a layer whose class is not known"
    return NotStoredError("operator", reason)
