"""Make a model of the convolutions that a reader found in a file. Every format but ONNX is read through this module.

A reader lists all its convolutions as `Convolution`, in the file's order, with weights as (out, in per group, height,
width). What is stored of them, their names, their depth and the counts of filters follow here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes  # noqa: F401 - registers bfloat16 and float8 with NumPy
import numpy as np

from filterdb.models.model import Model, Room, Skip, Weight, check_shape, kernel_of, parted, shape_facts
from filterdb.models.parse_errors import NotStoredError, shortened
from filterdb.numerics.depth import NO_DEPTH
from filterdb.schema import Kernel, Kernels, distinct, has_bank

UNKNOWN_GROUPS = 0
"""The groups of a convolution whose file does not state them."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of a file.

    `shape` is that of the weight as (out, in per group, height, width), or with another number of spatial dimensions.
    `read` returns the weight in this shape, as real numbers of any type; it may raise NotStoredError, or what parsers
    raise. `place` is equal for layers that share a stored weight.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray] = field(repr=False)
    source_dtype: str
    place: Hashable
    path: tuple[str, ...] = ()
    """How the weight was reached, from the stored tensor on."""
    batch_norm: str = "unknown"
    """One of `schema.BATCH_NORM`."""
    length: int | None = None
    """Nodes on the longest path from an input, or the position in the file's order; None if both are unknown."""
    groups: int = UNKNOWN_GROUPS
    operator: str = ""
    """The file's name for this kind of convolution; empty if the file has only the tensor."""
    strides: Sequence[int] | None = None
    dilations: Sequence[int] | None = None
    scale_known: bool = True
    refused: NotStoredError | None = None
    """Why it is not to be stored, if the reader knows, such as a transposed convolution."""


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A convolution whose weight can be read (`model.Layer`)."""

    name: str
    row: dict[str, Any]
    stored_weight: int
    convolution: Convolution = field(repr=False)

    @property
    def kernel(self) -> Kernel:
        """Rows and columns of its filters."""
        return kernel_of(self.convolution.shape)

    @property
    def rank(self) -> int:
        """Dimensions of the convolution."""
        return len(self.convolution.shape) - 2

    @property
    def filters(self) -> int:
        """Number of filters according to the file's metadata."""
        return self.convolution.shape[0] * self.convolution.shape[1]

    def weight(self) -> Weight:
        """Decode the weight. Raises NotStoredError."""
        convolution = self.convolution
        values = convolution.read()
        if values.shape != convolution.shape:
            raise NotStoredError("unreadable", f"the weight has shape {values.shape}, expected {convolution.shape}")
        path = convolution.path or (self.name,)
        return Weight(as_filters(values, self.kernel), convolution.source_dtype, path, convolution.scale_known)


def make_model(
    convolutions: Sequence[Convolution],
    kernels: Kernels,
    *,
    source_format: str,
    depth_source: str,
    more: Sequence[Convolution] = (),
    **facts: Any,
) -> Model:
    """Return the model of a file's convolutions, with the layers of the kernel shapes that are asked for.

    `more` are convolutions that are listed only if their shapes are asked for; they change no name of the others.
    `source_format` is the format's name, and `depth_source` one of `schema.DEPTH_SOURCE`. Further `facts` may be
    `producer`, `opset`, `model_depth` and `operators` (counts by name).
    """
    names = distinct([shortened(convolution.name) for convolution in convolutions])
    names = distinct([*names, *(shortened(convolution.name) for convolution in more)])
    convolutions = [*convolutions, *more]
    ranks = {dimensions: _depth_ranks(convolutions, dimensions) for dimensions in (1, 2)}
    deepest = {dimensions: max(series.values(), default=0) for dimensions, series in ranks.items()}
    places: dict[Hashable, int] = {}
    shapes: Counter[tuple[int, ...]] = Counter()
    ranked: list[tuple[int, int, StoredLayer]] = []
    skipped: list[Skip] = []
    stored, read = Room(), Room()
    for position, (convolution, name) in enumerate(zip(convolutions, names, strict=True)):
        try:
            if convolution.refused is not None:
                raise convolution.refused
            check_shape(convolution.shape, shapes, kernels)
            (stored if has_bank(kernel_of(convolution.shape)) else read).take(convolution.shape)
        except NotStoredError as error:
            skipped.append(Skip(name, error.code, error.reason))
            continue
        dimensions = len(convolution.shape) - 2
        rank = NO_DEPTH if convolution.length is None else ranks[dimensions][convolution.length]
        row = _row(convolution, name, rank, deepest[dimensions])
        place = places.setdefault(convolution.place, len(places))
        ranked.append((rank, position, StoredLayer(name, row, place, convolution)))
    layers, others = parted(ranked)
    return Model(
        {
            "producer": str(facts.get("producer", "")),
            "opset": int(facts.get("opset", 0)),
            "model_depth": int(facts.get("model_depth", 0)),
            "operators": json.dumps(dict(facts.get("operators", {}))),
            "source_format": source_format,
            "depth_source": depth_source,
            **shape_facts(shapes),
        },
        layers,
        skipped,
        shapes,
        others,
    )


def _row(convolution: Convolution, name: str, rank: int, deepest: int) -> dict[str, Any]:
    """Return the values of a layer's row that are known without reading its weight."""
    known = rank != NO_DEPTH
    return {
        "layer_name": name,
        "conv_depth": rank,
        "conv_depth_norm": (rank / deepest if deepest else 0.0) if known else float("nan"),
        "graph_depth": convolution.length if convolution.length is not None else NO_DEPTH,
        "in_channels": convolution.shape[1],
        "out_channels": convolution.shape[0],
        "groups": convolution.groups,
        "depthwise": convolution.shape[1] == 1 and convolution.groups > 1,
        "operator": convolution.operator,
        "strides": _spatial(convolution.strides),
        "dilations": _spatial(convolution.dilations),
        "bn_folded": convolution.batch_norm != "unfolded",
        "batch_norm": convolution.batch_norm,
    }


def _spatial(numbers: Sequence[int] | None) -> str:
    return json.dumps(None if numbers is None else list(numbers))


def _depth_ranks(convolutions: Iterable[Convolution], dimensions: int) -> dict[int, int]:
    """Return the rank of each length among those of all convolutions of so many dimensions, stored or not."""
    lengths = {
        convolution.length
        for convolution in convolutions
        if convolution.length is not None and len(convolution.shape) - 2 == dimensions and convolution.refused is None
    }
    return {length: rank for rank, length in enumerate(sorted(lengths))}


def as_filters(values: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Convert a weight to filters (n, weights) float32.

    Raises NotStoredError for numbers that float32 cannot represent, if filters of this shape are stored.
    """
    weights = kernel[0] * kernel[1]
    with np.errstate(over="ignore", under="ignore"):
        filters = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, weights)
    if not has_bank(kernel):
        return filters
    if not np.isfinite(filters).all():
        bad = int(np.count_nonzero(~np.isfinite(filters)))
        raise NotStoredError("nonfinite", f"{bad} of {filters.size} weights are NaN or infinite in float32")
    if values.dtype == np.float64:
        peaks = np.abs(values).reshape(-1, weights).max(axis=1)
        lost = int(np.count_nonzero((peaks > 0) & (peaks < np.finfo(np.float32).tiny)))
        if lost:
            reason = f"{lost} of {len(filters)} filters are too small for float32 (all |w| below 1.2e-38)"
            raise NotStoredError("underflow", reason)
    return filters


def longest_paths(inputs: Sequence[Sequence[int]]) -> list[int | None]:
    """Return, for each node of a graph, the nodes on the longest path that ends there.

    `inputs[i]` has the positions of the nodes that node i reads. A path starts at a node without inputs, which counts
    as 1. Nodes on or behind a cycle have None.
    """
    consumers: list[list[int]] = [[] for _ in inputs]
    missing = [len(set(sources)) for sources in inputs]
    for node, sources in enumerate(inputs):
        for source in set(sources):
            consumers[source].append(node)
    lengths: list[int | None] = [1 if not count else None for count in missing]
    ready = [node for node, count in enumerate(missing) if not count]
    longest = [1] * len(inputs)
    while ready:
        node = ready.pop()
        lengths[node] = longest[node]
        for consumer in consumers[node]:
            longest[consumer] = max(longest[consumer], longest[node] + 1)
            missing[consumer] -= 1
            if not missing[consumer]:
                ready.append(consumer)
    return lengths
