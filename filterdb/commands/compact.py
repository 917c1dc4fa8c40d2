"""`filterdb compact`: join small segments into larger ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import chunk_rows_option, newest
from filterdb.commands.snapshot_change import show, to_answer

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@newest
@chunk_rows_option
def compact(db: Database, chunk_rows: int, as_json: bool) -> None:
    """Join small neighbouring segments into larger ones.

    Examples:
        filterdb compact db
    """
    print_answer(to_answer(db, fdb.compact(db, chunk_rows=chunk_rows)), as_json, show)
