"""Read a Parquet table as text, each value according to its column's type.

pyarrow reads it, because pandas converts integer columns with a missing value to floats and hides index columns.
"""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np

MAX_ROWS = 10_000_000
"""Most rows of a range index. The file stores such an index as three numbers, so they could be anything."""


def read_parquet(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of text. A named pandas index is a column; missing values are empty.

    Raises ImportError without pyarrow, and ValueError or any of pyarrow's errors if the data is not a table.
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
    """Return the columns that hold an unnamed pandas index, and the named indexes that only the metadata has."""
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
    """Convert the values of a column (a pyarrow ChunkedArray) to text."""
    import pyarrow

    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    values = [None if isinstance(value, float) and math.isnan(value) else value for value in column.to_pylist()]
    if pyarrow.types.is_floating(kind):
        present = [value for value in values if value is not None]
        if len(present) < len(values) and all(value.is_integer() and abs(value) < 2**53 for value in present):
            # pandas stored integers as floats because a value is missing.
            return ["" if value is None else str(int(value)) for value in values]
        short = kind.to_pandas_dtype()  # so that float32 0.1 becomes "0.1", not "0.10000000149011612"
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
