"""Show a database in a notebook: an HTML fragment without scripts, readable on light and dark pages.

All text from a store or a catalog is escaped. Text has the page's colour; lines are half-transparent grey.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Protocol

import numpy as np

from filterdb.errors import FilterDBError
from filterdb.store.segment import Segment
from filterdb.store.snapshot import Snapshot, StoredBasis
from filterdb.wording import counted

if TYPE_CHECKING:
    import xarray as xr

SHOWN_LABELS = ("task", "visual_category", "training_dataset")
"""The labels whose values are listed."""

ROWS = 30
"""Most rows of a table. The number of omitted rows is shown below it."""

STYLE = """<style>
.filterdb { line-height: 1.4; }
.filterdb table { border-collapse: collapse; margin: 0.2em 0 0.8em; }
.filterdb th, .filterdb td { padding: 0.1em 1.2em 0.1em 0; text-align: left; vertical-align: top; }
.filterdb th { font-weight: 600; }
.filterdb td.number, .filterdb th.number { text-align: right; font-variant-numeric: tabular-nums; }
.filterdb .list th { border-bottom: 1px solid rgba(128, 128, 128, 0.5); }
.filterdb summary { cursor: pointer; }
.filterdb .more { opacity: 0.8; }
.filterdb img { display: block; max-width: 100%; margin: 0.4em 0; }
</style>"""
"""The style of what notebooks show of databases and results."""

Cell = str | int


class Database(Protocol):
    """The attributes of a database that are shown. (The class `Database` itself imports this module.)"""

    @property
    def url(self) -> str: ...

    @property
    def state(self) -> Snapshot: ...

    @property
    def segments(self) -> list[Segment]: ...

    @property
    def conditions(self) -> tuple[str, ...]: ...

    @property
    def counts(self) -> Mapping[str, int]: ...

    @property
    def basis(self) -> StoredBasis | None: ...

    @property
    def models(self) -> xr.Dataset: ...


def database(db: Database) -> str:
    """Return the HTML of a database: URL, snapshot, counts, basis, labels and segments."""
    labels = [_section(name.replace("_", " "), *_label(db, name)) for name in SHOWN_LABELS]
    columns = ("segment", "models", "layers", "filters", "chunks", "filters in a chunk")
    segments = [
        (entry.id, entry.models, entry.layers, entry.filters, segment.chunks, entry.chunk_rows)
        for entry, segment in zip(db.state.segments, db.segments, strict=True)
    ]
    parts = [f"<strong>filterdb.Database</strong> {escape(db.url)}", _facts(_overview(db)), *labels]
    return f'<div class="filterdb">{STYLE}{"".join(parts)}{_section("segments", columns, segments)}</div>'


def _overview(db: Database) -> list[tuple[str, str]]:
    """Return names and values of the overview, not yet escaped."""
    state = db.state
    rows = [("snapshot", f"{state.number}, by {state.action}, {state.created}")]
    if db.conditions:
        rows.append(("view", " and ".join(db.conditions)))
    if state.tags:
        rows.append(("tags", ", ".join(f"{name} (snapshot {number})" for name, number in sorted(state.tags.items()))))
    rows += [(name, f"{number:,}") for name, number in db.counts.items()]
    chunks = sum(segment.chunks for segment in db.segments)
    size = _size(sum(segment.chunks * segment.chunk_bytes for segment in db.segments))
    rows += [("chunks", f"{chunks:,}"), ("stored", f"{size} of filters")]
    rows.append(("basis", _basis(db)))
    return rows


def _basis(db: Database) -> str:
    try:
        basis = db.basis
    except FilterDBError as error:  # show everything else nevertheless
        return str(error)
    if basis is None:
        return "none yet: the first drift fits one"
    return f"{basis.id}, fitted on the {counted(basis.filters, 'filter')} of snapshot {basis.snapshot}"


def _label(db: Database, name: str) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """Return columns and rows of a table: a label's values with models, layers and filters, most filters first."""
    models = db.models
    values, index, count = np.unique(models[name].values.astype(str), return_inverse=True, return_counts=True)
    layers, filters = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
    np.add.at(layers, index, models["layers"].values)
    np.add.at(filters, index, models["filters"].values)
    order = sorted(range(len(values)), key=lambda i: (-filters[i], values[i]))
    rows: list[tuple[Cell, ...]] = [(str(values[i]), int(count[i]), int(layers[i]), int(filters[i])) for i in order]
    return (name, "models", "layers", "filters"), rows


def _section(title: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]]) -> str:
    """Return the HTML of a table that opens on a click."""
    more = f'<p class="more">and {len(rows) - ROWS:,} more</p>' if len(rows) > ROWS else ""
    numeric = [isinstance(cell, int) for cell in rows[0]] if rows else [False] * len(columns)
    head = _row("th", columns, numeric)
    body = "".join(_row("td", row, numeric) for row in rows[:ROWS])
    table = f'<table class="list"><thead>{head}</thead><tbody>{body}</tbody></table>'
    return f"<details><summary>{escape(title)} ({len(rows):,})</summary>{table}{more}</details>"


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table><tbody>{lines}</tbody></table>"


def _row(tag: str, cells: Sequence[Cell], numeric: Sequence[bool]) -> str:
    def cell_html(cell: Cell, right: bool) -> str:
        text = f"{cell:,}" if isinstance(cell, int) else escape(cell.replace("_", " ") if tag == "th" else cell)
        return f'<{tag} class="number">{text}</{tag}>' if right else f"<{tag}>{text}</{tag}>"

    return f"<tr>{''.join(cell_html(cell, right) for cell, right in zip(cells, numeric, strict=True))}</tr>"


def _size(number: int) -> str:
    """Format a number of bytes with a unit."""
    value, units = float(number), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{number:,} bytes" if units[0] == "bytes" else f"{value:,.1f} {units[0]}"
