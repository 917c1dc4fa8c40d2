"""`filterdb nearest`: find the models whose filters are most like those of a file."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from filterdb.commands.answer import Answer, basis_of_result, head_of_result, print_answer, rows
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number, text, word
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.options import (
    database,
    kernel_option,
    labels_and_verdicts,
    limits_option,
    network_options,
)
from filterdb.commands.table import counts_line, print_basis_warning, print_table, say, wide_option
from filterdb.redaction import printable
from filterdb.verdicts import legend, mark, verdict_of
from filterdb.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.columns import Columns
    from filterdb.store.database import Database

_COLUMNS = (
    number(""),
    name("model"),
    number("drift"),
    number("excess", 1),
    number("noise", 1),
    word(""),
    number("filters", 2),
)

_NO_ACCURACY = "near means similar filters; it does not predict accuracy after transfer"


@commands.command()
@wide_option
@limits_option
@network_options
@database
@kernel_option
@labels_and_verdicts
@click.argument("model")
@click.option("-n", "most", type=WholeNumber(1), default=10, show_default=True, help="How many models.")
@click.option("--by-decile", is_flag=True, help="Drift of each depth decile as well.")
def nearest(db: Database, model: str, most: int, by_decile: bool, as_json: bool, **options: Any) -> None:
    """Find the stored models most similar to a model.

    MODEL is a file or a URL. Models are ranked by how much more their filters drift than chance explains at their
    sizes, over all kernel shapes that both have. Related models, such as fine-tuned copies, are marked.
    Limit the models compared with --where 'task=…' or 'training_dataset=…'. Similar filters do not promise
    accuracy after transfer.

    Examples:
        filterdb nearest db model.onnx -n 5
    """
    from filterdb.analysis.nearest import rank_models  # heavy

    result = rank_models(db, model, n=most, **options)
    print_answer(to_answer(result), as_json, show_deciles if by_decile else show)


def to_answer(result: xr.Dataset | Columns) -> Answer:
    """Return the answer: a row for each model, the nearest first. `rank` is null for a model with too few filters."""
    shown = [str(name) for name, array in result.variables.items() if array.dims == ("model",)]
    table = rows(result, {"model": "model", **{name: name for name in shown if name != "model"}})
    for i, row in enumerate(table):
        entry = result.isel(model=i)
        row |= {
            "rank": row["rank"] or None,
            "shapes": _shapes(entry),
            "per_component": entry["per_component"].values,
            "deciles": [
                {
                    "decile": str(label),
                    "drift": entry["decile_drift"].values[k],
                    "floor": entry["decile_floor"].values[k],
                    "floor_q95": entry["decile_floor_q95"].values[k],
                    "count": _whole(entry["decile_count"].values[k]),
                }
                for k, label in enumerate(result["decile"].values)
                if result["query_count"].values[k]
            ],
        }
    attrs = result.attrs
    return {
        **head_of_result(result),
        "mode": attrs["mode"],
        "metric": attrs["metric"],
        "per_component_metric": attrs["per_component_metric"],
        **basis_of_result(result),
        "weights": result["weights"].values,
        "query": {
            "file": attrs["query"],
            "hash": attrs["query_hash"],
            "filters": attrs["query_filters"],
            "layers": attrs["query_layers"],
            "stored_as": json.loads(attrs["query_stored_as"]),
            "left_out": json.loads(attrs["query_left_out"]),
            "shapes": json.loads(attrs["query_shapes"]),
            "deciles": dict(zip(map(str, result["decile"].values), result["query_count"].values.tolist(), strict=True)),
        },
        "rows": table,
        "verdict_words": legend(),
    }


def _shapes(entry: xr.Dataset | Columns) -> list[Answer]:
    """Return what is known of a model in each kernel shape that it has; nothing if only one is compared."""
    if "shape" not in entry.variables:
        return []
    names = ("drift", "excess", "floor", "floor_q95", "count", "verdict")
    columns = [entry["shape"].values.tolist(), *(entry[f"shape_{name}"].values.tolist() for name in names)]
    rows = [dict(zip(("kernel", *names), row, strict=True)) for row in zip(*columns, strict=True)]
    return [row for row in rows if row["count"]]


def _whole(count: float) -> int:
    """Return a count as an integer, 0 for NaN."""
    return 0 if math.isnan(count) else int(count)


def show(answer: Answer) -> None:
    """Print the models in order, with the noise floor."""
    labels = ["task", "training_dataset"]
    if len(answer["query"]["shapes"]) > 1:
        labels.insert(0, "drift by shape")
        answer = {**answer, "rows": [{**row, "drift by shape": _by_shape(row)} for row in answer["rows"]]}
    shown = [
        text(label, 5) if label == "drift by shape" else name(label, 4 - i) for i, label in enumerate(labels[::-1])
    ]
    columns = [*_COLUMNS, *shown[::-1]]
    print_table(columns, ([row["rank"], *_cells(row, *labels)] for row in answer["rows"]))
    _footer(answer)


def _by_shape(row: Answer) -> str:
    """Return the drift of a model in each kernel shape."""
    return ", ".join(f"{shape['kernel']} {shape['drift']:.3g}" for shape in row["shapes"])


def show_deciles(answer: Answer) -> None:
    """Print a column for each depth decile in which the file has filters; ≈ marks drift like noise."""
    deciles = [label for label, count in answer["query"]["deciles"].items() if count]
    short = (label.strip("[(])").replace(", ", "–") for label in deciles)
    columns = [*_COLUMNS, *map(number, short)]
    ranked = [[row["rank"], *_cells(row), *map(_decile_cell, row["deciles"])] for row in answer["rows"]]
    print_table(columns, ranked, "whole, and by depth decile (normalised depth)")
    _footer(answer)


def _cells(row: Answer, *labels: str) -> list[Any]:
    """Return the cells of a model."""
    remark = "the same file" if row["same_content"] else "the same filters" if row["same_filters"] else ""
    remark = remark or f"{mark(row['verdict'], row['judged_by'])} {verdict_of(row['verdict']).word}"
    import numpy as np

    noise = np.fmax(row["floor_q95"], row["layer_floor_q95"])
    numbers = [row["drift"], row["excess"], noise]
    return [row["model"], *numbers, remark, row["count"], *(row[label] for label in labels)]


def _decile_cell(decile: Answer) -> Any:
    """Return the drift in a depth decile, marked ≈ if it is like noise; None if the model has no filters there."""
    if not decile["count"]:
        return None
    return f"{decile['drift']:.4g}" + ("≈" if decile["drift"] <= decile["floor_q95"] else "")


def _footer(answer: Answer) -> None:
    """Print the counts, the layers left out, and how to read the table."""
    from filterdb.analysis.noise import FEW

    query = answer["query"]
    numbers = f"{counted(query['filters'], 'filter')}, {counted(query['layers'], 'layer')}"
    say(f"{query['file']}: {numbers}, against {counts_line(answer)}")
    if len(query["shapes"]) > 1:
        shapes = ", ".join(f"{kernel} {filters:,}" for kernel, filters in query["shapes"].items())
        say(f"filters by shape: {shapes}; drift is the mean over shapes, weighted by the file's weights")
    if query["stored_as"]:
        say(f"already stored as {', '.join(map(printable, query['stored_as']))}")
    if any(row["same_filters"] and not row["same_content"] for row in answer["rows"]):
        say(
            "the same filters: equal up to the scale and sign of each output channel, which a folded batch norm changes"
        )
    for layer, reason in query["left_out"].items():
        say(f"without layer {layer}: {reason}")
    if query["filters"] < FEW:
        say(f"it has fewer than {FEW:,} filters: chance decides much of this order")
    say(
        "noise: chance alone stays below it in 95 % of cases (two samples of one distribution, or the two models "
        f"with layers swapped); ? fewer than {FEW:,} filters, not ranked; "
        "?° the filters differ, as nearly any two models' do"
    )
    say("excess: drift minus its mean under chance; models are sorted by it")
    if any(row["verdict"] == "related" for row in answer["rows"]):
        say("= related: drift so far below the noise that one was derived from the other, or both from a third")
    say(_NO_ACCURACY)
    print_basis_warning(answer)
