"""The list of models and their metadata: CSV or Parquet, one row a model."""

from __future__ import annotations

import csv
import difflib
import io
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import urlsplit, urlunsplit

import pandas as pd

from filterdb.errors import InputError, MissingExtraError
from filterdb.schema import FILTERS, LABELS, TABLES, UNKNOWN

RESERVED = ({v.name for v in (FILTERS, *TABLES)} | {"layer", "layers", "segment", "first_row", "depth_decile"}) - set(
    LABELS
)
"""Names that mean something already; a catalog's own columns need others."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to read: its id, where it lies (path or URL), and its catalog row (None: it has none)."""

    id: str
    url: str
    labels: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(LABELS, UNKNOWN))
    extra: Mapping[str, str] = field(default_factory=dict)
    has_row: bool = False
    alias: str = ""
    """What to call it instead of its URL; the file of a model from memory is a temporary one."""

    @property
    def shown(self) -> str:
        """Where it lies, as it may be shown and stored: without user names, passwords and signatures."""
        return self.alias or without_secrets(self.url)

    @property
    def extra_json(self) -> str:
        """Further catalog columns as JSON with sorted names."""
        return json.dumps(dict(self.extra), sort_keys=True, ensure_ascii=False)


def parse_catalog(data: bytes, url: str, *, needs_path: bool = True) -> list[ModelSource]:
    """Rows of a catalog; `url` is its own place: a `path` is absolute, a URL, or relative to the catalog's folder.

    Columns: path (required), name (else the path is the model's id), schema.LABELS; further ones are kept as text. A
    missing value becomes the label "unknown". Where no file is read (not `needs_path`) a `name` does.

    Raises InputError for a catalog that cannot be used.
    """
    columns, rows = _read_table(data, url)
    if "path" not in columns and (needs_path or "name" not in columns):
        hint = "; separate columns with commas" if len(columns) == 1 and ";" in columns[0] else ""
        wanted = "`path`" if needs_path else "`path` or `name`"
        raise InputError(f"{url}: expected a column {wanted}, got {', '.join(columns) or 'none'}{hint}")
    taken = sorted(set(columns) & RESERVED)
    if taken:
        raise InputError(f"{url}: expected a column name of your own, got {taken[0]!r}, which has a meaning; rename it")
    for column in set(columns) - {"path", "name", *LABELS}:
        near = difflib.get_close_matches(column, LABELS, 1, cutoff=0.7)
        if near and near[0] not in columns:
            log.warning("%s: column %r is kept as one of your own; did you mean %r?", url, column, near[0])
    sources = []
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise InputError(f"{url} row {number}: expected {len(columns)} fields as in the head, got {len(row)}")
        values = dict(zip(columns, row, strict=True))
        path = values.pop("path", "")
        if not path and (needs_path or not values["name"]):
            raise InputError(f"{url} row {number}: expected a path, got nothing")
        name = values.pop("name", "") or without_secrets(path)
        labels = {label: values.pop(label, "") or UNKNOWN for label in LABELS}
        extra = {key: value or UNKNOWN for key, value in values.items()}
        sources.append(ModelSource(name, _beside(url, path), labels, extra, has_row=True))
    if not sources:
        raise InputError(f"{url}: expected at least one row, got none")
    check_unique(sources, url)
    return sources


def without_secrets(url: str) -> str:
    """A URL without user, password and query; a path as text that UTF-8 can carry."""
    if "://" in url:
        parts = urlsplit(url)
        url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return url.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def check_unique(sources: list[ModelSource], where: str) -> None:
    """Raise InputError where two sources have the same id."""
    twice = [name for name, count in Counter(source.id for source in sources).items() if count > 1]
    if twice:
        raise InputError(f"{where}: expected each model name once, got {twice[0]!r} more than once; rename one of them")


def _read_table(data: bytes, url: str) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of texts."""
    suffix = PurePath(url).suffix.lower()
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(io.BytesIO(data))
            rows = [[_text(value) for value in row] for row in table.itertuples(index=False)]
            return [str(column) for column in table.columns], rows
        if suffix in {".csv", ".tsv"}:
            # Not pandas: it takes a field too many for an index and shifts the labels.
            text = io.StringIO(data.decode("utf-8-sig"), newline="")
            reader = csv.reader(text, delimiter="," if suffix == ".csv" else "\t", strict=True)
            head, *rows = [[cell.strip() for cell in row] for row in reader if row] or [[]]
            return head, rows
    except ImportError as error:
        raise MissingExtraError(f"{url}: reading Parquet needs the extra: pip install 'filterdb[parquet]'") from error
    except (ValueError, OSError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{url}: expected a {suffix[1:]} table, got something else ({reason})") from error
    raise InputError(f"{url}: expected a catalog that ends in .csv, .tsv or .parquet, got {suffix or 'no suffix'}")


def _text(value: object) -> str:
    """A cell as text; missing (NaN, None, NA) as empty text."""
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _beside(catalog: str, path: str) -> str:
    if "://" in path or PurePath(path).is_absolute():
        return path
    folder = catalog.rpartition("/")[0]
    return f"{folder}/{path}" if folder else path
