"""List the models of an organisation of the Hugging Face hub as a catalog, with what their cards and configs say."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filterdb.arguments import as_names, as_path, unexpected
from filterdb.errors import InputError, UsageError
from filterdb.extras import named_extras
from filterdb.redaction import printable
from filterdb.schema import LABELS
from filterdb.store import hub, local
from filterdb.store.files import local_path
from filterdb.store.remote import is_remote, store_errors

if TYPE_CHECKING:
    import pandas as pd

FURTHER = ("licence", "library", "base_model", "downloads", "gated")
"""Columns besides `path`, `name` and the labels."""

COLUMNS = ["path", "name", *LABELS, *FURTHER]

MAX_CELL = 300
"""Most characters of a cell: anybody may write a card."""


def catalog(
    source: str,
    *,
    output: str | os.PathLike[str] | None = None,
    filters: str | Iterable[str] = (),
    limit: int | None = None,
) -> pd.DataFrame:
    """List the models of an organisation of the Hugging Face hub as a catalog, with a request for each page.

    No model is read. The hub is `HF_ENDPOINT`, and the token `HF_TOKEN`, of the environment.

    Parameters
    ----------
    source
        The organisation or user, such as `hf://timm`.
    output
        CSV file to write. Default: none.
    filters
        Tags of the hub that a model must have, such as `image-classification` or `dataset:imagenet-1k`.
    limit
        Most models to list. Default: all.

    Returns
    -------
    pandas.DataFrame
        A row for each model, with the columns of a catalog as text: `path` (at the commit that is the newest now),
        `name`, the labels that are known, and `licence`, `library`, `base_model`, `downloads` and `gated`. What is not
        stated is empty.

    Raises
    ------
    InputError
        If the organisation has no such model.
    StoreError
        If the hub cannot be asked, or `output` cannot be written.

    Examples
    --------
    >>> rows = fdb.catalog("hf://timm", output="timm.csv", filters="resnet")  # doctest: +SKIP
    >>> fdb.ingest("db", catalog="timm.csv")  # doctest: +SKIP
    """
    rows = list_models(source, output=output, filters=filters, limit=limit)
    with named_extras():
        import pandas as pd

    return pd.DataFrame(rows, columns=COLUMNS)


def list_models(
    source: str, *, output: str | os.PathLike[str] | None, filters: str | Iterable[str], limit: int | None
) -> list[dict[str, str]]:
    """Return the rows of the catalog as `catalog` does, without pandas, and write the file."""
    organisation = _organisation(as_path(source, "source"))
    if limit is not None and (type(limit) is not int or limit < 1):
        raise unexpected("limit", "a number of models, at least 1", limit)
    target = None if output is None else _target(as_path(output, "output"))
    tags = as_names(filters, "filters")
    rows = [row for row in map(_row, hub.list_models(organisation, tags, limit)) if row is not None]
    if not rows:
        wanted = f" with {', '.join(tags)}" if tags else ""
        raise InputError(f"{source}: expected models{wanted}, found none; check the name and HF_TOKEN")
    if target is not None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)])
        with store_errors("writing", str(target)):
            local.replace({target: text.getvalue().encode()})
    return rows


def _organisation(source: str) -> str:
    name = source.removeprefix(hub.SCHEME).strip("/")
    if not source.startswith(hub.SCHEME) or not name or "/" in name or "@" in name:
        raise UsageError(f"catalog: expected an organisation of the hub, such as hf://timm, got {source!r}")
    return name


def _target(output: str) -> Path:
    path = local_path(output)
    if is_remote(path) or not path.lower().endswith(".csv"):
        raise UsageError(f"{output}: expected a local file that ends in .csv")
    return Path(path).absolute()


def _row(model: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the catalog's row of a model; None for one that has no proper name."""
    name, commit = _text(model.get("id")), _text(model.get("sha"))
    try:
        place = hub.parse(f"{hub.SCHEME}{name}@{commit}" if commit else f"{hub.SCHEME}{name}")
    except InputError:
        return None
    if place.repository != name:
        return None
    card, config = (_mapping(model.get(key)) for key in ("cardData", "config"))
    tags = [_text(tag) for tag in _list(model.get("tags"))]
    architectures = _list(config.get("architectures"))
    row = {
        "path": place.url,
        "name": name,
        "task": _text(model.get("pipeline_tag") or card.get("pipeline_tag")).replace("-", " "),
        "training_dataset": _joined(card.get("datasets")) or _tagged(tags, "dataset:"),
        "architecture": _text(config.get("architecture") or (architectures[0] if architectures else "")),
        "family": _text(config.get("model_type")),
        "paper": _tagged(tags, "arxiv:", "arXiv:"),
        "url": f"{hub.endpoint()}/{name}",
        "licence": _text(card.get("license")) or _tagged(tags, "license:"),
        "library": _text(model.get("library_name") or card.get("library_name")),
        "base_model": _joined(card.get("base_model")),
        "downloads": _text(model.get("downloads")),
        "gated": _text(model.get("gated")).lower(),
    }
    return {column: row.get(column, "") for column in COLUMNS}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    """Return a text or number on one line, cut; empty for anything else."""
    if not isinstance(value, str | int | float):
        return ""
    return printable(" ".join(str(value).encode("utf-8", "replace").decode().split()))[:MAX_CELL]


def _joined(value: Any) -> str:
    """Return a text, or several, in the card's order."""
    return ", ".join(filter(None, map(_text, value if isinstance(value, list) else [value])))[:MAX_CELL]


def _tagged(tags: Iterable[str], prefix: str, shown: str = "") -> str:
    """Return what the tags with a prefix say."""
    return ", ".join(shown + tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix))[:MAX_CELL]
