"""`filterdb statistics`: count models, layers and filters by label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_result, print_answer, rows_along
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import number, word
from filterdb.commands.options import database, selection
from filterdb.commands.table import counts_line, print_rows, say, wide_option

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@selection
@click.option("--by", "columns", metavar="COLUMN", multiple=True, help="A column to count by (repeatable).")
@figure_option
def statistics(db: Database, columns: tuple[str, ...], draw: Draw, as_json: bool) -> None:
    """Count models, layers and filters by label.

    By task, visual category and training set, or by other columns.

    Examples:
        filterdb statistics db --by task --by family
    """
    result = fdb.statistics(db, columns) if columns else fdb.statistics(db)
    print_answer(to_answer(result), as_json, show)
    draw(lambda: fdb.plot.contents(result))


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: a row for each label of each column."""
    return {**head_of_result(result), "rows": rows_along(result, "row")}


def show(answer: Answer) -> None:
    """Print a row for each label of each column."""
    print_rows(answer, [word("column"), "label", "models", number("layers", 2), "filters", number("share", 1)])
    say(counts_line(answer))
