"""Define every variable of a database (name, dimensions, dtype, units, meaning) and the format version.

A segment is a contiguous ragged array as in the CF conventions: the rows of `filters` belong to the layers in order,
`row_size` rows each, and `model_index` is the position of a layer's model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from filterdb.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

FORMAT = 5
"""Version of the store's layout that this code writes for 3×3 filters alone.

2 added removed models, labels, tags, manifests and marks. 3 added collected segments, and moved manifests beside the
Zarr groups. 4 added the variables `batch_norm`, `fingerprint`, `source_format` and `depth_source`. 5 packs the tables
of a segment into one object, and long lists of segments into pages.
"""

FORMAT_OF_BANKS = 6
"""Version of a snapshot that lists filters of other shapes, which earlier versions of filterdb cannot read."""

READABLE = (1, 2, 3, 4, 5, FORMAT_OF_BANKS)
"""Versions that this code reads; any other is rejected."""

Kernel = tuple[int, int]
"""Shape of the filters of a bank: rows and columns."""

KERNEL: Kernel = (3, 3)
"""The shape of the filters that every segment has, and of those that answers are about unless another is asked for."""

WEIGHTS = KERNEL[0] * KERNEL[1]
"""Number of weights of such a filter, flattened row-major."""


def kernel_name(kernel: Kernel) -> str:
    """Return the name of a kernel shape in stores, commands and answers, such as "5x5"."""
    return f"{kernel[0]}x{kernel[1]}"


def kernel_text(kernel: Kernel) -> str:
    """Return a kernel shape as sentences have it, such as "5×5"."""
    return f"{kernel[0]}×{kernel[1]}"


Kernels = tuple[Kernel, ...] | None
"""Kernel shapes that are asked for; None: all."""

MAX_WEIGHTS = 256
"""Most weights of a filter in a bank. A patch embedding has more, and is no filter of local patterns."""


def has_bank(kernel: Kernel) -> bool:
    """Return whether filters of this shape are stored: those of 2 to 256 weights."""
    return 2 <= kernel[0] * kernel[1] <= MAX_WEIGHTS


_KERNEL_NAME = re.compile(r"([1-9][0-9]{0,2})x([1-9][0-9]{0,2})")


def parse_shape(text: str) -> Kernel:
    """Return the kernel shape of a name such as "5x5" or "1x1", of any size. Raises UsageError."""
    match = _KERNEL_NAME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"kernel: expected rows and columns such as 5x5, got {text[:40]!r}")
    return int(match[1]), int(match[2])


def parse_kernel(text: str) -> Kernel:
    """Return the kernel shape of a name such as "5x5". Raises UsageError if no filters of such a shape are stored."""
    kernel = parse_shape(text)
    if not has_bank(kernel):
        weights = kernel[0] * kernel[1]
        raise UsageError(
            f"kernel: expected a shape of 2 to {MAX_WEIGHTS} weights, got {text.strip()}, which has {weights}"
        )
    return kernel


def as_kernel(kernel: Any) -> Kernel:
    """Return a kernel shape, a name such as "5x5" or a pair such as (5, 5), as a tuple. Raises UsageError otherwise."""
    if isinstance(kernel, tuple | list) and len(kernel) == 2 and all(type(side) is int for side in kernel):
        return parse_kernel(f"{kernel[0]}x{kernel[1]}")
    if isinstance(kernel, str):
        return parse_kernel(kernel)
    raise UsageError(f"kernel: expected rows and columns such as 5x5 or (5, 5), got {type(kernel).__name__}")


def parse_kernels(text: str) -> Kernels:
    """Return the kernel shapes of a list such as "3x3,5x5", sorted and each once; None for "all".

    Raises UsageError if the list is empty, or a name is not that of a shape whose filters are stored.
    """
    if text.strip() == "all":
        return None
    if not text.strip():
        raise UsageError("kernels: expected shapes such as 3x3,5x5, or all, got an empty text")
    return tuple(sorted({parse_kernel(name) for name in text.split(",")}))


AnyKernel = Kernel | str
"""What public functions accept as `kernel`: a shape, or its name such as "5x5"."""


CHUNK_ROWS = 1_048_576
"""Default number of filters in a Zarr chunk (36 MiB)."""

UNKNOWN = "unknown"
"""The label for a missing catalog value."""

REJECTED = "rejected"
"""The ledger's code for a file that cannot be read as a model."""

LABELS = (
    "task",
    "visual_category",
    "training_dataset",
    "pretraining_dataset",
    "family",
    "architecture",
    "precision",
    "paper",
    "url",
)
"""The catalog's columns besides `path` and `name`, in the catalog's order."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable. `dtype` is a NumPy dtype string, or "str" for UTF-8 text."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    doc: str
    units: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    since: int = 1
    """The first format whose segments have it."""
    missing: Any = None
    """Its value for every row of an earlier segment."""

    @property
    def attrs(self) -> dict[str, Any]:
        """The variable's attributes in the store."""
        units = {} if self.units is None else {"units": self.units}
        return {"long_name": self.doc, **units, **self.attributes}

    def array(self, values: Any) -> np.ndarray:
        """Return `values` as an array of this variable's dtype (text as NumPy's variable-width strings)."""
        import numpy as np  # takes 0.1 s, which commands save that only print their help

        return np.asarray(values, dtype=np.dtypes.StringDType() if self.dtype == "str" else np.dtype(self.dtype))


def _variables(dims: tuple[str, ...], *rows: tuple[Any, ...]) -> tuple[Variable, ...]:
    return tuple(Variable(row[0], dims, row[1], row[2], *row[3:]) for row in rows)


def _added(dims: tuple[str, ...], since: int, name: str, doc: str, missing: str) -> Variable:
    """Return a variable of text that format `since` added."""
    return Variable(name, dims, "str", doc, since=since, missing=missing)


BATCH_NORM = ("folded", "unfolded", "none", "unknown")
"""Where the batch normalisation after a convolution is: in its weight, apart, nowhere, or the file does not say."""

DEPTH_SOURCE = ("graph", "order", "none")
"""What gave the depths of a model: its graph, the order of its weights, or nothing."""

FILTERS = Variable(
    "filters", ("filter", "weight"), "float32", "3×3 filters of the layers in order, flattened row-major"
)


def filters_attrs(kernel: Kernel) -> dict[str, Any]:
    """Return the attributes of the filters of a bank."""
    return {**FILTERS.attrs, "long_name": FILTERS.doc.replace("3×3", f"{kernel[0]}×{kernel[1]}")}


LAYER_VARIABLES = (
    *_variables(
        ("layer",),
        ("row_size", "int64", "number of filters of the layer", "1", {"sample_dimension": "filter"}),
        (
            "model_index",
            "int64",
            "position of the layer's model along `model`",
            None,
            {"instance_dimension": "model"},
        ),
        (
            "layer_name",
            "str",
            "name of the convolution node, else of its weight or first output; unique within the model",
        ),
        (
            "conv_depth",
            "int64",
            "rank of the node's longest path among those of the model's convolutions; −1 unknown",
            "1",
        ),
        ("conv_depth_norm", "float64", "conv_depth divided by the largest conv_depth of the model; NaN unknown", "1"),
        ("graph_depth", "int64", "nodes on the longest path from a graph input to this node; −1 unknown", "1"),
        ("in_channels", "int64", "input channels per group", "1"),
        ("out_channels", "int64", "output channels", "1"),
        ("groups", "int64", "groups of the convolution; 0 if the file does not say", "1"),
        ("depthwise", "bool", "one input channel per group, more than one group"),
        ("operator", "str", "the file's name of the operator, such as Conv; empty if the file has no graph"),
        ("strides", "str", "strides as JSON"),
        ("dilations", "str", "dilations as JSON"),
        ("source_dtype", "str", "dtype of the weight where it is stored in the model"),
        ("weight_source", "str", "how the weight was reached, from its constant to the convolution"),
        ("bn_folded", "bool", "no BatchNormalization consumes the convolution"),
        ("scale_known", "bool", "false where an integer weight's scale could not be found"),
        ("hash", "str", "SHA-256 of the layer's float32 filters"),
        ("peak", "float64", "largest absolute weight of the layer"),
        ("orthogonality", "float64", "1 − mean |cosine| between output channels; NaN for a single channel", "1"),
    ),
    _added(("layer",), 4, "batch_norm", f"batch normalisation: {', '.join(BATCH_NORM)}", "unknown"),
    _added(("layer",), 4, "fingerprint", "the filters apart from each output channel's scale; empty: too few", ""),
)

MODEL_VARIABLES = (
    *_variables(
        ("model",),
        ("model", "str", "id of the model: the catalog's name, else its path"),
        ("file_hash", "str", "SHA-256 of the model file and the files of its external data"),
        (
            "duplicate_of",
            "str",
            "id of an earlier model with the same file, or with the same filters apart from scales, or empty",
        ),
        *((name, "str", f"the catalog's {name.replace('_', ' ')}") for name in LABELS),
        ("extra", "str", "further catalog columns as JSON"),
        ("producer", "str", "producer name and version"),
        ("opset", "int64", "version of the default operator set", "1"),
        ("model_depth", "int64", "distinct longest-path lengths over all nodes", "1"),
        ("operators", "str", "operator counts as JSON"),
        ("filter_shapes", "str", "filters by kernel shape as JSON"),
        ("total_filters", "int64", "filters of every kernel shape but 1×1", "1"),
        ("share_3x3", "float64", "share of the 3×3 filters among total_filters; NaN where there is none", "1"),
    ),
    _added(("model",), 4, "source_format", "format of the model file", "ONNX"),
    _added(("model",), 4, "depth_source", f"what gave the depths: {', '.join(DEPTH_SOURCE)}", "graph"),
)

SKIPPED_VARIABLES = _variables(
    ("skipped",),
    ("skipped_model", "str", "id of the model"),
    ("skipped_layer", "str", "name of the convolution that is not stored; empty: the whole file"),
    ("skipped_code", "str", "kind of reason, one word"),
    ("skipped_reason", "str", "why it is not stored"),
)

TABLES = (*LAYER_VARIABLES, *MODEL_VARIABLES, *SKIPPED_VARIABLES)
"""All variables of a segment except its filters, without those of banks of other kernel shapes."""

BANK_VARIABLES = (
    *LAYER_VARIABLES,
    Variable("rank", ("layer",), "int64", "dimensions of the convolution: 2, or 1 for one that is stored as 1×k", "1"),
)
"""The variables of the layers of a bank of another kernel shape than 3×3."""

OTHER = "other"
"""The name, among those of banks, of the layers whose kernel is 1×1 or too large: their filters are not stored."""

OTHER_VARIABLES = (
    *BANK_VARIABLES,
    *_variables(
        ("layer",),
        ("kernel", "str", "shape of the kernel, such as 1x1"),
        ("sparse_filters", "int64", "filters whose |w| are all below peak/100", "1"),
        (
            "duplicate_filters",
            "int64",
            "filters that equal an earlier one of the layer; for a kernel of one weight, such output channels",
            "1",
        ),
        ("nonfinite", "int64", "weights that are NaN or infinite", "1"),
    ),
)
"""The variables of layers whose filters are not stored."""


def variables_of(bank: str) -> tuple[Variable, ...]:
    """Return the variables of the layers of a bank, such as "5x5", or of the layers without one, `OTHER`."""
    if bank == kernel_name(KERNEL):
        return LAYER_VARIABLES
    return OTHER_VARIABLES if bank == OTHER else BANK_VARIABLES


def in_pack(bank: str, variable: str) -> str:
    """Return the name that a variable of a bank has among a segment's tables. The 3×3 layers have no prefix."""
    return variable if bank == kernel_name(KERNEL) else f"{bank}/{variable}"


IN_GROUP = ("row_size", "model_index", "model", *LABELS)
"""The table variables that are also in a segment's Zarr group, so that any reader of Zarr finds labels of filters."""


def tables_of(written_as: int) -> tuple[Variable, ...]:
    """Return the table variables of a format."""
    return tuple(variable for variable in TABLES if variable.since <= written_as)


def distinct(names: list[str]) -> list[str]:
    """Make names unique: a repeated name gets the suffix `#k`, with the next k = 2, 3, … that no other name has."""
    taken = set(names)
    counts = dict.fromkeys(names, 0)
    unique = []
    for name in names:
        # The count continues from the last use of this name, so that many equal names take linear time.
        counts[name] += 1
        while counts[name] > 1 and f"{name}#{counts[name]}" in taken:
            counts[name] += 1
        unique.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return unique
