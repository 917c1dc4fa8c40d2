"""`filterdb verify`: check the integrity of a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from filterdb.commands.answer import Answer, print_answer
from filterdb.commands.group import commands
from filterdb.commands.layout import name, text, word
from filterdb.commands.options import database
from filterdb.commands.table import counts_line, print_table, say, wide_option

if TYPE_CHECKING:
    from filterdb.reduce.integrity import Verified
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@click.option("--deep", is_flag=True, help="Read every byte, recompute every layer's hash.")
@click.pass_context
def verify(context: click.Context, db: Database, deep: bool, as_json: bool) -> None:
    """Check the integrity of a database.

    Checks that history, tables and summaries are intact and every chunk is present; with --deep, checks every byte.

    Examples:
        filterdb verify db --deep
    """
    from filterdb.reduce import integrity

    answer = to_answer(db, integrity.verify(db, deep=deep))
    print_answer(answer, as_json, show)
    if not answer["ok"]:
        context.exit(1)


def to_answer(db: Database, result: Verified) -> Answer:
    """Return the answer: whether the database is intact, and each problem."""
    problems = [
        {"segment": p.segment, "variable": p.variable, "chunk": p.chunk, "what": p.what} for p in result.problems
    ]
    ok = not problems
    return {
        "snapshot": db.snapshot,
        "selection": "all",
        **db.state.counts,
        "ok": ok,
        "chunks": result.chunks,
        "problems": problems,
    }


def show(answer: Answer) -> None:
    """Print each problem."""
    if answer["ok"]:
        say(f"intact: chunks {answer['chunks']}, {counts_line(answer)}")
        return
    columns = [name("segment", 1), name("variable"), word("chunk"), text("what")]
    rows = ([problem[column.title] for column in columns] for problem in answer["problems"])
    print_table(columns, rows, "damage")
