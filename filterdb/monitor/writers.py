"""Write the rows of measurements: as CSV, as Parquet, or for TensorBoard."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any, Protocol

from filterdb.errors import StoreError, UsageError
from filterdb.extras import named_extras, require
from filterdb.monitor.alarms import Alarm
from filterdb.monitor.rows import COLUMNS, NUMBERS, Row

EXPECTED = "a path ending in .csv or .parquet, a folder for TensorBoard, a SummaryWriter, or a list of these"


class Writer(Protocol):
    """Write rows somewhere. Any object with these methods can be passed to `Callback`."""

    def write(self, rows: Sequence[Row], alarms: Sequence[Alarm]) -> None:
        """Write the rows of a measurement, and the alarms that it raised."""

    def close(self) -> None:
        """Close the file. No row follows."""


def as_writers(to: Any, *, goes_on: bool = False) -> list[Writer]:
    """Return the writers for `Callback`'s argument `to`; `goes_on` if the same callback has written there before.

    Raises UsageError for an unsupported value, and StoreError for a file that cannot be written or added to.
    """
    if to is None:
        return []
    if isinstance(to, list | tuple):
        return [writer for single in to for writer in as_writers(single, goes_on=goes_on)]
    if isinstance(to, str | os.PathLike):
        path = Path(os.fspath(to))
        if path.suffix.lower() == ".csv":
            return [CsvWriter(path)]
        if path.suffix.lower() == ".parquet":
            return [ParquetWriter(path, goes_on=goes_on)]
        if not path.suffix or path.is_dir():
            return [TensorBoardWriter(_summary_writer(path))]
        raise UsageError(f"to: expected {EXPECTED}, got {path.name}")
    if hasattr(to, "add_scalar"):
        return [TensorBoardWriter(to, closes=False)]
    if hasattr(to, "write") and hasattr(to, "close"):
        return [to]
    raise UsageError(f"to: expected {EXPECTED}, got {type(to).__name__}")


class CsvWriter:
    """Append rows to a CSV file and flush each measurement, so that a run that dies keeps its rows.

    A file of an earlier run keeps its rows. Raises StoreError if its columns are others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a+", newline="", encoding="utf-8", errors="replace")
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror}); choose another file") from error
        self.rows = csv.writer(self.file)
        self.file.seek(0)
        header = self.file.readline()
        if not header:
            self.rows.writerow(COLUMNS)
        elif header.rstrip("\r\n") != ",".join(COLUMNS):
            self.file.close()
            raise StoreError(f"{path}: expected no file, or one with the columns {','.join(COLUMNS)}, got other text; "
                             "choose another file")  # fmt: skip
        elif not _ends_with_newline(path):  # of a run that died
            self.file.write("\r\n")
        self.file.flush()

    def write(self, rows: Sequence[Row], alarms: Sequence[Alarm]) -> None:
        self.rows.writerows([["" if _is_missing(value) else value for value in astuple(row)] for row in rows])
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class ParquetWriter:
    """Write rows to a Parquet file, a row group each measurement. The file is there once it is closed.

    Until then the rows are in a file beside it, FILE.part, as nothing can be added to a Parquet file. One that exists
    is refused, unless the same callback goes on: then its rows are copied.
    """

    def __init__(self, path: Path, *, goes_on: bool = False) -> None:
        require("pyarrow")
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"step": pa.int64(), "epoch": pa.int64(), "filters": pa.int64()}
        texts = dict.fromkeys(("layer", "kernel", "alarm"), pa.string())
        self.schema = pa.schema([(name, (kinds | texts).get(name, pa.float64())) for name in COLUMNS])
        self.table = pa.Table
        self.path, self.part = path, path.with_name(f"{path.name}.part")
        if path.exists() and not goes_on:
            raise StoreError(f"{path}: expected no file, got one, to which nothing can be added; choose another file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            earlier = pq.read_table(path, schema=self.schema) if path.exists() else None
            self.file = pq.ParquetWriter(self.part, self.schema)
            if earlier is not None:
                self.file.write_table(earlier)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror}); choose another file") from error

    def write(self, rows: Sequence[Row], alarms: Sequence[Alarm]) -> None:
        self.file.write_table(self.table.from_pylist(list(map(asdict, rows)), self.schema))

    def close(self) -> None:
        self.file.close()
        self.part.replace(self.path)


class TensorBoardWriter:
    """Add a scalar for each layer and number, and a text for each alarm, to a SummaryWriter."""

    def __init__(self, summaries: Any, *, closes: bool = True) -> None:
        self.summaries = summaries
        self.closes = closes

    def write(self, rows: Sequence[Row], alarms: Sequence[Alarm]) -> None:
        for row in rows:
            for name in NUMBERS:
                value = getattr(row, name)
                if math.isfinite(value):
                    self.summaries.add_scalar(f"filters/{name}/{row.layer}", value, row.step)
        for alarm in alarms:
            self.summaries.add_text("filters/alarms", str(alarm), alarm.step)
        self.summaries.flush()

    def close(self) -> None:
        if self.closes:
            self.summaries.close()


def _summary_writer(folder: Path) -> Any:
    """Return a SummaryWriter of tensorboardX, which writes the same files as PyTorch's without needing TensorBoard."""
    with named_extras():
        from tensorboardX import SummaryWriter
    return SummaryWriter(str(folder))


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
