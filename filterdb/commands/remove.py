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
from filterdb.wording import counted

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

    Examples:
        filterdb remove db resnet50 vgg16
        filterdb remove db resnet50 --purge
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
    objects = f"{counted(purged['objects'], 'object')} ({counted(purged['bytes'], 'byte')})"
    say(f"{objects} and {counted(len(purged['snapshots']), 'snapshot')} removed")
    shared = purged["shared_with"]
    if shared:
        has = "has" if len(shared) == 1 else "have"
        say(f"{counted(len(shared), 'model')} still {has} some of these filters, such as {shared[0]}; purge them too")
    else:
        say("no stored model has any of these filters")
