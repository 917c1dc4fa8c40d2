"""`filterdb nearest`."""

from __future__ import annotations

import click

import filterdb as fdb
from filterdb.commands import nearest_table as tables
from filterdb.commands.group import commands
from filterdb.commands.nearest_answer import nearest as answer_of
from filterdb.commands.options import answer_with, database, limits_option, selection
from filterdb.models.sandbox import Limits
from filterdb.store.database import Database


@commands.command()
@limits_option
@database
@selection
@click.argument("model")
@click.option("-n", "number", type=click.IntRange(1), default=10, show_default=True, help="How many models.")
@click.option("--by-decile", is_flag=True, help="Drift of each depth decile as well.")
def nearest(db: Database, model: str, number: int, by_decile: bool, limits: Limits, as_json: bool) -> None:
    """Models of DB whose 3×3 filters are most like those of MODEL, an ONNX file or URL, with noise floors.

    --where 'task=…' or 'training_dataset=…' says among which. Similar filters are claimed, not accuracy after transfer.
    """
    result = fdb.nearest(db, model, number, limits=limits)
    answer_with(answer_of(result), as_json, tables.by_decile if by_decile else tables.nearest)
