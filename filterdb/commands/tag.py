"""`filterdb tag`: name a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import database
from filterdb.commands.snapshot_change import show, to_answer

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@database
@click.argument("name")
def tag(db: Database, name: str, as_json: bool) -> None:
    """Name a snapshot.

    Names the newest one, or that of --snapshot. Afterwards, --snapshot NAME opens it.

    Examples:
        filterdb tag db cvpr-2026
        filterdb tag db before --snapshot 3
    """
    print_answer(to_answer(db, fdb.tag(db, name)), as_json, show)
