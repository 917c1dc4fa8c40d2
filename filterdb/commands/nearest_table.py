"""`filterdb nearest` on a terminal."""

from __future__ import annotations

from typing import Any

from filterdb.analysis.drift import FEW
from filterdb.commands.answer import Answer
from filterdb.commands.table import _say, _table, basis_warning, counts

NO_ACCURACY = "near means similar 3×3 filters; it says nothing of the accuracy after transfer"


def nearest(answer: Answer) -> None:
    """The models in order, with the noise floor."""
    columns = ["", "model", "drift", "noise", "", "filters", "task", "training_dataset"]
    _table(columns, ([row["rank"], *_cells(row, "task", "training_dataset")] for row in answer["rows"]))
    _footer(answer)


def by_decile(answer: Answer) -> None:
    """A column for each depth decile in which the file has filters; ~ where the drift is within noise."""
    deciles = [label for label, count in answer["query"]["deciles"].items() if count]
    short = (label.strip("[(])").replace(", ", "–") for label in deciles)
    columns = ["", "model", "drift", "noise", "", "filters", *short]
    rows = [[row["rank"], *_cells(row), *map(_part, row["deciles"])] for row in answer["rows"]]
    _table(columns, rows, "whole, and by depth decile (normalised depth)")
    _footer(answer)


def _cells(row: Answer, *labels: str) -> list[Any]:
    what = "within noise" if row["closer_than_noise"] else ""
    what = "the same file" if row["same_content"] else "few" if row["few"] else what
    return [row["model"], row["drift"], row["floor_q95"], what, row["count"], *(row[label] for label in labels)]


def _part(part: Answer) -> Any:
    if not part["count"]:
        return None
    return f"{part['drift']:.4g}" + ("~" if part["drift"] <= part["floor_q95"] else "")


def _footer(answer: Answer) -> None:
    query = answer["query"]
    _say(f"{query['file']}: {query['filters']:,} filters, {query['layers']:,} layers, against {counts(answer)}")
    for layer, reason in query["left_out"].items():
        _say(f"without layer {layer}: {reason}")
    if query["filters"] < FEW:
        _say(f"it has fewer than {FEW:,} filters: chance decides much of this order")
    _say(f"noise: drift below it is what two samples of one distribution show (95 %); few: under {FEW:,}, not ranked")
    _say(NO_ACCURACY)
    basis_warning(answer)
