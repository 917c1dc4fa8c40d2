"""`filterdb snapshots`: list the snapshots of a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number, word
from filterdb.commands.options import database_argument, place, snapshot_option
from filterdb.commands.table import print_table, warn, wide_option

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database_argument
@snapshot_option()
@place
def snapshots(db: str, snapshot: str | None, as_json: bool) -> None:
    """List the snapshots of a database.

    Examples:
        filterdb snapshots db
    """
    from filterdb.store.database import open_readable

    answer = to_answer(open_readable(db, snapshot))
    warn(row["damage"] for row in answer["rows"] if row["damage"])
    print_answer(answer, as_json, show)


def to_answer(db: Database) -> Answer:
    """Return the answer. A lost or damaged snapshot has only its number, its tags and `damage`."""
    from filterdb.store import snapshot as snapshot_files

    readable, damaged = snapshot_files.survey(db.files)
    fields = ("action", "created", "segments", "basis", "filters", "layers", "models")
    listed: dict[int, Answer] = {number: {**dict.fromkeys(fields), "damage": what} for number, what in damaged.items()}
    for state in readable:
        listed[state.number] = {
            "action": state.action,
            "created": state.created,
            "segments": [entry.id for entry in state.segments],
            "basis": state.basis,
            **state.counts,
            "damage": None,
        }
    tags = db.state.tags
    rows = [
        {"snapshot": number, **row, "tags": [name for name, tagged in tags.items() if tagged == number]}
        for number, row in sorted(listed.items())
    ]
    return {**head_of_database(db), "rows": rows}


def show(answer: Answer) -> None:
    """Print a row for each snapshot."""
    print_table(
        [
            word("snapshot"),
            name("tags", 1),
            word("created", 4),
            word("action"),
            number("segments", 3),
            "filters",
            number("layers", 2),
            number("models", 2),
            name("basis", 5),
        ],
        (
            [
                str(r["snapshot"]),
                r["tags"],
                r["created"],
                "damaged" if r["damage"] else r["action"],
                None if r["damage"] else len(r["segments"]),
                r["filters"],
                r["layers"],
                r["models"],
                r["basis"],
            ]
            for r in answer["rows"]
        ),
    )
