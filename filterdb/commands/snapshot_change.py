"""Build the answer of commands that commit a snapshot: `relabel`, `remove`, `tag`, `compact` and `restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filterdb.commands.answer import Answer, head_of_database
from filterdb.commands.table import counts_line, say
from filterdb.wording import counted

if TYPE_CHECKING:
    from filterdb.store.database import Database


def to_answer(before: Database, after: Database) -> Answer:
    """Return the answer: the newest snapshot, and whether it is new."""
    state = after.state
    return {
        **head_of_database(after),
        "action": state.action,
        "changed": state.number != before.snapshot,
        "segments": [entry.id for entry in state.segments],
        "tags": dict(state.tags),
    }


def show(answer: Answer) -> None:
    """Print what was done and what the database holds now."""
    what = answer["action"] if answer["changed"] else "nothing to change"
    say(f"{what} · now {counts_line(answer)}, {counted(len(answer['segments']), 'segment')}")
