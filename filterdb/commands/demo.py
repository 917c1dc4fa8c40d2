"""`filterdb demo`: fetch, ingest and analyse small real models."""

from __future__ import annotations

from pathlib import Path

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import place
from filterdb.commands.table import counts_line, say, wide_option


@commands.command()
@wide_option
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("filterdb-demo"),
    show_default=True,
    help="Folder of the models, the database and the page.",
)
@place
def demo(folder: Path, as_json: bool) -> None:
    """Fetch, ingest and analyse a few small real models.

    Examples:
        filterdb demo --dir filterdb-demo
    """
    from filterdb import demo as demonstration
    from filterdb.commands import degeneration, drift, models

    done = demonstration.run(folder)
    if not as_json:
        models.show(models.to_answer(done.database))
        drift.show(drift.to_answer(fdb.drift(done.database, by="task")))
        degeneration.show(degeneration.to_answer(fdb.degeneration(done.database)))
    answer = {**head_of_database(done.database), "database": done.database.url, "page": str(done.page)}
    print_answer(answer, as_json, show)


def show(answer: Answer) -> None:
    """Print where the database and the page are."""
    say(f"database: {answer['database']} · {counts_line(answer)}")
    say(f"page: {answer['page']}")
