"""Write the page of one model file, or of several, without a database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb.analysis.check import CheckedFile, read_and_judge
from filterdb.analysis.findings import (
    FAILED,
    INCOMPLETE,
    NOTHING_CHECKED,
    PASSED,
    UNREADABLE,
    Finding,
    findings,
    statuses,
)
from filterdb.analysis.peers import banks_compared
from filterdb.analysis.reference import read_reference
from filterdb.analysis.rules import FILE_RULES
from filterdb.analysis.shapes import weights_of
from filterdb.columns import Columns
from filterdb.errors import FilterDBError, InputError
from filterdb.models.limits import Limits
from filterdb.page import model_data as parts
from filterdb.page import payload
from filterdb.page.bands import Bands, bands_of_layers, bands_of_reference
from filterdb.page.model_shell import shell
from filterdb.page.place import folder_for
from filterdb.page.verdict_words import verdict_words
from filterdb.plotting.drawing import visible, visible_all
from filterdb.schema import KERNEL
from filterdb.version import __version__
from filterdb.wording import none_readable

if TYPE_CHECKING:
    from filterdb.models.sources import NamedFile, Order, Sources
    from filterdb.schema import AnyKernel
    from filterdb.store.database import AnyDatabase, Database

NEAREST = 5
"""Number of nearest models that a page shows."""

_WORDS = {
    PASSED: "Passed",
    FAILED: "Failed",
    INCOMPLETE: "Incomplete",
    NOTHING_CHECKED: "Nothing checked",
    UNREADABLE: "Unreadable",
}


def report_files(
    files: Sources,
    folder: str | Path,
    *,
    compare: AnyDatabase | None = None,
    reference: str | Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    key: str = "",
    order: Order | None = None,
    kernel: AnyKernel | None = None,
) -> Path | str:
    """Write the page of model files, and return the path or URL of its `index.html`; see `report`."""
    return write_files(
        files, folder, compare=compare, reference=reference, limits=limits, kernel=kernel, key=key, order=order
    )[0]


def write_files(
    files: Sources,
    folder: str | Path,
    *,
    compare: AnyDatabase | None,
    reference: str | Path | None,
    limits: Limits,
    kernel: AnyKernel | None,
    **network: Any,
) -> tuple[Path | str, Columns]:
    """Write the page of model files. Return the path or URL of its `index.html`, and what `check` returns.

    `network` has `key` and `order`. Raises InputError if no file can be read.
    """
    place = folder_for(folder)
    db = None
    if compare is not None:
        from filterdb.store.database import as_database

        db = as_database(compare, "compare")
    rankings: list[dict[str, Any]] = []

    def rank(source: NamedFile, file: CheckedFile) -> None:
        rankings.append({"nearest": _nearest(db, source, limits, kernel)} if db and not file.reason else {})

    checked, result = read_and_judge(
        files,
        db=db,
        reference=reference,
        rules=None,
        limits=limits,
        first=parts.FIRST_FILTERS,
        kernel=kernel,
        visit=rank,
        **network,
    )
    if all(file.reason for file in checked):
        raise InputError(none_readable([file.reason for file in checked]))
    pages = [{**page, **ranking} for page, ranking in zip(_pages(checked, result), rankings, strict=True)]
    core = _core(checked, result, pages, _bands(result, db, reference))
    if len(pages) == 1:
        core["pages"] = pages
    else:
        place.put({f"data/models/{i}.js": payload.script(f"models/{i}", page) for i, page in enumerate(pages)})
    place.put({"index.html": shell(core)})
    index = place.url("index.html")
    return index if place.remote else Path(index).absolute(), result


def _pages(checked: list[CheckedFile], result: Columns) -> list[dict[str, Any]]:
    """Return the data of each file's page."""
    pages, start = [], 0
    for number, file in enumerate(checked):
        stop = start + len(file.rows)
        part = result.isel(file=np.array([number])).isel(layer=np.arange(start, stop))
        listed = findings(part)
        pages.append(_page(file, part, listed, statuses(part, listed)[0]))
        start = stop
    return pages


def _page(file: CheckedFile, layers: Columns, listed: list[Finding], status: str) -> dict[str, Any]:
    """Return the data of a file's page, given its layers."""
    position = {str(name): i for i, name in enumerate(layers["layer_name"].values)}
    cards = parts.finding_cards([finding for finding in listed if finding.rule not in FILE_RULES], position)
    read = int((layers["unread_code"].values == "").sum())
    tone, word = parts.TONES[status], _WORDS[status]
    if tone == parts.GOOD and cards:
        tone, word = parts.WARN, f"Passed, {len(cards)} warning{'' if len(cards) == 1 else 's'}"
    return {
        "facts": _facts(file),
        "status": {"word": word, "tone": tone, "text": _sentence(file, status, read, len(cards))},
        "numbers": [
            (f"{read:,}", "layer" if read == 1 else "layers"),
            (f"{int(layers['filters'].values[weights_of(layers['kernel'].values) > 1].sum()):,}", "k×k filters"),
            (f"{int(layers['parameters'].values.sum()):,}", "convolution weights"),
        ],
        "findings": cards,
        "layers": _layer_columns(file, layers),
        "tiles": parts.tiles([row.get("first_filters") for row in file.rows]),
        "skipped": parts.skipped_rows((skip.layer, skip.code, skip.reason) for skip in file.skipped),
    }


def _facts(file: CheckedFile) -> list[tuple[str, str]]:
    """Return what the file says of its model, each with its name."""
    facts = file.facts
    listed = [
        ("format", facts.get("source_format")),
        ("written by", facts.get("producer")),
        ("opset", facts.get("opset") or ""),
        ("depth from", {"graph": "the graph", "order": "the order of the weights"}.get(facts.get("depth_source", ""))),
        ("file", file.name),
    ]
    return [(name, visible(value)) for name, value in listed if value]


def _sentence(file: CheckedFile, status: str, read: int, cards: int) -> str:
    """Return what was done with a file."""
    unread = len(file.rows) - read
    layers = f"{read:,} layer{'' if read == 1 else 's'}"
    if status == UNREADABLE:
        return visible(file.reason)
    if status == NOTHING_CHECKED:
        return "The model has no convolution whose weight can be checked, so it may still be faulty."
    if status == INCOMPLETE:
        them = "it" if unread == 1 else "them"
        return f"{layers} checked; {unread:,} could not be read, so nothing is known about {them}."
    if status == FAILED:
        return f"{layers} checked; the red cards say what fails and what to do."
    return f"{layers} checked. " + ("The amber cards deserve a look." if cards else "No layer breaks a rule.")


def _layer_columns(file: CheckedFile, layers: Columns) -> dict[str, Any]:
    """Return the columns of the table of layers. Layers that were not read have no numbers."""
    unread = layers["unread_code"].values != ""
    rules = layers["rule"].values.astype(str)

    def numbers(name: str) -> list[Any]:
        values = parts.number_list(layers[name].values)
        return [None if missing else value for value, missing in zip(values, unread, strict=True)]

    columns = {
        "name": visible_all(layers["layer_name"].values),
        "kernel": parts.kernel_texts(layers["kernel"].values),
        "in": numbers("in_channels"),
        "out": numbers("out_channels"),
        "groups": numbers("groups"),
        "strides": [parts.strides_text(row.get("strides", "")) for row in file.rows],
        "filters": numbers("filters"),
        "depth": numbers("conv_depth_norm"),
        "sparsity": numbers("sparsity"),
        "entropy": numbers("variance_entropy"),
        "ratio": numbers("ratio"),
        "p": numbers("p_value"),
        "percentile": numbers("percentile"),
        "flags": [rules[hits].tolist() for hits in layers["verdict"].values],
    }
    return parts.compact(columns)


def _nearest(db: Database, file: NamedFile, limits: Limits, kernel: AnyKernel | None) -> dict[str, Any]:
    """Return the nearest models of a database to a file."""
    from filterdb.analysis.nearest import rank_models_by_file

    try:
        ranked = rank_models_by_file(db, file, n=NEAREST, limits=limits, kernel=kernel)
    except FilterDBError as error:
        return {"rows": [], "note": visible(error)}
    ids = visible_all(ranked["model"].values)
    labels = [visible(label) if label != "unknown" else "" for label in ranked["task"].values]
    rows = parts.nearest_rows(
        {
            "name": ids,
            "id": [None] * len(ids),
            "drift": ranked["drift"].values,
            "noise": np.fmax(ranked["floor_q95"].values, ranked["layer_floor_q95"].values),
            "excess": ranked["excess"].values,
            "verdict": ranked["verdict"].values.tolist(),
            "judged_by": ranked["judged_by"].values.tolist(),
            "labels": labels,
        }
    )
    return {"rows": rows, "note": f"Among the models of {visible(db.url)}, snapshot {db.snapshot}."}


def _bands(result: Columns, db: Database | None, reference: str | Path | None) -> Bands:
    """Return the quantiles of the layers that the files are compared with."""
    if db is None:
        return bands_of_reference(read_reference(reference))
    from filterdb.analysis.degeneration import judge_layers

    bands: Bands = {}
    for bank in banks_compared(db, result["kernel"].values).values():
        bands |= bands_of_layers(judge_layers(bank), bank.kernel)
    return bands


def _core(checked: list[CheckedFile], result: Columns, pages: list[dict[str, Any]], bands: Bands) -> dict[str, Any]:
    """Return the data in the page itself."""
    compared = json.loads(result.attrs["reference"])
    place = "the packaged reference" if compared["place"] == "packaged" else visible(compared["place"])
    names = _short_names([file.name for file in checked])
    return {
        "title": visible(names[0]) if len(names) == 1 else f"{len(names):,} model files",
        "about": "",
        "models": visible_all(names),
        "ids": list(range(len(names))),
        "tones": [page["status"]["tone"] for page in pages],
        "words": [page["status"]["word"] for page in pages],
        "layers": [len(page["layers"]["name"]) for page in pages],
        "many": "All files",
        "noun": "file",
        "back": None,
        "kernel": KERNEL,
        "bands": bands,
        "untiled": "",
        "verdicts": verdict_words(),
        "corpus": f"{place} ({compared['layers']:,} layers of {compared['models']:,} models)",
        "made": f"Made by filterdb {__version__}. This page loads nothing from the network.",
    }


def _short_names(names: list[str]) -> list[str]:
    """Return the last part of each path if these all differ, else the paths."""
    last = [name.rstrip("/").rsplit("/", 1)[-1] for name in names]
    return last if len(set(last)) == len(last) else names
