"""`filterdb report`: write the web page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import database, densities_option, kernel_option, labels_and_verdicts, mode_option
from filterdb.commands.table import say

if TYPE_CHECKING:
    from filterdb.choices import ModeName
    from filterdb.store.database import Database


@commands.command()
@database
@kernel_option
@labels_and_verdicts
@mode_option
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    required=True,
    help="Folder of the page, or a URL such as s3://bucket/report.",
)
@densities_option
def report(
    db: Database, output: str, mode: ModeName, densities: bool | None, kernel: str | None, as_json: bool
) -> None:
    """Write a page with all figures and tables, for each kernel shape with at least 1,000 filters.

    Every figure is also an SVG and a PNG file, every table a CSV and a Parquet file.

    Examples:
        filterdb report db -o report
    """
    page = fdb.report(db, output, mode=mode, densities=densities, kernel=kernel)
    print_answer({**head_of_database(db), "page": str(page)}, as_json, show)


def show(answer: Answer) -> None:
    """Print where the page is."""
    say(f"page: {answer['page']}")
