"""The list of models and their metadata: CSV or Parquet, one row a model."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

import pandas as pd

from filterdb.errors import InputError, MissingExtraError
from filterdb.schema import LABELS, UNKNOWN


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to read: its id, where it lies (path or URL), and its catalog row (None: it has none)."""

    id: str
    url: str
    labels: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(LABELS, UNKNOWN))
    extra: Mapping[str, str] = field(default_factory=dict)
    has_row: bool = False

    @property
    def extra_json(self) -> str:
        """Further catalog columns as JSON with sorted names."""
        return json.dumps(dict(self.extra), sort_keys=True, ensure_ascii=False)


def parse_catalog(data: bytes, url: str) -> list[ModelSource]:
    """Rows of a catalog; `url` is its own place: a `path` is absolute, a URL, or relative to the catalog's folder.

    Columns: path (required), name (else the path is the model's id), schema.LABELS; further ones are kept as text. A
    missing value becomes the label "unknown". Raises InputError for a catalog that cannot be used.
    """
    table = _read_table(data, url)
    if "path" not in table.columns:
        raise InputError(f"{url}: expected a column `path`, got {', '.join(map(str, table.columns)) or 'none'}")
    sources = []
    for number, row in enumerate(table.to_dict("records"), start=1):
        values = {str(key): _text(value) for key, value in row.items()}
        path = values.pop("path")
        if not path:
            raise InputError(f"{url} row {number}: expected a path, got nothing")
        name = values.pop("name", "") or path
        labels = {label: values.pop(label, "") or UNKNOWN for label in LABELS}
        extra = {key: value or UNKNOWN for key, value in values.items()}
        sources.append(ModelSource(name, _beside(url, path), labels, extra, has_row=True))
    if not sources:
        raise InputError(f"{url}: expected at least one row, got none")
    check_unique(sources, url)
    return sources


def check_unique(sources: list[ModelSource], where: str) -> None:
    """Raise InputError where two sources have the same id."""
    twice = [name for name, count in Counter(source.id for source in sources).items() if count > 1]
    if twice:
        raise InputError(f"{where}: expected each model name once, got {twice[0]!r} more than once; rename one of them")


def _read_table(data: bytes, url: str) -> pd.DataFrame:
    suffix = PurePath(url).suffix.lower()
    try:
        if suffix == ".parquet":
            return pd.read_parquet(io.BytesIO(data))
        if suffix in {".csv", ".tsv", ".txt"}:
            separator = "," if suffix == ".csv" else "\t"
            return pd.read_csv(io.BytesIO(data), dtype=str, sep=separator, keep_default_na=False, skipinitialspace=True)
    except ImportError as error:
        raise MissingExtraError(f"{url}: reading Parquet needs the extra: pip install 'filterdb[parquet]'") from error
    except (ValueError, OSError) as error:
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
