"""Decide which layers meet a condition: values, a range, or a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.columns import Columns
from filterdb.errors import InputError, UsageError
from filterdb.numerics.depth import NO_DEPTH
from filterdb.schema import LABELS
from filterdb.wording import counted, meant

Mask = npt.NDArray[np.bool_]

type Values = Any
"""What a condition accepts: a value or several, an inclusive range, or the result of a function of the values."""

UNKNOWN_DEPTH = ("conv_depth", "graph_depth")
"""Columns in which NO_DEPTH stands for a missing number."""

SHORT_NAMES = {"filters": "row_size", "depth": "conv_depth"}
"""Names by which columns of layers can be selected too, unless a catalog has a column of that name."""

_SHOWN = 12
"""Most values of a column in a message."""


def column_of(layers: Columns, name: str) -> npt.NDArray[Any]:
    """Return a column of a table of layers, (layers,). Raises UsageError, with a similar name, if it is unknown."""
    stored = name if name in layers else SHORT_NAMES.get(name, name)
    if stored in layers:
        return layers[stored].values
    usual = ", ".join([*LABELS[:3], "family", "depth_decile"])
    hint = meant(name, sorted({*layers.variables, *SHORT_NAMES, "depth_decile"})) or f", such as {usual}"
    raise UsageError(f"{name}: expected a label of layers or models{hint}")


def meeting(layers: Columns, name: str, values: Values, *, negate: bool) -> tuple[Mask, str]:
    """Return which layers of a table meet a condition, (layers,) bool, and the condition in words.

    Without a name, `values` is a function of the table. Raises UsageError for an invalid condition.
    """
    size = layers.sizes["layer"]
    if callable(values):
        function = _function_name(values)
        given = column_of(layers, name) if name else layers.to_dataset()
        mask = _as_mask(values(given), size, f"{name or 'select'}: {function}")
        words = f"{name or 'layers'} chosen by {function} ({int(mask.sum()):,} of {counted(size, 'layer')})"
    elif isinstance(values, slice):
        mask, words = _in_range(name, column_of(layers, name), values)
    else:
        texts = as_values(values)
        mask = np.isin(column_of(layers, name).astype(str), texts)
        return mask ^ negate, f"{name} {'!=' if negate else '='} {', '.join(texts)}"
    return mask ^ negate, f"not ({words})" if negate else words


def none_found(url: str, layers: Columns, name: str, words: str) -> InputError:
    """Return the error about a condition that no layer of a table meets, with values that its column has."""
    if not name:
        return InputError(f"{url}: expected {words.partition(' (')[0]}, found none")
    column = column_of(layers, name)
    existing = np.unique(column if column.dtype.kind in "biuf" else column.astype(str))
    if column.dtype.kind in "iuf" and len(existing) > _SHOWN:
        shown = f"{existing[0]} to {existing[-1]}"
    else:
        shown = ", ".join(map(str, existing[:_SHOWN]))
        shown += f" and {len(existing) - _SHOWN} more" if len(existing) > _SHOWN else ""
    return InputError(f"{url}: expected layers with {words}, found none; `{name}` has {shown}")


def _function_name(function: Callable[..., Any]) -> str:
    """Return a function in words. The name of a lambda says nothing, and is no identifier."""
    name = str(getattr(function, "__name__", ""))
    return f"the function {name}" if name.isidentifier() else "a function"


def as_values(values: Any) -> list[str]:
    """Return a value or several as texts."""
    listed = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    return list(map(str, listed))


def _in_range(name: str, column: npt.NDArray[Any], chosen: slice) -> tuple[Mask, str]:
    """Return which numbers lie between the ends of a slice, both included, as in xarray's label slices."""
    if column.dtype.kind not in "iuf":
        raise UsageError(f"{name}: expected values or a function, because the column is not numeric, got a slice")
    if chosen.step is not None:
        raise UsageError(f"{name}: expected a slice without a step, got the step {chosen.step!r}")
    for end in (chosen.start, chosen.stop):
        is_number = isinstance(end, int | float | np.integer | np.floating) and not isinstance(end, bool)
        if end is not None and not is_number:
            raise UsageError(f"{name}: expected numbers as the ends of a slice, got {end!r}")
    # A catalog's own columns are texts, so a column of numbers under a short name is the one that it stands for.
    mask: Mask = ~np.isnan(column) if column.dtype.kind == "f" else np.ones(len(column), bool)
    if SHORT_NAMES.get(name, name) in UNKNOWN_DEPTH:
        mask &= column != NO_DEPTH
    if chosen.start is not None:
        mask &= column >= chosen.start
    if chosen.stop is not None:
        mask &= column <= chosen.stop
    low = "" if chosen.start is None else f"{chosen.start} ≤ "
    high = "" if chosen.stop is None else f" ≤ {chosen.stop}"
    return mask, f"{low}{name}{high}" if low or high else f"{name} known"


def _as_mask(mask: Any, size: int, where: str) -> Mask:
    """Return the result of a function as (size,) bool: an array, a DataArray or a Series. Raises UsageError."""
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != (size,):
        got = f"{array.dtype} of shape {array.shape}"
        raise UsageError(f"{where}: expected a mask, bool of shape ({size},), got {got}")
    return array
