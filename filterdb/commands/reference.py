"""`filterdb reference`: write the reference that `check --reference` compares with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import database, selection
from filterdb.commands.table import say
from filterdb.wording import counted

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@database
@selection
@click.option("-o", "--output", metavar="FILE", required=True, help="The JSON file to write.")
@click.option("--licence", default="not stated", show_default=True, help="Licence of the file, which it states.")
def reference(db: Database, output: str, licence: str, as_json: bool) -> None:
    """Write a small file of percentiles for `check --reference`.

    It has counts and quantiles of the layers' measures by depth and size, at most 200 KB, and no weights.

    Examples:
        filterdb reference db -o reference.json --licence CC0-1.0
    """
    facts = fdb.write_reference(db, output, licence=licence)
    print_answer({**head_of_database(db), **facts, "output": output}, as_json, show)


def show(answer: Answer) -> None:
    """Print where the reference is and what it holds."""
    layers, models = counted(answer["layers"], "layer"), counted(answer["models"], "model")
    say(f"{answer['output']}: {layers} of {models}, licence: {answer['licence']}")
