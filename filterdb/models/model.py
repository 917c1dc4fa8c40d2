"""What the reader of any format returns: a model's facts, its layers, their weights, and what is not stored.

A new format implements `ModelFile` and `Layer` and adds itself to `formats.FORMATS`; everything else is shared.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import crc32c
import numpy as np

from filterdb.models.parse_errors import NotStoredError
from filterdb.numerics.fingerprint import fingerprint
from filterdb.numerics.layer import largest_weight
from filterdb.schema import KERNEL, WEIGHTS, Kernel, Kernels, has_bank

MAX_FILTERS = 2**28
"""Most filters of a model. A small file may use one weight in any number of layers, each of which is stored."""

MAX_KERNELS = 64
"""Most kernel shapes of a model's filters, each of which takes a bank of the store. Networks have a dozen at most."""

MAX_WEIGHTS = WEIGHTS * MAX_FILTERS
"""Most weights of the filters of a model (9 GiB), which are as many filters of 3×3."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A convolution that is not stored (an empty `layer`: the whole file), with a one-word code and a reason."""

    layer: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Weight:
    """A decoded weight: filters (n, a·b) float32 in C order of (out, in), each flattened row-major.

    They are finite if filters of their shape are stored (`schema.has_bank`).
    """

    filters: np.ndarray
    source_dtype: str
    path: tuple[str, ...]
    scale_known: bool


class Layer(Protocol):
    """A convolution of a kernel shape that was asked for, whose weight can be read."""

    @property
    def name(self) -> str:
        """Name of the layer, unique in its model."""

    @property
    def row(self) -> dict[str, Any]:
        """Values of `schema.LAYER_VARIABLES` that are known without reading the weight."""

    @property
    def kernel(self) -> Kernel:
        """Rows and columns of its filters."""

    @property
    def rank(self) -> int:
        """Dimensions of the convolution: 2, or 1 for one whose filters of k weights are read as 1×k."""

    @property
    def filters(self) -> int:
        """Number of filters according to the file's metadata."""

    @property
    def stored_weight(self) -> int:
        """Identity of the weight in the file; equal for layers that share a stored weight."""

    def weight(self) -> Weight:
        """Decode the weight. Raises NotStoredError."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model's facts, its layers in order of (conv_depth, topological order), and what is not stored.

    `shapes` counts the filters of its two-dimensional convolutions by kernel shape, whichever were asked for; `facts`
    has the same counts as text. `others` are convolutions whose filters no bank has, in the same order. The conv_depth
    of one-dimensional convolutions is a series of its own, since it ranks those of equal dimensions only.
    """

    facts: dict[str, Any]
    layers: Sequence[Layer]
    skipped: list[Skip]
    shapes: Counter[tuple[int, ...]]
    others: Sequence[Layer] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a reader is asked to read of a file."""

    named: str
    """The file's name in messages."""
    memory: int
    """Bytes of memory that it may take."""
    key: str = ""
    """Which of several networks in the file, if the user chose one."""
    order: tuple[str, ...] = ()
    """Names of the layers in the order of execution, for a file without one."""
    kernels: Kernels = (KERNEL,)
    """The kernel shapes whose filters are read; None: all, and what is known of 1×1 and very large kernels too."""


class ModelFile(Protocol):
    """A parsed model file. Its weights may be in other files beside it."""

    def external_files(self) -> dict[str, int]:
        """Return the other files that hold weights, relative to its folder, and the bytes that each must have."""

    def model(self) -> Model:
        """List the model's layers, without reading a weight. Raises ModelError if the file is not a readable model."""


def kernel_of(shape: tuple[int, ...]) -> Kernel:
    """Return the kernel shape of a weight (out, in, height, width), or of (out, in, k), which is read as 1×k."""
    return (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2])


def is_wanted(kernel: Sequence[int], kernels: Kernels) -> bool:
    """Return whether filters of this shape are asked for, which has one or two dimensions."""
    if len(kernel) not in {1, 2}:
        return False
    return kernels is None or (*(1,) * (2 - len(kernel)), *kernel) in kernels


def wants_1d(kernels: Kernels) -> bool:
    """Return whether filters of a shape that one-dimensional convolutions may have are asked for."""
    return kernels is None or any(rows == 1 for rows, _ in kernels)


def check_shape(shape: tuple[int, ...], shapes: Counter[tuple[int, ...]], kernels: Kernels) -> None:
    """Check that a weight of shape (out, in, …) is asked for, and count its filters if it is two-dimensional.

    Raises NotStoredError, with the ledger's reason.
    """
    is_1d = len(shape) == 3 and is_wanted(shape[2:], kernels)
    if len(shape) != 4 and not is_1d:
        raise NotStoredError("rank", f"the weight has rank {len(shape)}, a filter of {len(shape) - 2} dimensions")
    if min(shape) < 1:
        raise NotStoredError("empty", f"the weight has shape {shape}")
    if not is_1d:
        shapes[shape[2:]] += shape[0] * shape[1]
        if not is_wanted(shape[2:], kernels):
            raise NotStoredError("kernel", f"the kernel is {shape[2]}×{shape[3]}")


@dataclass(slots=True)
class Room:
    """How many more filters and weights of a model may be stored, or read where no bank has their shape."""

    filters: int = field(default_factory=lambda: MAX_FILTERS)
    weights: int = field(default_factory=lambda: MAX_WEIGHTS)
    kernels: set[Kernel] = field(default_factory=set)
    """The shapes so far of filters that a bank has."""

    def take(self, shape: tuple[int, ...]) -> None:
        """Take the room of a weight. Raises NotStoredError if there is too little."""
        filters, weights = shape[0] * shape[1], math.prod(shape)
        kernels = self.kernels | ({kernel_of(shape)} if has_bank(kernel_of(shape)) else set())
        if len(kernels) > MAX_KERNELS:
            raise NotStoredError("many", f"with it the model would have filters of more than {MAX_KERNELS} shapes")
        if filters > self.filters:
            raise NotStoredError("many", f"with it the model would have more than {MAX_FILTERS:,} filters")
        if weights > self.weights:
            raise NotStoredError("many", f"with it the model's filters would have more than {MAX_WEIGHTS:,} weights")
        self.filters -= filters
        self.weights -= weights
        self.kernels = kernels


def parted[L: Layer](ranked: Sequence[tuple[int, int, L]]) -> tuple[list[L], list[L]]:
    """Return layers in order of (conv_depth, position): those whose filters are stored, and the others."""
    ordered = [layer for _, _, layer in sorted(ranked, key=lambda item: item[:2])]
    stored = [layer for layer in ordered if has_bank(layer.kernel)]
    return stored, [layer for layer in ordered if not has_bank(layer.kernel)]


def weight_row(weight: Weight, out_channels: int) -> dict[str, Any]:
    """Return the values of a layer's row that describe its weight, such as its hash and peak."""
    return {
        **stored_facts(weight),
        "fingerprint": fingerprint(weight.filters, out_channels, weight.source_dtype),
        "peak": largest_weight(weight.filters),
    }


def stored_facts(weight: Weight) -> dict[str, Any]:
    """Return the values of a layer's row that say what its weight is and how it was reached."""
    return {
        "row_size": len(weight.filters),
        "source_dtype": weight.source_dtype,
        "weight_source": " → ".join(weight.path),
        "scale_known": weight.scale_known,
        "hash": filters_hash(weight.filters),
    }


def shape_facts(shapes: Counter[tuple[int, ...]]) -> dict[str, Any]:
    """Return the facts of a model that count its filters by kernel shape."""
    counts = {kernel: count for kernel, count in sorted(shapes.items()) if count}
    total = sum(count for kernel, count in counts.items() if kernel != (1, 1))
    return {
        "filter_shapes": json.dumps({str(kernel): count for kernel, count in counts.items()}),
        "total_filters": total,
        "share_3x3": counts.get(KERNEL, 0) / total if total else float("nan"),
    }


def filters_hash(filters: np.ndarray) -> str:
    """Compute the SHA-256 of filters (n, weights) as little-endian float32, row by row."""
    return hashlib.sha256(np.ascontiguousarray(filters, dtype="<f4").data).hexdigest()


def filters_checksum(filters: np.ndarray) -> int:
    """Compute the CRC32C of filters (n, weights). It detects a changed file at almost no cost."""
    return int(crc32c.crc32c(np.ascontiguousarray(filters, dtype="<f4").data.cast("B")))
