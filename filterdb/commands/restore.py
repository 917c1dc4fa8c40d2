"""`filterdb restore`: go back to an earlier snapshot."""

from __future__ import annotations

import click

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import database_argument, place
from filterdb.commands.snapshot_change import show, to_answer
from filterdb.commands.table import warn


@commands.command()
@database_argument
@click.option("--snapshot", metavar="N|TAG", required=True, help="Go back to this snapshot.")
@place
def restore(db: str, snapshot: str, as_json: bool) -> None:
    """Commit an earlier snapshot's content as the newest.

    The snapshots in between stay in the history.

    Examples:
        filterdb restore db --snapshot 3
    """
    from filterdb.store.database import open_readable

    before = open_readable(db)
    after = fdb.restore(db, snapshot)
    warn(after.damaged_tables().values())
    print_answer(to_answer(before, after), as_json, show)
