"""`filterdb series`: show drift along trainings and between their seeds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import filterdb as fdb
from filterdb.commands.answer import Answer, basis_of_result, head_of_result, print_answer, rows_along
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number, word
from filterdb.commands.options import database, mode_option, selection, training_option
from filterdb.commands.table import counts_line, print_basis_warning, print_table, say, wide_option
from filterdb.verdicts import legend, mark, verdict_of

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.choices import ModeName
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@selection
@mode_option
@training_option
@figure_option
def series(db: Database, mode: ModeName, training: str | None, draw: Draw, as_json: bool) -> None:
    """Show drift along checkpoints and between seeds.

    Uses the catalog columns `epoch` and `seed`.

    Examples:
        filterdb series db --training architecture,training_dataset
    """
    result = fdb.series(db, mode=mode, training=training)
    print_answer(to_answer(result), as_json, show)
    draw(lambda: fdb.plot.series(result))


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: a row for each checkpoint, pair of seeds and retraining."""
    dims = {"checkpoints": "checkpoint", "pairs": "pair", "retrainings": "retraining"}
    tables = {key: rows_along(result, dim) for key, dim in dims.items()}
    return {
        **head_of_result(result),
        "mode": result.attrs["mode"],
        "training": result.attrs.get("training"),
        **basis_of_result(result),
        **tables,
        "verdict_words": legend(),
    }


def show(answer: Answer) -> None:
    """Print checkpoints, then pairs of seeds, then the drift of seeds to all others."""
    if not answer["checkpoints"] and not answer["pairs"]:
        say("no checkpoints or retrainings: give models `architecture`, `training_dataset`, `epoch`, `seed`")
    for part, title, columns in (
        (
            "checkpoints",
            "drift to the last checkpoint",
            [
                name("training"),
                number("epoch"),
                name("model", 2),
                number("drift"),
                number("floor_q95", 1),
                word("verdict"),
            ],
        ),
        (
            "pairs",
            "drift between seeds",
            [
                name("pair_training"),
                name("one"),
                name("other"),
                number("pair_drift"),
                number("pair_floor_q95", 1),
                word("pair_verdict"),
            ],
        ),
        (
            "retrainings",
            "seeds against all others",
            [
                name("retraining"),
                number("seeds", 1),
                number("mean_drift"),
                number("largest_drift", 3),
                number("to_nearest"),
                number("to_others", 2),
                name("nearest", 4),
            ],
        ),
    ):
        if answer[part]:
            shown = [dataclasses.replace(column, title=column.title.removeprefix("pair_")) for column in columns]
            print_table(shown, ([_cell(row, column.title) for column in columns] for row in answer[part]), title)
    if any(row["verdict"] for row in answer["checkpoints"]) or any(row["pair_verdict"] for row in answer["pairs"]):
        say("° judged by numbers of filters only, by which nearly any two trainings differ; else by swapping layers")
    say(f"mode {answer['mode']} · {counts_line(answer)}")
    print_basis_warning(answer)


def _cell(row: Answer, column: str) -> Any:
    """Return a cell; a verdict with its symbol and word."""
    if not column.endswith("verdict") or not row[column]:
        return row[column]
    return f"{mark(row[column], row[column.replace('verdict', 'judged_by')])} {verdict_of(row[column]).word}"
