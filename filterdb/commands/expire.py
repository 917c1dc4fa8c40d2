"""`filterdb expire`: drop snapshots from the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.options import newest
from filterdb.commands.snapshot_change import show, to_answer

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@newest
@click.option("--older-than", metavar="AGE", help="Drop snapshots that are older, such as 30d (m, h, d, w).")
@click.option("--keep", type=WholeNumber(1), metavar="N", help="Drop all but the N newest snapshots.")
@click.option("--tags", is_flag=True, help="Drop tagged snapshots too. Default: keep them.")
def expire(db: Database, older_than: str | None, keep: int | None, tags: bool, as_json: bool) -> None:
    """Drop snapshots from the history.

    Afterwards, `filterdb gc --delete` frees the space of objects that only they listed, after a grace period.

    Examples:
        filterdb expire db --older-than 30d
        filterdb expire db --keep 10
    """
    print_answer(to_answer(db, fdb.expire(db, older_than=older_than, keep=keep, tags=tags)), as_json, show)
