"""`filterdb models`: list the models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from filterdb.commands.answer import Answer, head_of_database, names_of_columns, print_answer, rows
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.options import database, selection
from filterdb.commands.table import counts_line, print_rows, say, wide_option

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@selection
def models(db: Database, as_json: bool) -> None:
    """List the models.

    Examples:
        filterdb models db --where task=segmentation
    """
    print_answer(to_answer(db), as_json, show)


def to_answer(db: Database) -> Answer:
    """Return the answer: a row for each model, with the columns of the catalog and the facts of its file."""
    table = db.model_columns
    listed = rows(
        table, names_of_columns(table, {"model": "model"}, {"operators", "filter_shapes", "extra", "segment"})
    )
    for row, operators, shapes in zip(listed, table["operators"].values, table["filter_shapes"].values, strict=True):
        # The id of a model is its name in the catalog.
        row |= {"name": row["model"], "operators": json.loads(operators), "filter_shapes": json.loads(shapes)}
    return {**head_of_database(db), "rows": listed}


def show(answer: Answer) -> None:
    """Print the main columns."""
    print_rows(
        answer,
        [
            "model",
            name("task", 3),
            name("visual_category", 5),
            name("training_dataset", 4),
            "filters",
            number("layers", 1),
            number("opset", 7),
            name("producer", 6),
        ],
    )
    say(counts_line(answer))
