"""`filterdb gc`: list or delete garbage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.choices import GRACE
from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number, word
from filterdb.commands.numbers import Number
from filterdb.commands.options import database
from filterdb.commands.table import print_rows, say, wide_option

if TYPE_CHECKING:
    from filterdb.store.collect import Garbage
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@click.option("--delete", is_flag=True, help="Remove the garbage. Default: only list it.")
@click.option(
    "--grace",
    type=Number(0),
    default=GRACE / 60,
    show_default=True,
    metavar="MINUTES",
    help="Keep objects written in the last MINUTES minutes.",
)
def gc(db: Database, delete: bool, grace: float, as_json: bool) -> None:
    """List or delete objects that nothing refers to.

    These are objects that no snapshot lists and no running ingest owns.

    Examples:
        filterdb gc db
        filterdb gc db --delete
    """
    garbage = fdb.gc(db.url, delete=delete, grace=60 * grace)
    print_answer(to_answer(db, garbage, deleted=delete), as_json, show)


def to_answer(db: Database, garbage: list[Garbage], *, deleted: bool) -> Answer:
    """Return the answer: a row for each kind and name of garbage."""
    rows = [
        {"kind": item.kind, "name": item.name, "objects": len(item.objects), "bytes": item.bytes} for item in garbage
    ]
    return {**head_of_database(db), "deleted": deleted, "bytes": sum(item.bytes for item in garbage), "rows": rows}


def show(answer: Answer) -> None:
    """Print a row for each kind and name of garbage."""
    if not answer["rows"]:
        say("nothing to collect")
        return
    columns = [word("kind"), name("name"), number("objects", 1), number("bytes")]
    print_rows(answer, columns, "removed" if answer["deleted"] else "to be removed by --delete")
