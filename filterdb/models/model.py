"""What the reader of any format returns: a model's facts, its 3×3 layers, their weights, and what is not stored.

A new format implements `ModelFile` and `Layer` and adds itself to `formats.FORMATS`; everything else is shared.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import crc32c
import numpy as np

from filterdb.numerics.fingerprint import fingerprint
from filterdb.numerics.layer import largest_weight
from filterdb.schema import KERNEL

MAX_FILTERS = 2**28
"""Most filters of a model (9 GiB). A small file may use one weight in any number of layers, each of which is stored."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A convolution that is not stored (an empty `layer`: the whole file), with a one-word code and a reason."""

    layer: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Weight:
    """A decoded weight: filters (n, 9) float32 in C order of (out, in), each flattened row-major."""

    filters: np.ndarray
    source_dtype: str
    path: tuple[str, ...]
    scale_known: bool


class Layer(Protocol):
    """A 3×3 convolution whose weight can be read."""

    @property
    def name(self) -> str:
        """Name of the layer, unique in its model."""

    @property
    def row(self) -> dict[str, Any]:
        """Values of `schema.LAYER_VARIABLES` that are known without reading the weight."""

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
    """A model's facts, its 3×3 layers in order of (conv_depth, topological order), and what is not stored.

    `shapes` counts its filters by kernel shape; `facts` has the same counts as text.
    """

    facts: dict[str, Any]
    layers: Sequence[Layer]
    skipped: list[Skip]
    shapes: Counter[tuple[int, ...]]


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


class ModelFile(Protocol):
    """A parsed model file. Its weights may be in other files beside it."""

    def external_files(self) -> dict[str, int]:
        """Return the other files that hold weights, relative to its folder, and the bytes that each must have."""

    def model(self) -> Model:
        """List the model's layers, without reading a weight. Raises ModelError if the file is not a readable model."""


def weight_row(weight: Weight, out_channels: int) -> dict[str, Any]:
    """Return the values of a layer's row that describe its weight, such as its hash and peak."""
    return {
        "row_size": len(weight.filters),
        "source_dtype": weight.source_dtype,
        "weight_source": " → ".join(weight.path),
        "scale_known": weight.scale_known,
        "hash": filters_hash(weight.filters),
        "fingerprint": fingerprint(weight.filters, out_channels, weight.source_dtype),
        "peak": largest_weight(weight.filters),
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
    """Compute the SHA-256 of filters (n, 9) as little-endian float32, row by row."""
    return hashlib.sha256(np.ascontiguousarray(filters, dtype="<f4").data).hexdigest()


def filters_checksum(filters: np.ndarray) -> int:
    """Compute the CRC32C of filters (n, 9). It detects a changed file at almost no cost."""
    return int(crc32c.crc32c(np.ascontiguousarray(filters, dtype="<f4").data.cast("B")))
