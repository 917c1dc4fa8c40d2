"""`filterdb relabel`: replace the labels of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import catalog_option, newest
from filterdb.commands.snapshot_change import show, to_answer

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@newest
@catalog_option(required=True)
def relabel(db: Database, catalog: str, as_json: bool) -> None:
    """Replace the labels of models by those of a catalog.

    Commits a new snapshot; no filter is rewritten.

    Examples:
        filterdb relabel db --catalog models.csv
    """
    print_answer(to_answer(db, fdb.relabel(db, catalog)), as_json, show)
