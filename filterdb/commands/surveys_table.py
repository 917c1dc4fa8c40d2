"""`filterdb series`, `filterdb filter-scale` and `filterdb statistics` on a terminal."""

from __future__ import annotations

from typing import Any

from filterdb.commands.answer import Answer
from filterdb.commands.table import _columns, _say, _table, basis_warning, counts


def series(answer: Answer) -> None:
    """Checkpoints, then pairs of seeds, then how far everything else is."""
    if not answer["checkpoints"] and not answer["pairs"]:
        _say("no checkpoints or retrainings: give models `architecture`, `training_dataset`, `epoch`, `seed`")
    for name, title, columns in (
        (
            "checkpoints",
            "drift to the last checkpoint",
            ["training", "epoch", "model", "drift", "floor_q95", "verdict"],
        ),
        (
            "pairs",
            "drift between seeds",
            ["pair_training", "one", "other", "pair_drift", "pair_floor_q95", "pair_verdict"],
        ),
        (
            "retrainings",
            "seeds against all others",
            ["retraining", "seeds", "mean_drift", "largest_drift", "to_nearest", "to_others", "nearest"],
        ),
    ):
        if answer[name]:
            shown = [column.removeprefix("pair_") for column in columns]
            _table(shown, ([_cell(row, column) for column in columns] for row in answer[name]), title)
    if any(row["verdict"] for row in answer["checkpoints"]) or any(row["pair_verdict"] for row in answer["pairs"]):
        _say("° one model against one: judged by numbers of filters only, by which nearly any two trainings differ")
    _say(f"mode {answer['mode']} · {counts(answer)}")
    basis_warning(answer)


def _cell(row: Answer, column: str) -> Any:
    mark = "°" if column.endswith("verdict") and row[column.replace("verdict", "judged_by")] == "sampling" else ""
    return f"{row[column]}{mark}" if mark else row[column]


def filter_scale(answer: Answer) -> None:
    """A column for each decile in which any group has filters."""
    kept = [k for k in range(10) if any(row["deciles"][k]["count"] for row in answer["rows"])]
    labels = [answer["rows"][0]["deciles"][k]["decile"].strip("[(])").replace(", ", "–") for k in kept]
    _table(
        ["group", "filters", "all", *labels],
        (
            [row["group"], row["count"], row["scale"], *(row["deciles"][k]["scale"] for k in kept)]
            for row in answer["rows"]
        ),
        "mean of max w − min w, by normalised depth",
    )
    _say(counts(answer))


def statistics(answer: Answer) -> None:
    """A row for each label of each column."""
    _columns(answer, ["column", "label", "models", "layers", "filters", "share"])
    _say(counts(answer))
