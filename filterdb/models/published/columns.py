"""Untrusted tables: columns whose cells are validated when they are read, and the errors for invalid ones."""

from __future__ import annotations

import csv
import io
import pickle
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from filterdb.errors import InputError
from filterdb.models.parse_errors import PARSE_ERRORS

MAX_CSV = 128 * 2**20
"""Most bytes of a CSV table, which takes several times as much in memory."""

AGAIN = "download the file again, or take https://doi.org/10.5281/zenodo.6371680"
"""The remedy for a file that differs from the published one."""

TABLE_ERRORS = (
    *PARSE_ERRORS, OSError, RuntimeError, LookupError, EOFError, zlib.error, csv.Error, pickle.UnpicklingError,
)  # fmt: skip
"""What libraries raise for damaged or hostile data."""


def refusal(where: str, expected: str, got: str, remedy: str = AGAIN) -> InputError:
    """Return the error for data that cannot be used, with a message of one line."""
    line = " ".join(f"{where}: expected {expected}, got {got}; {remedy}".split())
    return InputError(line if len(line) <= 600 else f"{line[:600]}…")


@contextmanager
def refusing(where: str, expected: str = "the published data set", remedy: str = AGAIN) -> Iterator[None]:
    """Turn the errors that libraries raise for invalid data into InputError."""
    try:
        yield
    except InputError:
        raise
    except TABLE_ERRORS as error:
        raise refusal(where, expected, str(error)[:200].strip() or type(error).__name__, remedy) from error


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length, by name. `where` names the table in messages.

    Methods raise ValueError for an invalid cell.
    """

    columns: Mapping[str, Sequence[Any] | np.ndarray]
    where: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def require(self, *names: str) -> None:
        """Raise InputError if one of these columns is missing."""
        for name in names:
            if name not in self.columns:
                raise refusal(self.where, f"a column {name}", ", ".join(list(self.columns)[:12]) or "none")

    def cell(self, name: str, row: int) -> Any:
        """Return a cell as a Python value; None if the table has no such column."""
        value = self.columns[name][row] if name in self.columns else None
        return value.item() if isinstance(value, np.generic) else value

    def text(self, name: str, row: int) -> str:
        """Return a cell as text; "" if it is missing."""
        return as_text(self.cell(name, row))

    def natural(self, name: str, row: int, missing: int | None = None) -> int:
        """Return a cell as an integer ≥ 0. If the cell is missing, return `missing` unless that is None."""
        text = self.text(name, row)
        if not text and missing is not None:
            return missing
        match = re.fullmatch(r"([0-9]{1,18})(\.0*)?", text)
        if not match or int(match[1]) >= 2**53:
            raise ValueError(f"{text[:80]!r} as {name or 'the first column'}")
        return int(match[1])

    def real(self, name: str, row: int) -> float:
        """Return a cell as a float; NaN if it is missing."""
        return float(self.text(name, row) or "nan")

    def varies(self, name: str, groups: Iterable[list[int]]) -> bool:
        """Return whether a column varies among the rows of some group, or contains lists."""
        try:
            return any(len({self.text(name, row) for row in rows}) > 1 for rows in groups)
        except ValueError:
            return True


def csv_table(data: bytes, where: str) -> Table:
    """Parse a CSV table as text. Repeated column names get .1, .2, … as in pandas. Raises InputError."""
    if len(data) > MAX_CSV:
        raise refusal(where, f"at most {MAX_CSV:,} bytes of CSV", f"{len(data):,}")
    with refusing(where, "CSV in UTF-8"):
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        names: list[str] = []
        seen: Counter[str] = Counter()
        for name in map(str.strip, next(reader, [])):
            names.append(f"{name}.{seen[name]}" if seen[name] else name)
            seen[name] += 1
        columns: list[list[str]] = [[] for _ in names]
        shared: dict[str, str] = {}
        for number, row in enumerate(filter(None, reader), start=1):
            if len(row) != len(columns):
                raise refusal(f"{where} row {number}", f"{len(columns)} fields as in the head", f"{len(row)}")
            for cells, cell in zip(columns, row, strict=True):
                cells.append(shared.setdefault(cell, cell))
    if not columns or not columns[0]:
        raise refusal(where, "a table with rows", "none")
    return Table(dict(zip(names, columns, strict=True)), where)


def as_text(value: object) -> str:
    """Convert a cell to text that UTF-8 can encode; "" if it is missing. Raises ValueError for a list."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if not isinstance(value, str | int | float | None):
        raise ValueError("a list where text was expected")
    text = "" if value is None else str(value).strip()
    return "" if text in {"nan", "NaN"} else text.encode("utf-8", "replace").decode("utf-8")
