"""`filterdb refit`: fit a new basis for a database that has grown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filterdb as fdb
from filterdb.commands.answer import head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import newest, with_kernel
from filterdb.commands.reduce import show

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@newest
@with_kernel
def refit(db: Database, as_json: bool) -> None:
    """Fit a new basis and commit it.

    The fit uses the newest snapshot.

    Examples:
        filterdb refit db
    """
    db = fdb.refit(db)
    print_answer({**head_of_database(db), "basis": db.state.basis_of(db.kernel)}, as_json, show)
