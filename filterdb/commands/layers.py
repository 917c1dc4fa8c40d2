"""`filterdb layers`: list layers, and convolutions that are not stored."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb import schema
from filterdb.commands.answer import Answer, head_of_database, names_of_columns, print_answer, rows
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number, text, word
from filterdb.commands.options import database, kernel_option, labels_and_verdicts
from filterdb.commands.table import counts_line, print_rows, print_table, say, wide_option
from filterdb.errors import UsageError
from filterdb.ledger import is_unread
from filterdb.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from filterdb.columns import Columns
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@kernel_option
@labels_and_verdicts
@click.option(
    "--skipped",
    is_flag=True,
    help="List each convolution that is not stored, with the reason, instead of only counting them.",
)
@figure_option
def layers(db: Database, kernel: str | None, skipped: bool, draw: Draw, as_json: bool) -> None:
    """List layers, and convolutions that are not stored.

    With --kernel 1x1, or another shape whose filters are not stored, list what is known of these layers. The figure
    shows the first filters of each layer of a model: choose it with --where model=NAME. Default: the largest.

    Examples:
        filterdb layers db --where model=resnet50
        filterdb layers db --skipped
    """
    shape = db.kernel if kernel is None else schema.parse_shape(kernel)
    if schema.has_bank(shape):
        bank = db.bank(shape)
        print_answer(to_answer(bank), as_json, partial(show, skipped=skipped))
        draw(lambda: _draw_first_filters(bank))
    else:
        print_answer(to_answer(db, _others(db, shape)), as_json, partial(show_others, skipped=skipped))
        draw(lambda: _draw_first_filters(db))


def _others(db: Database, shape: schema.Kernel) -> Columns:
    """Return the layers of a shape whose filters are not stored, and that meet the conditions of a view."""
    from filterdb.store.selection import meeting

    table = db.other_columns
    chosen = table["kernel"].values.astype(str) == schema.kernel_name(shape)
    if db.labels is None:
        raise UsageError(f"--exclude-verdict: expected none with {schema.kernel_name(shape)}, which has no verdicts")
    for column, values, negate in db.labels:
        chosen &= meeting(table, column, values, negate=negate)[0]
    return table.isel(layer=chosen)


def _draw_first_filters(db: Database) -> Axes:
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
        for row in rows(ledger, {key: f"skipped_{key}" for key in ("model", "layer", "code", "reason")})
        if chosen is None or row["model"] in chosen
    ]
    return {**head_of_database(db), "rows": listed, "skipped": skipped}


def show(answer: Answer, *, skipped: bool = False) -> None:
    """Print the layers, then the convolutions that are not stored."""
    columns = [
        name("model"),
        name("layer"),
        number("filters"),
        number("conv_depth", 1),
        number("conv_depth_norm", 5),
        number("in_channels", 2),
        number("out_channels", 2),
        number("groups", 4),
        word("weight_source", 3),
    ]
    print_rows(answer, columns)
    _show_skipped(answer, listed=skipped)


def show_others(answer: Answer, *, skipped: bool = False) -> None:
    """Print layers whose filters are not stored, then the convolutions of which nothing is known."""
    columns = [
        name("model"),
        name("layer"),
        number("filters"),
        word("kernel", 5),
        number("conv_depth", 3),
        number("in_channels", 6),
        number("out_channels", 6),
        number("groups", 7),
        number("peak", 1),
        number("sparse_filters", 2),
        number("duplicate_filters", 4),
        number("nonfinite", 4),
    ]
    print_rows(answer, columns)
    _show_skipped(answer, listed=skipped)


def _show_skipped(answer: Answer, *, listed: bool) -> None:
    """Print the convolutions that are not stored if they are to be `listed`, else how many have each reason."""
    skipped = answer["skipped"]
    if skipped and listed:
        columns = [name("model"), name("layer"), word("code"), word("unread", 1), text("reason")]
        title = "not stored; unread: it should have been read"
        print_table(columns, ([row[column.title] for column in columns] for row in skipped), title)
    elif skipped:
        them = "it" if len(skipped) == 1 else "them"
        say(f"not stored: {counted(len(skipped), 'convolution')}; --skipped lists {them}")
        for code, number_of_code in Counter(row["code"] for row in skipped).most_common():
            rows_of_code = [row for row in skipped if row["code"] == code]
            reason, number_of_reason = Counter(row["reason"] for row in rows_of_code).most_common(1)[0]
            unread = " (should have been read)" if any(row["unread"] for row in rows_of_code) else ""
            such = "" if number_of_reason == number_of_code else "such as "
            say(f"  {number_of_code:,} {code}{unread}: {such}{reason}")
    say(counts_line(answer))
