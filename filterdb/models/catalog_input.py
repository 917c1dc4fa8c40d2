"""Accept a catalog as callers give it: a path, a URL, or a table in memory of pandas, polars or the like."""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol

from filterdb.arguments import unexpected
from filterdb.errors import InputError
from filterdb.models.catalog import ModelSource, parse_catalog, parse_rows
from filterdb.models.inputs import read_input
from filterdb.redaction import redact_url
from filterdb.store.files import local_path

IN_MEMORY = "catalog"
"""What a table in memory is called in messages. Its relative paths are below the working folder."""


class Convertible(Protocol):
    """A table that pandas can be made of, such as a polars.DataFrame or a pyarrow.Table."""

    def to_pandas(self) -> Any:
        """Return it as a pandas.DataFrame."""


type Catalog = str | os.PathLike[str] | Convertible | Any
"""A path or URL, a pandas.DataFrame, or a table with `to_pandas`."""


def as_catalog(catalog: Any) -> Any:
    """Return a path or URL as text, and a table as a pandas.DataFrame. Raises UsageError for anything else."""
    if isinstance(catalog, str | os.PathLike):
        text = os.fspath(catalog)
        if isinstance(text, str) and text:
            return text
    elif _is_frame(catalog):
        return catalog
    elif callable(getattr(catalog, "to_pandas", None)):
        frame = catalog.to_pandas()
        if _is_frame(frame):
            return frame
    raise unexpected("catalog", "a path, a URL or a DataFrame", catalog)


def read_catalog(catalog: Any, *, needs_path: bool = True) -> tuple[str, list[ModelSource]]:
    """Return the name in messages of a result of `as_catalog`, and a source for each of its rows.

    See `parse_catalog`. Raises InputError if the catalog cannot be used.
    """
    if isinstance(catalog, str):
        place = local_path(catalog)
        return redact_url(place), parse_catalog(read_input(place), place, needs_path=needs_path)
    columns, rows = _table(catalog)
    if not columns:
        raise InputError(f"{IN_MEMORY}: expected columns, got an empty DataFrame")
    return IN_MEMORY, parse_rows(columns, rows, IN_MEMORY, needs_path=needs_path)


def _is_frame(catalog: object) -> bool:
    """Return whether that is a pandas.DataFrame. If it is, the caller has already imported pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(catalog, pandas.DataFrame)


def _table(frame: Any) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of text. A named index is a column, as in a Parquet file."""
    named = [name for name in frame.index.names if name is not None]
    if named:
        frame = frame.reset_index(named)
    columns = [_texts(frame.iloc[:, position]) for position in range(frame.shape[1])]
    return [str(name).strip() for name in frame.columns], [list(row) for row in zip(*columns, strict=True)]


def _texts(column: Any) -> list[str]:
    """Return the values of a column as text; a missing value is empty.

    pandas turns whole numbers into floats where one is missing: then they are written as whole numbers again.
    """
    missing = column.isna().tolist()
    values = column.tolist()
    present = [value for value, is_missing in zip(values, missing, strict=True) if not is_missing]
    if any(missing) and all(isinstance(value, float) and value.is_integer() for value in present):
        values = [value if is_missing else int(value) for value, is_missing in zip(values, missing, strict=True)]
    return ["" if is_missing else str(value).strip() for value, is_missing in zip(values, missing, strict=True)]
