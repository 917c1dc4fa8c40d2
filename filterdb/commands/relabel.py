"""`filterdb relabel`: new labels for models."""

from __future__ import annotations

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import catalog_option, newest
from filterdb.commands.snapshot_change import show, to_answer
from filterdb.store.database import Database


@commands.command()
@newest
@catalog_option(required=True)
def relabel(db: Database, catalog: str, as_json: bool) -> None:
    """Replace the labels of models by those of a catalog.

    Commits a new snapshot; no filter is rewritten.
    """
    before = db
    db = fdb.relabel(db, catalog)
    print_answer(to_answer(before, db), as_json, show)
