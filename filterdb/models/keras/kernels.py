"""Say which kernels a layer of Keras has, and bring them into the order (out, in per group, height, width).

Keras keeps kernels as (height, width, in, out), whatever the layer's `data_format` is, which only orders its
activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from filterdb.models.parse_errors import NotStoredError

MAX_NUMBER = 2**31
"""Most that a number of a config may be, such as a stride."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of a layer: the name of its weight, its rank, and whether its last dimension multiplies channels."""

    role: str
    rank: int
    is_depthwise: bool = False

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape (out, in per group, …) of a kernel that is stored in this shape."""
        *spatial, first, second = stored
        return (first * second, 1, *spatial) if self.is_depthwise else (second, first, *spatial)

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Return a kernel's values as (out, in per group, …). Depthwise channels are in Keras' order, c · mult + m."""
        spatial = range(stored.ndim - 2)
        first, second = stored.ndim - 2, stored.ndim - 1
        if self.is_depthwise:
            return stored.transpose(first, second, *spatial).reshape(self.shape(stored.shape))
        return stored.transpose(second, first, *spatial)


def _plain(rank: int) -> tuple[Kernel, ...]:
    return (Kernel("kernel", rank),)


def _depthwise(rank: int) -> Kernel:
    return Kernel("depthwise_kernel", rank, is_depthwise=True)


KERNELS: dict[str, tuple[Kernel, ...]] = {
    **{f"Conv{d}D": _plain(d + 2) for d in (1, 2, 3)},
    **{f"Conv{d}DTranspose": _plain(d + 2) for d in (1, 2, 3)},
    **{f"ConvLSTM{d}D": _plain(d + 2) for d in (1, 2, 3)},
    **{f"DepthwiseConv{d}D": (_depthwise(d + 2),) for d in (1, 2)},
    **{f"SeparableConv{d}D": (_depthwise(d + 2), Kernel("pointwise_kernel", d + 2)) for d in (1, 2)},
    **{f"Convolution{d}D": _plain(d + 2) for d in (1, 2, 3)},
}
"""The kernels of the layers that convolve, in the order of Keras' weights."""

NORMS = frozenset({"BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2", "SyncBatchNormalization"})

CHANNELWISE = frozenset({
    "ActivityRegularization", "AlphaDropout", "Cropping1D", "Cropping2D", "Dropout", "GaussianDropout",
    "GaussianNoise", "Identity", "SpatialDropout1D", "SpatialDropout2D", "ZeroPadding1D", "ZeroPadding2D",
})  # fmt: skip
"""Layers that keep each channel's values, as a batch normalisation behind them needs to belong to a convolution."""

NO_CONVOLUTIONS = frozenset({"Dense", "EinsumDense", "GroupQueryAttention", "LocallyConnected2D", "MultiHeadAttention"})
"""Layers whose weights may have the rank of a kernel."""

TRANSPOSED = NotStoredError("transposed", "a transposed convolution")
RECURRENT = NotStoredError("operator", "a recurrent layer of convolutions (ConvLSTM), which is not supported")


def refusal(class_name: str, settings: dict[str, Any]) -> NotStoredError | None:
    """Return why the kernels of a layer's class are not stored; None if they are."""
    if class_name.endswith("Transpose"):
        return TRANSPOSED
    if class_name.startswith("ConvLSTM"):
        return RECURRENT
    if class_name.startswith("Convolution") or "nb_filter" in settings:
        return NotStoredError("operator", "a layer of Keras 1, whose weights depend on its backend; load and save it")
    return None


def contradiction(kernel: Kernel, settings: dict[str, Any], stored: tuple[int, ...]) -> NotStoredError | None:
    """Return why a kernel of this stored shape is not the layer's that has these settings; None if it may be."""
    expected: dict[str, Any] = {}
    if len(stored) != kernel.rank:
        expected["rank"] = kernel.rank
    size = settings.get("kernel_size")
    spatial = [1] * (kernel.rank - 2) if kernel.role == "pointwise_kernel" else _sizes(size, kernel.rank - 2)
    if spatial is not None and spatial != list(stored[: kernel.rank - 2]):
        expected["kernel_size"] = spatial
    name = "depth_multiplier" if kernel.is_depthwise else "filters"
    last = natural(settings.get(name))
    if stored and last is not None and last != stored[-1]:
        expected[name] = last
    if not expected:
        return None
    wanted = ", ".join(f"{name} {value}" for name, value in expected.items())
    return NotStoredError("unreadable", f"the weight has shape {stored}, its layer has {wanted}")


def groups(kernel: Kernel, settings: dict[str, Any], stored: tuple[int, ...]) -> int:
    """Return the groups of a convolution. Raises NotStoredError if there cannot be so many."""
    if kernel.is_depthwise:
        return stored[-2]
    number = natural(settings.get("groups", 1)) if kernel.role == "kernel" else 1
    if not number or stored[-1] % number:
        raise NotStoredError(
            "unreadable", f"{stored[-1]} output channels cannot be in {settings.get('groups')!r} groups"
        )
    return number


def spatial(kernel: Kernel, value: Any) -> list[int] | None:
    """Return strides or dilations of a config; None if they are not there."""
    rank = kernel.rank - 2
    return [1] * rank if kernel.role == "pointwise_kernel" else _sizes(value, rank)


def natural(value: Any) -> int | None:
    """Return a number of a config; None if it is no positive integer."""
    return value if type(value) is int and 0 < value < MAX_NUMBER else None


def _sizes(value: Any, rank: int) -> list[int] | None:
    """Return one number for each spatial dimension. Keras allows a single number for all."""
    values = value if isinstance(value, list) else [value] * rank
    return values if len(values) == rank and all(natural(number) for number in values) else None
