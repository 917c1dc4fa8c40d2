"""Write the page: one self-contained folder that opens from disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from filterdb.analysis.noise import FEW
from filterdb.analysis.rules import VERDICTS
from filterdb.choices import COMPONENTS
from filterdb.errors import InputError, MissingExtraError
from filterdb.numerics.modes import ModeName
from filterdb.page import tables
from filterdb.page.document import document, web_file
from filterdb.page.header import header, page_title
from filterdb.page.model_pages import ModelPages
from filterdb.page.page_files import all_files, drawing_processes
from filterdb.page.place import folder_for
from filterdb.page.reference_marks import reference_marks
from filterdb.page.results import Results, gather
from filterdb.page.section import Section
from filterdb.page.sections import section_classes
from filterdb.page.verdict_words import verdict_words
from filterdb.plotting.drawing import visible, visible_all
from filterdb.schema import KERNEL, UNKNOWN, WEIGHTS, AnyKernel, kernel_name, kernel_text
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.files import Files
from filterdb.store.shapes import no_filters
from filterdb.version import __version__
from filterdb.wording import counted

MOST_WEIGHTS = 121
"""Most weights of filters that have a page without being asked for, 11×11: the largest that look at images."""

SCRIPTS = (
    "core",
    "state",
    "charts",
    "clusters",
    "verdicts",
    "ruler",
    "heatmap",
    "pair",
    "table",
    "grouping",
    "layer_data",
)
"""The scripts that sections share, in order. With the sections' own scripts and `start` they become one script."""


def report_database(
    db: AnyDatabase, folder: str | Path, mode: ModeName, densities: bool | None, kernel: AnyKernel | None
) -> Path | str:
    """Write the page of a database; see `report`."""
    banks = banks_with_pages(as_database(db, kernel=kernel), only=kernel is not None)
    if any(find_spec(name) is None for name in ("jinja2", "joblib", "matplotlib")):
        raise MissingExtraError("report: the page needs the extra: pip install 'filterdb[report]'")
    place = folder_for(folder)
    with drawing_processes():
        for number in reversed(range(len(banks))):  # the first page last, so that all of its links work
            _write(place, banks, number, mode, densities)
    return place.url("index.html") if place.remote else Path(place.url("index.html")).absolute()


def banks_with_pages(db: Database, *, only: bool) -> list[Database]:
    """Return the views with a page each: that of the view's shape, or, unless it is the `only` one, of all shapes.

    A shape with fewer filters than a verdict needs, or with more than MOST_WEIGHTS, has no page, unless no shape has
    more, or less. Raises InputError if there are no filters.
    """
    banks = [db]
    if not only and db.kernel == KERNEL and db.labels is not None:
        for kernel in db.kernels[1:]:
            with suppress(InputError):  # no layer of this shape meets the conditions
                banks.append(db.bank(kernel))
    with_layers = [bank for bank in banks if bank.counts["layers"]]
    if not with_layers:
        raise no_filters(db, " to report on")
    return [
        bank for bank in with_layers if bank.weights <= MOST_WEIGHTS and bank.counts["filters"] >= FEW
    ] or with_layers[:1]


def page_folder(number: int, bank: Database) -> str:
    """Return the folder of a page below that of the first one, which has none."""
    return f"{kernel_name(bank.kernel)}/" if number else ""


def _write(place: Files, banks: Sequence[Database], number: int, mode: ModeName, densities: bool | None) -> None:
    """Compute the results of one of the banks, and write its page."""
    folder = page_folder(number, banks[number])
    results = gather(banks[number], mode, densities)
    sections = compute_sections(results)
    objects = {**all_files(sections), **ModelPages(results).files(model_links(banks, number))}
    place.put({f"{folder}{name}": data for name, data in objects.items()})
    # Last, so that a visible page is complete.
    place.put({f"{folder}index.html": page_html(results, sections, page_links(banks, number))})


def compute_sections(results: Results, *, begin: Callable[[str], None] = lambda step: None) -> list[Section]:
    """Compute the sections of a page from its shared results, in the order of the page.

    `begin` is called with the title of each section before it is computed.
    """
    sections = []
    for section in section_classes():
        begin(section.title)
        sections.append(section(results))
    return sections


def page_links(banks: Sequence[Database], number: int) -> list[dict[str, Any]]:
    """Return the links from one of the pages to those of all kernel shapes; none if it is the only one."""
    up = "../" if number else ""
    pages = [
        {"name": kernel_text(bank.kernel), "href": f"{up}{page_folder(i, bank)}index.html", "is_this": i == number}
        for i, bank in enumerate(banks)
    ]
    return pages if len(pages) > 1 else []


def model_links(banks: Sequence[Database], number: int) -> dict[str, list[tuple[str, str | None]]]:
    """Return the kernel shapes of which each model, given by name, has a page, with links to them from a page.

    Banks number their models independently, so a model is another number on each of its pages.
    """
    up = "../" if number else ""
    links: dict[str, list[tuple[str, str | None]]] = {}
    for i, bank in enumerate(banks):
        names = bank.models["model"].values
        for model in np.unique(bank.layers["model_index"].values).tolist():
            link = None if i == number else f"{up}{page_folder(i, bank)}model.html#{model}"
            links.setdefault(str(names[model]), []).append((kernel_text(bank.kernel), link))
    return links


@dataclass(frozen=True)
class Addition:
    """What a page from a server has more than one from disk: script, style, and data in the page as `core.live`."""

    script: str
    style: str
    data: Mapping[str, Any]


def page_html(
    results: Results,
    sections: list[Section],
    pages: Sequence[Mapping[str, Any]],
    addition: Addition | None = None,
) -> bytes:
    """Return the page itself, with its script, style and data. `pages` are the links to those of all kernel shapes."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    db = results.db
    script = _script(sections, "" if addition is None else addition.script)
    style = web_file("page.css") + ("" if addition is None else addition.style)
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(web_file),
    )
    shared = {
        "formats": tables.formats(),
        "layer_formats": dict.fromkeys(tables.OF_LAYERS, tables.formats(db.layers.sizes["layer"])),
        "first": next(iter(results.drifts), ""),
        "kernel": kernel_text(db.kernel),
        "weights": "nine" if db.weights == WEIGHTS else str(db.weights),
        "shown": COMPONENTS if db.weights > COMPONENTS else 0,
    }
    macros = '{% from "figure.html" import figure, files with context %}'
    parts = [
        environment.from_string(macros + section.template).render(**shared, **section.context())
        for section in sections
        if section.is_listed()
    ]
    drift = next(iter(results.drifts.values()), None)
    warnings = (result.attrs.get("basis_warning", "") for result in results.drifts.values())
    head = header(db)
    body = environment.get_template("page.html").render(
        kernel=kernel_text(db.kernel),
        url=visible(db.url),
        **head,
        selection=visible(" and ".join(db.conditions)),
        snapshot=db.snapshot if drift is None else drift.attrs["snapshot"],
        mode=results.mode,
        version=__version__,
        numbers=_numbers(db),
        pages=pages,
        basis_warning=next(filter(None, warnings), ""),
        contents=[(section.name(), section.title) for section in sections if section.is_listed()],
        missing=[row for section in sections for row in section.missing()],
        sections=parts,
        is_served=addition is not None,
    )
    return document(
        page_title(head["name"], kernel_text(db.kernel)),
        body,
        style=style,
        script=script,
        core=_core(results, sections) | ({} if addition is None else {"live": addition.data}),
        is_served=addition is not None,
    )


def _script(sections: list[Section], addition: str) -> str:
    """Return the page's script: what sections share, each section's own, an addition, and the start."""
    shared = "".join(web_file(f"{name}.js") for name in SCRIPTS)
    own = "".join(section.script() for section in sections)
    return f"(() => {{\n{shared}{own}{addition}{web_file('start.js')}}})();\n"


def _core(results: Results, sections: list[Section]) -> dict[str, Any]:
    """Return the data inside the page: what sections share, and each section's own."""
    db = results.db
    drift: xr.Dataset | None = next(iter(results.drifts.values()), None)
    ratios = results.basis["explained_variance_ratio"].values[0]
    groupings = [{"key": by, "groups": result.sizes["group"]} for by, result in results.drifts.items()]
    return {
        "url": visible(db.url),
        "mode": results.mode,
        "options": _options(results),
        "rules": list(VERDICTS),
        "verdicts": verdict_words(),
        "reference": [asdict(mark) for mark in reference_marks(results)],
        "kernel": db.kernel,
        "leading": min(db.weights, COMPONENTS),
        "groupings": groupings,
        "weights": ratios if drift is None else drift["weights"].values,
        "edges": [] if drift is None else drift["bin_edges"].values,
        "models": visible_all(db.models["model"].values[db.models["layers"].values > 0]),
        "ids": results.model_index,
        "labels": {
            by: {"values": visible_all(values), "codes": codes} for by, (values, codes) in results.labels.items()
        },
        "sections": {section.name(): section.core() for section in sections},
    }


def _options(results: Results) -> str | None:
    """Return the command options of the page's snapshot and mode; None for a selection."""
    if results.db.conditions:
        return None
    mode = "" if results.mode == "sound" else f" --mode {results.mode}"
    return f"{mode} --snapshot {results.db.snapshot}"


def _numbers(db: Database) -> list[tuple[str, str]]:
    """Return the headline numbers, each with its name."""
    counts = db.counts
    with_filters = int((db.models["filters"].values > 0).sum())
    texts = [
        counted(counts["filters"], f"{kernel_text(db.kernel)} filter"),
        counted(counts["layers"], "layer"),
        counted(with_filters, "model")
        if with_filters == counts["models"]
        else f"{with_filters:,} of {counted(counts['models'], 'model')} have {kernel_text(db.kernel)} filters",
    ]
    for column, noun in (("task", "task"), ("training_dataset", "training set")):
        known = set(np.unique(db.layers[column].values.astype(str)).tolist()) - {UNKNOWN}
        texts += [counted(len(known), noun)] if known else []
    return [(name, number) for number, _, name in (text.partition(" ") for text in texts)]
