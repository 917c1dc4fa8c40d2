"""Build the JSON answers of commands: the keys that all of them begin with, rows, and plain values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from filterdb import schema
from filterdb.commands import streams

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from filterdb.columns import Columns
    from filterdb.store.database import Database

Answer = dict[str, Any]

_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029]")

_ITEMS = 1_000
"""Items of a list that are encoded at a time."""

_ALIKE = 1e-4, 1e9
"""Sizes of the fractions that pyarrow writes as Python does."""

_BATCH = 2**20
"""Characters that are printed at a time."""

_NUMBERS = ("floor", "floor_q95", "model_floor", "model_floor_q95", "layer_floor", "layer_floor_q95", "permutations",
            "p_value", "q_value", "p_value_max", "detectable")  # fmt: skip
_WORDS = ("verdict", "judged_by", "interval_reason")

_OF_GROUPS = {"group_models": "models", "units": "units", "effective_units": "effective_units"}
"""The keys of a group's replication, and their variables."""


def print_answer(answer: Answer, as_json: bool, show: Callable[[Answer], None]) -> None:
    """Print an answer as one line of JSON, or with `show`."""
    if not as_json:
        show(answer)
        return
    for text in _batches(_pieces(answer)):
        click.echo(streams.ascii_json(text), nl=False)
    click.echo()


def plain(value: Any) -> Any:
    """Convert NumPy values and containers to types of JSON; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(answer: Answer) -> str:
    """Return one line of JSON. Control characters above ASCII are escaped too, because a terminal obeys them."""
    return "".join(_pieces(answer))


def _pieces(value: Any) -> Iterator[str]:
    """Yield the JSON of a value in pieces, so that that of a large matrix or table is never in memory as a whole."""
    if isinstance(value, dict):
        yield from _joined("{}", (chain([f"{_text(str(key))}: "], _pieces(item)) for key, item in value.items()))
    elif getattr(value, "ndim", 0) > 1:  # an array of NumPy, which takes long to import
        yield from _joined("[]", map(_pieces, value))
    elif getattr(value, "ndim", 0) == 1 and value.dtype.kind in "biuf":
        is_fast = value.dtype.kind == "f" and len(value) > _ITEMS and find_spec("pyarrow") is not None
        yield _floats(value) if is_fast else json.dumps(_numbers(value), allow_nan=False)
    elif isinstance(value, list) and len(value) > _ITEMS:
        parts = (_text(value[start : start + _ITEMS])[1:-1] for start in range(0, len(value), _ITEMS))
        yield from _joined("[]", ([part] for part in parts))
    else:
        yield _text(value)


def _joined(brackets: str, items: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield items, each of some pieces, with commas between them, in brackets."""
    separator = brackets[0]
    for item in items:
        yield separator
        yield from item
        separator = ", "
    yield brackets if separator == brackets[0] else brackets[1]


def _numbers(values: np.ndarray) -> list[Any]:
    """Return the values (n,) of a numeric array, None where they are not finite."""
    return [None if isinstance(item, float) and not math.isfinite(item) else item for item in values.tolist()]


def _floats(values: np.ndarray) -> str:
    """Return the JSON of an array of floats (n,) as `json` writes it, by pyarrow, in a third of the time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    size = np.abs(values)
    # pyarrow writes the same digits, but other numbers differ from Python's in form: 1 for 1.0, 0.00001 for 1e-05.
    is_alike = (size >= _ALIKE[0]) & (size < _ALIKE[1]) & (values != np.rint(values))
    texts = pc.cast(pa.array(values, pa.float64()), pa.string())
    others = [json.dumps(number) for number in _numbers(values[~is_alike])]
    if others:
        texts = pc.replace_with_mask(texts, pa.array(~is_alike), pa.array(others, pa.string()))
    row = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), texts)
    return f"[{pc.binary_join(row, ', ')[0].as_py()}]"


def _text(value: Any) -> str:
    """Return the JSON of a value."""
    text = json.dumps(plain(value), allow_nan=False, ensure_ascii=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _batches(pieces: Iterable[str]) -> Iterator[str]:
    """Yield pieces joined to texts of about a megabyte."""
    held, length = [], 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= _BATCH:
            yield "".join(held)
            held, length = [], 0
    yield "".join(held)


def head_of_database(db: Database) -> Answer:
    """Return the keys that every answer begins with, from a database."""
    about = {"snapshot": db.snapshot, "selection": " and ".join(db.conditions) or "all", **db.counts}
    return about | {"kernel": schema.kernel_name(db.kernel)}


def head_of_result(result: xr.Dataset | Columns) -> Answer:
    """Return the keys that every answer begins with, from a result's provenance."""
    return {name: result.attrs[name] for name in ("snapshot", "selection", "filters", "layers", "models", "kernel")}


def basis_of_result(result: xr.Dataset | Columns) -> Answer:
    """Return the basis of a result, how far the filters have moved from it, and the warning, if any."""
    moved = result.attrs.get("basis_moved")
    return {
        "basis": result.attrs.get("basis"),
        "basis_moved": None if moved is None else json.loads(moved),
        "basis_warning": result.attrs.get("basis_warning"),
    }


def rows(table: xr.Dataset | Columns, names: dict[str, str]) -> list[Answer]:
    """Return the rows of a table: `names` maps the key of a column to its variable. An unknown depth is None."""
    from filterdb.numerics.depth import NO_DEPTH

    columns = {name: table[variable].values.tolist() for name, variable in names.items()}
    for name in columns.keys() & {"conv_depth", "graph_depth"}:
        columns[name] = [None if depth == NO_DEPTH else depth for depth in columns[name]]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def rows_along(result: xr.Dataset, dim: str) -> list[Answer]:
    """Return a row for each position along a dimension, with all variables that have only this dimension."""
    names = {str(name): str(name) for name, array in result.variables.items() if array.dims == (dim,)}
    return rows(result, names)


def names_of_columns(table: Columns, renamed: dict[str, str], hidden: set[str]) -> dict[str, str]:
    """Return the key and variable of each column: the renamed ones, then all others that are not hidden."""
    shown = [name for name in table.variables if name not in hidden | set(renamed.values())]
    return {**renamed, **{name: name for name in shown if name not in renamed}}


def noise_of_pair(result: xr.Dataset) -> Answer:
    """Return floors, verdict and interval of one pair of groups; null without noise."""
    from filterdb.numerics.modes import MODES

    if not MODES[result.attrs["mode"]].has_noise:
        return {}
    groups = {key: result[name].values for key, name in _OF_GROUPS.items() if name in result}
    if "verdict" not in result:
        return _without_noise() | groups
    low, high = result["interval"].values.tolist()
    words = {name: result[name].item() or None for name in _WORDS}
    return {
        **groups,
        **{name: result[name].item() for name in _NUMBERS},
        **words,
        "interval": None if math.isnan(low) else [low, high],
        "interval_level": result["interval"].attrs["level"],
    }


def noise_of_matrix(result: xr.Dataset) -> Answer:
    """Return floors, verdicts and intervals of a drift matrix, null without noise, and the replication of groups."""
    groups = {key: result[name].values for key, name in _OF_GROUPS.items()}
    if "verdict" not in result:
        return _without_noise() | groups
    intervals = [
        [None if math.isnan(low) else [low, high] for low, high in row] for row in result["interval"].values.tolist()
    ]
    words = {name: [[word or None for word in row] for row in result[name].values.tolist()] for name in _WORDS}
    level = {"interval_level": result["interval"].attrs["level"]}
    return {**groups, **{name: result[name].values for name in _NUMBERS}, **words, "interval": intervals, **level}


def _without_noise() -> Answer:
    return dict.fromkeys((*_NUMBERS, *_WORDS, "interval", "interval_level"))
