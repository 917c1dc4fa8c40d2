"""`filterdb degeneration`: judge every layer."""

from __future__ import annotations

import xarray as xr

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_result, print_answer, rows
from filterdb.commands.group import commands
from filterdb.commands.options import database, mode_option, selection
from filterdb.commands.table import counts_line, print_rows, say
from filterdb.numerics.modes import ModeName
from filterdb.store.database import Database


@commands.command()
@database
@selection
@mode_option
def degeneration(db: Database, mode: ModeName, as_json: bool) -> None:
    """Show sparsity, entropy and verdict of every layer."""
    print_answer(to_answer(fdb.degeneration(db, mode=mode)), as_json, show)


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: a row for each layer."""
    names = {"model": "layer_model", "layer": "layer_name", "filters": "filters"}
    shown = [str(name) for name, array in result.variables.items() if array.dims == ("layer",)]
    table = rows(result, {**names, **{name: name for name in shown if name not in {"layer", *names.values()}}})
    rules = [str(rule) for rule in result["rule"].values]
    for row, verdict in zip(table, result["verdict"].values, strict=True):
        hits = [rule for rule, hit in zip(rules, verdict, strict=True) if hit]
        row["verdict"] = hits if row["scale_known"] else None
        row["direction"] = row["direction"] or None
    untrained = [str(name) for name in result["model"].values[result["untrained"].values]]
    return {**head_of_result(result), "mode": result.attrs["mode"], "rows": table, "untrained": untrained}


def show(answer: Answer) -> None:
    """Print a row for each layer, then the untrained models."""
    print_rows(
        answer,
        [
            "model",
            "layer",
            "filters",
            "sparsity",
            "variance_entropy",
            "threshold",
            "ratio",
            "orthogonality",
            "verdict",
            "direction",
        ],
    )
    for model in answer["untrained"]:
        say(f"untrained: {model}")
    with_verdict = sum(bool(row["verdict"]) for row in answer["rows"])
    say(f"{with_verdict} of {len(answer['rows'])} layers with a verdict, mode {answer['mode']} · {counts_line(answer)}")
