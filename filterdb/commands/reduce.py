"""`filterdb reduce`: compute the summaries that the analyses need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import database, mode_option, raw_option
from filterdb.commands.table import counts_line, say

if TYPE_CHECKING:
    from filterdb.choices import ModeName
    from filterdb.store.database import Database


@commands.command()
@database
@mode_option
@raw_option
def reduce(db: Database, mode: ModeName, raw: bool, as_json: bool) -> None:
    """Run the passes over the filters that are missing.

    Analyses run the passes that they need by themselves.
    """
    from filterdb.reduce.basis import layer_histograms, projection

    db, fitted = projection(db, mode, scaled=not raw)
    layer_histograms(db, fitted)
    print_answer({**head_of_database(db), "mode": mode, "scaled": not raw, "basis": fitted.id}, as_json, show)


def show(answer: Answer) -> None:
    """Print the basis of the summaries."""
    say(f"summaries are complete · basis {answer['basis'] or 'fitted on the whole snapshot'} · {counts_line(answer)}")
