"""A Parquet table as texts: every value as its column's type says, whatever wrote the file.

Read by pyarrow, not by pandas, which turns integers with a missing value into floats, and whose index hides columns.
"""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np

MAX_ROWS = 10_000_000
"""Rows that a range index may make: it stands in the file as three numbers."""


def read_parquet(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of texts. A pandas index is a column if it has a name; missing values are empty.

    Raises ImportError without pyarrow, InputError or any of pyarrow's errors for what is no such table.
    """
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(io.BytesIO(data)).read()
    dropped, ranges = _index(table.schema.metadata or {})
    columns = dict[int, tuple[str, list[str]]]()
    for position, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if name not in dropped:
            columns[position] = (name.strip(), _texts(column))
    for name, values in ranges:
        if len(values) != table.num_rows:
            raise ValueError(f"a pandas index of {len(values)} rows for {table.num_rows}")
        columns[len(columns)] = (name.strip(), [str(value) for value in values])
    rows = [list(row) for row in zip(*(texts for _, texts in columns.values()), strict=True)]
    return [name for name, _ in columns.values()], rows


def _index(metadata: dict[bytes, bytes]) -> tuple[set[str], list[tuple[str, range]]]:
    """Return which columns are a pandas index without a name, and the named indexes that stand in the metadata only."""
    if b"pandas" not in metadata:
        return set(), []
    described = json.loads(metadata[b"pandas"])
    names = {str(column["field_name"]): column["name"] for column in described["columns"]}
    dropped, ranges = set(), []
    for index in described["index_columns"]:
        if isinstance(index, str):
            if names.get(index) is None:
                dropped.add(index)
        elif index["kind"] == "range" and index["name"] is not None:
            values = range(int(index["start"]), int(index["stop"]), int(index["step"]))
            if len(values) > MAX_ROWS:
                raise ValueError(f"a pandas index of {len(values):,} rows")
            ranges.append((str(index["name"]), values))
    return dropped, ranges


def _texts(column: Any) -> list[str]:
    """The values of a column (a pyarrow ChunkedArray) as texts."""
    import pyarrow

    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    values = [None if isinstance(value, float) and math.isnan(value) else value for value in column.to_pylist()]
    if pyarrow.types.is_floating(kind):
        present = [value for value in values if value is not None]
        if len(present) < len(values) and all(value.is_integer() and abs(value) < 2**53 for value in present):
            # pandas has made floats of integers because one is missing.
            return ["" if value is None else str(int(value)) for value in values]
        short = kind.to_pandas_dtype()  # 0.1, not the float64 0.10000000149011612
        return ["" if value is None else str(short(value)) for value in values]
    return [_text(value) for value in values]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    if isinstance(value, np.generic):
        value = value.item()
    return str(value).strip()
