"""`filterdb remove`: remove models in a new snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import newest
from filterdb.commands.snapshot_change import show, to_answer
from filterdb.commands.table import say

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@newest
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--purge", is_flag=True, help="Remove every object that holds their filters, and the snapshots that need it."
)
def remove(db: Database, models: tuple[str, ...], purge: bool, as_json: bool) -> None:
    """Remove models in a new snapshot.

    Earlier snapshots keep them, unless they are purged.
    """
    if not purge:
        print_answer(to_answer(db, fdb.remove(db, models)), as_json, show)
        return
    done = fdb.purge(db, models)
    purged = {
        "objects": sum(len(garbage.objects) for garbage in done.removed),
        "bytes": sum(garbage.bytes for garbage in done.removed),
        "snapshots": done.snapshots,
        "shared_with": done.shared_with,
    }
    print_answer({**to_answer(db, done.database), "purged": purged}, as_json, _show_purged)


def _show_purged(answer: Answer) -> None:
    """Print what was removed, and which models still have the same filters."""
    purged = answer["purged"]
    show({**answer, "action": "purge"})
    say(f"{purged['objects']:,} objects ({purged['bytes']:,} bytes) and {len(purged['snapshots']):,} snapshots removed")
    shared = purged["shared_with"]
    if shared:
        say(f"{len(shared)} models still have some of these filters, such as {shared[0]}; purge them too")
    else:
        say("no stored model has any of these filters")
