"""`filterdb explain`: why two groups drift."""

from __future__ import annotations

import click

import filterdb as fdb
from filterdb.answers.explain import explain as answer_of
from filterdb.cli.options import answer_with, commands, database, mode_option, selection
from filterdb.numerics.modes import ModeName
from filterdb.store.database import Database
from filterdb.tables.explain import explain as table


@commands.command()
@database
@click.argument("a")
@click.argument("b")
@selection
@mode_option
@click.option("--by", metavar="KEY", required=True, help="A label, depth_decile, layer, or several joined with commas.")
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
@click.option("--match", metavar="COLUMN", default="family", show_default=True, help="Label whose strata are matched.")
def explain(db: Database, a: str, b: str, by: str, mode: ModeName, raw: bool, match: str, as_json: bool) -> None:
    """Which components, bins, models and layers make the drift of groups A and B of KEY."""
    answer_with(answer_of(fdb.explain(db, by, a, b, mode, scaled=not raw, match=match)), as_json, table)
