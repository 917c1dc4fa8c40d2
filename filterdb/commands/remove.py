"""`filterdb remove`: remove models in a new snapshot."""

from __future__ import annotations

import click

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import newest
from filterdb.commands.snapshot_change import show, to_answer
from filterdb.store.database import Database


@commands.command()
@newest
@click.argument("models", nargs=-1, required=True)
def remove(db: Database, models: tuple[str, ...], as_json: bool) -> None:
    """Remove models in a new snapshot.

    Earlier snapshots keep them.
    """
    print_answer(to_answer(db, fdb.remove(db, models)), as_json, show)
