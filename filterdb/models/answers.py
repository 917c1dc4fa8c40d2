"""Validate what a child process answers about a model file.

A child may be controlled by the file that it reads. It can lie about the model, but do nothing else.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection
from typing import Any

import numpy as np

from filterdb import schema
from filterdb.models.model import MAX_FILTERS, MAX_KERNELS, MAX_WEIGHTS, Skip, is_wanted
from filterdb.models.parse_errors import MAX_NAME, shortened
from filterdb.models.sandbox import NoAnswerError
from filterdb.schema import Kernels

MAX_TEXT = 2**22
"""Most characters of a text in a table. The longest are a model's operators and filter shapes."""

MAX_REASON = 2 * MAX_NAME
"""Most characters of a reason, which may begin with a path."""

OTHER_VARIABLES = (
    schema.Variable("sparse_filters", ("layer",), "int64", "filters whose |w| are all below peak/100", "1"),
    schema.Variable(
        "duplicate_filters",
        ("layer",),
        "int64",
        "filters that equal an earlier one of the layer and are not sparse; for 1×1, such output channels",
        "1",
    ),
    schema.Variable("nonfinite", ("layer",), "int64", "weights that are NaN or infinite in float32", "1"),
)
"""What a scan counts in layers whose filters no bank has. Their `peak` is that of the finite weights."""

EXAMINED_OTHERS = (
    schema.Variable("shared_with", ("layer",), "str", "earlier layer that uses the same stored weight, or empty"),
    schema.Variable("channel_p_value", ("layer",), "float64", "of the test whether 1×1 channels are isotropic noise"),
    schema.Variable("norm", ("layer",), "float64", "√Σw²"),
)
"""What `examine` returns for these layers besides."""

EXAMINED = (
    *(v for v in schema.LAYER_VARIABLES if v.name in {
        "layer_name", "row_size", "conv_depth", "conv_depth_norm", "in_channels", "out_channels", "groups",
        "depthwise", "operator", "scale_known", "hash", "fingerprint", "peak",
    }),
    schema.Variable("variance_entropy", ("layer",), "float64", "H of the layer's own raw PCA (P1 eq. 7)"),
    schema.Variable("direction", ("layer",), "int64", "code of the direction that the filters share"),
    schema.Variable("direction_share", ("layer",), "float64", "share of the filters' energy in this direction"),
    schema.Variable("p_value", ("layer",), "float64", "of the test whether filters are isotropic noise"),
    schema.Variable("relative_spread", ("layer",), "float64", "spread of filters / norm of their mean"),
    schema.Variable("centre_energy", ("layer",), "float64", "share of Σf² in the centre weight"),
    schema.Variable("norm", ("layer",), "float64", "√Σw²"),
    schema.Variable("sparse_filters", ("layer",), "int64", "filters whose |w| are all below peak/100", "1"),
    schema.Variable("duplicate_filters", ("layer",), "int64", "filters that equal an earlier one of the layer", "1"),
    schema.Variable("prunable_filters", ("layer",), "int64", "filters below a hundredth of their channel", "1"),
    schema.Variable("zero_channels", ("layer",), "int64", "output channels whose weights are all zero", "1"),
    schema.Variable("small_channels", ("layer",), "int64", "other output channels that lie below peak/100", "1"),
    schema.Variable("outlier_ratio", ("layer",), "float64", "peak / upper quartile of the channels' peaks", "1"),
    schema.Variable("shared_with", ("layer",), "str", "earlier layer that uses the same stored weight, or empty"),
    schema.Variable("nonfinite", ("layer",), "str", "how many weights are NaN or infinite, or empty"),
)  # fmt: skip
"""What `examine` returns for each layer."""

DESCRIBED = tuple(
    variable for variable in schema.LAYER_VARIABLES if variable.name in {"strides", "dilations", "source_dtype"}
)
"""What it returns besides if the first filters are asked for, each as text."""


def first_filters(text: Any, row: dict[str, Any], most: int) -> np.ndarray:
    """Return the first filters of a layer, (number, weights) float32, from base64 of little-endian float32.

    Raises ValueError unless they are at most `most` filters of the layer's shape, all finite.
    """
    raw = base64.b64decode(as_value(text, "str"), validate=True)
    filters = np.frombuffer(raw, "<f4").reshape(-1, weights_of(row))
    if len(filters) > min(most, row["row_size"]) or not np.isfinite(filters).all():
        raise ValueError("filters that the layer cannot have")
    return filters


def model_facts(values: Any) -> dict[str, Any]:
    """Return the values of `schema.MODEL_VARIABLES` that a file says of its model."""
    return _row(values, schema.MODEL_VARIABLES, _OURS)


def filters_shape(value: Any) -> tuple[int, int]:
    """Return how many filters of how many weights a child wants to send."""
    if not isinstance(value, list) or len(value) != 2 or not all(type(number) is int for number in value):
        raise NoAnswerError("filters that are no array")
    filters, weights = value
    if filters < 1 or not 2 <= weights <= schema.MAX_WEIGHTS:
        raise NoAnswerError("filters of a shape that no bank has")
    return filters, weights


Checked = tuple[dict[str, Any], list[dict[str, Any]], list[int], list[dict[str, Any]], list[Skip]]


def checked(answer: dict[str, Any], kernels: Kernels = (schema.KERNEL,)) -> Checked:
    """Return the facts, rows, checksums, other rows and skipped layers of an answer, and ignore anything else in it.

    The child may be controlled by the file that it reads. It can lie about the model, but do nothing else. Raises one
    of PARSE_ERRORS for missing values, for values that their variables cannot hold, and for layers of kernel shapes
    that were not asked for.
    """
    facts = model_facts(answer["facts"])
    rows = [layer_row(row, _LAYER_VARIABLES, kernels, is_stored=True) for row in as_list(answer["rows"])]
    checksums = [as_value(value, "int64") for value in as_list(answer["checksums"])]
    others = other_rows(answer, kernels)
    skipped = [Skip(*skipped_layer(entry)) for entry in as_list(answer["skipped"])]
    if len(checksums) != len(rows) or len({row["layer_name"] for row in (*rows, *others)}) < len(rows) + len(others):
        raise ValueError("layers without a checksum or a name of their own")
    weights = sum(row["row_size"] * weights_of(row) for row in rows)
    if sum(row["row_size"] for row in rows) > MAX_FILTERS or weights > MAX_WEIGHTS:
        raise ValueError("layers with too many filters")
    if len({row["kernel"] for row in rows}) > MAX_KERNELS:
        raise ValueError("filters of too many shapes")
    if not all(0 <= row["peak"] < math.inf for row in rows):
        raise ValueError("weights that are not finite")
    return facts, rows, checksums, others, skipped


_LAYER_VARIABLES = tuple(variable for variable in schema.LAYER_VARIABLES if variable.name != "model_index")


def layer_row(
    values: Any, variables: tuple[schema.Variable, ...], kernels: Kernels, *, is_stored: bool
) -> dict[str, Any]:
    """Return the values of a layer of a kernel shape that was asked for, whose filters a bank has if `is_stored`."""
    row = _row(values, variables, ())
    name, rank = as_value(values["kernel"], "str"), as_value(values["rank"], "int64")
    rows, columns = (int(number) for number in name[:20].split("x"))
    kernel = (rows, columns)
    if schema.kernel_name(kernel) != name or min(kernel) < 1 or schema.has_bank(kernel) != is_stored:
        raise ValueError(f"a kernel {name[:20]!r}")
    if rank not in {1, 2} or (rank == 1 and rows != 1) or not is_wanted(kernel, kernels):
        raise ValueError(f"a kernel {name[:20]!r} of rank {rank}, which was not asked for")
    if row["row_size"] < 1:
        raise ValueError("layers without filters")
    return {**row, "kernel": name, "rank": rank}


def other_rows(
    answer: dict[str, Any], kernels: Kernels, more: tuple[schema.Variable, ...] = ()
) -> list[dict[str, Any]]:
    """Return the rows of the layers whose filters no bank has, with values of `more` variables."""
    variables = (*_LAYER_VARIABLES, *OTHER_VARIABLES, *more)
    rows = [layer_row(row, variables, kernels, is_stored=False) for row in as_list(answer["others"])]
    for row in rows:
        counts = [(row[name], row["row_size"]) for name in ("sparse_filters", "duplicate_filters")]
        counts.append((row["nonfinite"], row["row_size"] * weights_of(row)))
        if not 0 <= row["peak"] < math.inf or not all(0 <= count <= total for count, total in counts):
            raise ValueError("counts that no weight has")
    return rows


def weights_of(row: dict[str, Any]) -> int:
    """Return how many weights a filter of a layer has, by the name of its kernel's shape."""
    rows, columns = map(int, row["kernel"].split("x"))
    return rows * columns


_OURS = {"model", "file_hash", "duplicate_of", "extra", *schema.LABELS}
"""Variables of a model that this process and the catalog provide, not the child."""

_TYPES: dict[str, tuple[type, ...]] = {"int64": (int,), "float64": (float, int), "bool": (bool,), "str": (str,)}


def as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list that is a {type(value).__name__}")
    return value


def _row(values: Any, variables: tuple[schema.Variable, ...], elsewhere: Collection[str]) -> dict[str, Any]:
    return {
        variable.name: as_value(values[variable.name], variable.dtype)
        for variable in variables
        if variable.name not in elsewhere
    }


def as_value(value: Any, dtype: str) -> Any:
    """Return `value` if a variable of this type can hold it. Raises TypeError, OverflowError or ValueError."""
    if type(value) not in _TYPES[dtype] or (dtype == "str" and len(value) > MAX_TEXT):
        raise TypeError(f"{dtype}: {shortened(repr(value), 100)}")
    if dtype == "int64" and not -(2**63) <= value < 2**63:
        raise OverflowError(f"{dtype}: {value}")
    if dtype == "str":
        value.encode()  # raises ValueError for a lone surrogate
    return value


def skipped_layer(entry: Any) -> tuple[str, str, str]:
    layer, code, reason = (as_value(value, "str") for value in entry)
    if not code.removesuffix("?").isalpha() or len(code) > 20 or code == schema.REJECTED:
        raise ValueError(f"a code {code[:20]!r}")
    return layer, code, shortened(reason, MAX_REASON)
