"""`filterdb layers`: list layers, and convolutions that are not stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import filterdb as fdb
from filterdb import schema
from filterdb.commands.answer import Answer, head_of_database, names_of_columns, print_answer, rows
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.options import database, selection
from filterdb.commands.table import counts_line, print_rows, print_table, say
from filterdb.errors import InputError
from filterdb.ledger import is_unread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from filterdb.store.database import Database


@commands.command()
@database
@selection
@figure_option
def layers(db: Database, draw: Draw, as_json: bool) -> None:
    """List layers, and convolutions that are not stored.

    The figure shows the first filters of each layer of a model: choose it with --where model=NAME, else it is the
    largest.
    """
    print_answer(to_answer(db), as_json, show)
    draw(lambda: _draw_first_filters(db))


def _draw_first_filters(db: Database) -> Figure:
    """Draw the first filters of the layers of the view's first model."""
    from filterdb.page.first_filters import LAYERS, first_filters

    tiles = first_filters(db, chunks=LAYERS)  # enough for one model, whatever its chunks are
    if tiles is None:
        raise InputError(f"{db.url}: expected a model with 3×3 filters to draw, got none; choose another with --where")
    return fdb.plot.first_filters(tiles)


def to_answer(db: Database) -> Answer:
    """Return the answer: the layers, and the convolutions that are not stored."""
    table = db.layer_columns
    renamed = {"model": "model", "layer": "layer_name", "filters": "row_size"}
    kept = {v.name for v in schema.LAYER_VARIABLES} - {"model_index"} | {"model"}
    listed = rows(table, names_of_columns(table, renamed, table.variables.keys() - kept))
    for row in listed:
        row |= {"strides": json.loads(row["strides"]), "dilations": json.loads(row["dilations"])}
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
    if answer["skipped"]:
        columns = ["model", "layer", "code", "unread", "reason"]
        title = "not stored; unread: it should have been read"
        print_table(columns, ([row[name] for name in columns] for row in answer["skipped"]), title)
    say(counts_line(answer))
