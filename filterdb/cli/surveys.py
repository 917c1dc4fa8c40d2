"""`filterdb series`, `filterdb filter-scale`, `filterdb statistics`."""

from __future__ import annotations

import click

import filterdb as fdb
from filterdb.analysis.surveys import COLUMNS
from filterdb.answers import surveys as answers
from filterdb.cli.options import answer_with, commands, database, mode_option, selection
from filterdb.numerics.modes import ModeName
from filterdb.store.database import Database
from filterdb.tables import surveys as tables


@commands.command()
@database
@selection
@mode_option
def series(db: Database, mode: ModeName, as_json: bool) -> None:
    """Drift along the checkpoints of a training and between its seeds (catalog columns `epoch` and `seed`)."""
    answer_with(answers.series(fdb.series(db, mode)), as_json, tables.series)


@commands.command("filter-scale")
@database
@selection
@click.option(
    "--by",
    metavar="KEY",
    default="model",
    show_default=True,
    help="A label, depth_decile, layer, or several joined with commas.",
)
def filter_scale(db: Database, by: str, as_json: bool) -> None:
    """How large filters are: mean of max w − min w, by group and depth decile."""
    answer_with(answers.filter_scale(fdb.filter_scale(db, by)), as_json, tables.filter_scale)


@commands.command()
@database
@selection
@click.option("--by", "columns", metavar="COLUMN", multiple=True, help="A column to count by (repeatable).")
def statistics(db: Database, columns: tuple[str, ...], as_json: bool) -> None:
    """Models, layers and filters by task, visual category and training set, or by other columns."""
    answer_with(answers.statistics(fdb.statistics(db, columns or COLUMNS)), as_json, tables.statistics)
