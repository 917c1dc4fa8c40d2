"""`filterdb layers`: list layers, and convolutions that are not stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import filterdb as fdb
from filterdb import schema
from filterdb.commands.answer import Answer, head_of_database, names_of_columns, print_answer, rows
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.options import database, kernel_option, labels_and_verdicts
from filterdb.commands.table import counts_line, print_rows, print_table, say
from filterdb.errors import UsageError
from filterdb.ledger import is_unread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from filterdb.columns import Columns
    from filterdb.store.database import Database


@commands.command()
@database
@kernel_option
@labels_and_verdicts
@figure_option
def layers(db: Database, kernel: str | None, draw: Draw, as_json: bool) -> None:
    """List layers, and convolutions that are not stored.

    With --kernel 1x1, or another shape whose filters are not stored, list what is known of these layers. The figure
    shows the first filters of each layer of a model: choose it with --where model=NAME, else it is the largest.
    """
    shape = db.kernel if kernel is None else schema.parse_shape(kernel)
    if schema.has_bank(shape):
        bank = db.bank(shape)
        print_answer(to_answer(bank), as_json, show)
        draw(lambda: _draw_first_filters(bank))
    else:
        print_answer(to_answer(db, _others(db, shape)), as_json, show_others)
        draw(lambda: _draw_first_filters(db))


def _others(db: Database, shape: schema.Kernel) -> Columns:
    """Return the layers of a shape whose filters are not stored, and that meet the conditions of a view."""
    import numpy as np

    table = db.other_columns
    chosen = table["kernel"].values.astype(str) == schema.kernel_name(shape)
    if db.labels is None:
        raise UsageError(f"--exclude-verdict: expected none with {schema.kernel_name(shape)}, which has no verdicts")
    for name, values, negate in db.labels:
        if name in table:
            chosen &= np.isin(table[name].values.astype(str), values) ^ negate
    return table.isel(layer=chosen)


def _draw_first_filters(db: Database) -> Figure:
    """Draw the first filters of the layers of the view's first model."""
    from filterdb.page.first_filters import LAYERS, first_filters

    tiles = first_filters(db, chunks=LAYERS)  # enough for one model, whatever its chunks are
    if tiles is None:
        from filterdb.store.shapes import no_filters

        raise no_filters(db, " to draw")
    return fdb.plot.first_filters(tiles)


def to_answer(db: Database, table: Columns | None = None) -> Answer:
    """Return the answer: the view's layers, or those of a `table`, and the convolutions that are not stored."""
    table = db.layer_columns if table is None else table
    renamed = {"model": "model", "layer": "layer_name", "filters": "row_size"}
    kept = {v.name for v in schema.OTHER_VARIABLES} - {"model_index"} | {"model"}
    listed = rows(table, names_of_columns(table, renamed, table.variables.keys() - kept))
    for row in listed:
        row |= {"strides": json.loads(row["strides"]), "dilations": json.loads(row["dilations"])}
        row |= {"kernel": row.get("kernel", schema.kernel_name(db.kernel)), "rank": row.get("rank", 2)}
    ledger = db.skipped_columns
    chosen = set(db.model_columns["model"].values) if db.chosen is not None else None
    skipped = [
        {**row, "unread": is_unread(row["code"])}
        for row in rows(ledger, {name: f"skipped_{name}" for name in ("model", "layer", "code", "reason")})
        if chosen is None or row["model"] in chosen
    ]
    return {**head_of_database(db), "rows": listed, "skipped": skipped}


def show(answer: Answer) -> None:
    """Print the layers, then the convolutions that are not stored."""
    names = [
        "model",
        "layer",
        "filters",
        "conv_depth",
        "conv_depth_norm",
        "in_channels",
        "out_channels",
        "groups",
    ]
    print_rows(answer, [*names, "weight_source"])
    _show_skipped(answer)


def show_others(answer: Answer) -> None:
    """Print layers whose filters are not stored, then the convolutions of which nothing is known."""
    names = ["model", "layer", "filters", "kernel", "conv_depth", "in_channels", "out_channels", "groups"]
    print_rows(answer, [*names, "peak", "sparse_filters", "duplicate_filters", "nonfinite"])
    _show_skipped(answer)


def _show_skipped(answer: Answer) -> None:
    if answer["skipped"]:
        columns = ["model", "layer", "code", "unread", "reason"]
        title = "not stored; unread: it should have been read"
        print_table(columns, ([row[name] for name in columns] for row in answer["skipped"]), title)
    say(counts_line(answer))
