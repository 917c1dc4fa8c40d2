"""Read catalogs: tables (CSV or Parquet) of models and their metadata, one row per model."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from filterdb.errors import InputError, MissingExtraError
from filterdb.models.parquet import read_parquet
from filterdb.redaction import redact, redact_label, redact_url
from filterdb.schema import FILTERS, LABELS, TABLES, UNKNOWN
from filterdb.wording import near

RESERVED = ({v.name for v in (FILTERS, *TABLES)} | {"layer", "layers", "segment", "first_row", "depth_decile"}) - set(
    LABELS
)
"""Column names that have a meaning in a database, so a catalog cannot use them for columns of its own."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to read: its id, its path or URL, and its catalog row, if it has one.

    The URL may contain credentials. It is used only to fetch the model; everywhere else `shown` is used.
    """

    id: str
    url: str = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(LABELS, UNKNOWN))
    extra: Mapping[str, str] = field(default_factory=dict)
    has_row: bool = False
    alias: str = ""
    """Name to show instead of the URL. Set for a model from memory, whose file is temporary."""
    key: str = ""
    """Which of several networks in the file to read, if the user chose one."""
    order: tuple[str, ...] = ()
    """Names of the layers in the order of execution, if the user gave them."""

    @property
    def shown(self) -> str:
        """The path or URL without user names, passwords and signatures, so that it can be shown and stored."""
        return self.alias or redact_url(self.url)

    @property
    def extra_json(self) -> str:
        """The catalog's own columns as JSON, sorted by name."""
        return json.dumps(dict(self.extra), sort_keys=True, ensure_ascii=False)


def parse_catalog(data: bytes, url: str, *, needs_path: bool = True) -> list[ModelSource]:
    """Parse a catalog and return a source for each row.

    A `path` may be absolute, a URL, or relative to the catalog's folder, which is that of `url`. Columns: path
    (required), name (the model's id; default: the path) and schema.LABELS; other columns are kept as text. A missing
    label becomes "unknown". With `needs_path=False`, because no file is read, a row may have only a name.

    Raises InputError if the catalog cannot be used.
    """
    columns, rows = _read_table(data, url)
    return parse_rows(columns, rows, redact_url(url), place=url, needs_path=needs_path)


def parse_rows(
    columns: list[str], rows: list[list[str]], url: str, *, place: str = "", needs_path: bool = True
) -> list[ModelSource]:
    """Return a source for each row of a table, as `parse_catalog`.

    `url` is the table's name in messages. Relative paths are below the folder of `place`, or else the working folder.
    """
    _check_table(columns, rows, url)
    if "path" not in columns and (needs_path or "name" not in columns):
        hint = "; separate columns with commas" if len(columns) == 1 and ";" in columns[0] else ""
        wanted = "`path`" if needs_path else "`path` or `name`"
        raise InputError(f"{url}: expected a column {wanted}, got {', '.join(columns) or 'none'}{hint}")
    taken = sorted(set(columns) & RESERVED)
    if taken:
        raise InputError(f"{url}: expected a column name of your own, got {taken[0]!r}, which has a meaning; rename it")
    for column in set(columns) - {"path", "name", *LABELS}:
        guess = near(column, LABELS)
        if guess is not None and guess not in columns:
            log.warning("%s: column %r is kept as one of your own; did you mean %r?", url, column, guess)
    sources = []
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise InputError(f"{url} row {number}: expected {len(columns)} fields as in the head, got {len(row)}")
        values = dict(zip(columns, row, strict=True))
        path = values.pop("path", "")
        values = {column: redact_label(value) for column, value in values.items()}
        if not path and (needs_path or not values["name"]):
            raise InputError(f"{url} row {number}: expected a path, got nothing")
        name = values.pop("name", "") or redact_url(path)
        labels = {label: values.pop(label, "") or UNKNOWN for label in LABELS}
        extra = {key: value or UNKNOWN for key, value in values.items()}
        sources.append(ModelSource(name, _beside(place, path), labels, extra, has_row=True))
    if not sources:
        raise InputError(f"{url}: expected at least one row, got none")
    check_unique(sources, url)
    return sources


def check_unique(sources: list[ModelSource], where: str) -> None:
    """Raise InputError if two sources have the same id."""
    repeated = [name for name, count in Counter(source.id for source in sources).items() if count > 1]
    if repeated:
        raise InputError(
            f"{where}: expected each model name once, got {repeated[0]!r} more than once; rename one of them"
        )


def _read_table(data: bytes, url: str) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of text. Raises InputError if the table cannot be read."""
    shown = redact_url(url)
    suffix = PurePath(shown).suffix.lower()
    try:
        if suffix == ".parquet":
            columns, rows = read_parquet(data)
        elif suffix in {".csv", ".tsv"}:
            columns, rows = _read_csv(data, delimiter="," if suffix == ".csv" else "\t")
        else:
            raise InputError(
                f"{shown}: expected a catalog that ends in .csv, .tsv or .parquet, got {suffix or 'no suffix'}"
            )
    except ImportError as error:
        raise MissingExtraError(f"{shown}: reading Parquet needs the extra: pip install 'filterdb[parquet]'") from error
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(redact(str(error), url).split())[:100]
        raise InputError(f"{shown}: expected a {suffix[1:]} table, got something else ({reason})") from error
    return columns, rows


def _check_table(columns: list[str], rows: list[list[str]], shown: str) -> None:
    """Raise InputError for a table with equal columns or with NUL bytes."""
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise InputError(
            f"{shown}: expected each column once, got {repeated[0]!r} more than once; rename or remove one"
        )
    for number, row in enumerate([columns, *rows]):
        if any("\0" in cell for cell in row):
            where = f"row {number}" if number else "the head"
            raise InputError(f"{shown}: expected text, got a NUL byte in {where}; save the table as UTF-8")


def _read_csv(data: bytes, delimiter: str) -> tuple[list[str], list[list[str]]]:
    # Not with pandas: it treats an extra field as an index, which shifts the labels.
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("UTF-16; save it as UTF-8")
    try:
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8; save it as UTF-8") from error
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    head, *rows = [[cell.strip() for cell in row] for row in reader if row] or [[]]
    return head, rows


def _beside(catalog: str, path: str) -> str:
    """Resolve a catalog's `path`: a relative one against the catalog's folder, keeping user name and password."""
    if "://" in path or PurePath(path).is_absolute():
        return path
    scheme, separator, place = catalog.rpartition("://")
    if separator:
        place = re.split("[?#]", place, maxsplit=1)[0]
    folder = place.rpartition("/")[0]
    return f"{scheme}{separator}{folder}/{path}" if folder else path
