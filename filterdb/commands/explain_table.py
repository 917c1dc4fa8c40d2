"""The tables of `filterdb explain`."""

from __future__ import annotations

from filterdb.commands.answer import Answer
from filterdb.commands.table import _say, _table, basis_warning, counts

SHOWN = 10
"""Models and layers that a terminal shows."""


def explain(answer: Answer) -> None:
    """The sentence, then components, models, layers and matched strata."""
    _say(answer["summary"])
    a, b = answer["groups"]
    components = [[f"c{row['component']}", row["share"], row["drift"], row["weight"]] for row in answer["by_component"]]
    _table(["component", "share", "part of D", "weight"], components)
    models = [[row["model"], *row["filters"], row["share"], row["without"]] for row in answer["by_model"]]
    _table(
        ["model", f"filters in {a}", f"in {b}", "share", "D without it"], models[:SHOWN], _some("models", len(models))
    )
    names = ("layer", "group", "filters", "share", "without")
    layers = [[row[name] for name in names] for row in answer["by_layer"]]
    _table([*names[:-1], "D without it"], layers[:SHOWN], _some("layers", len(layers)))
    if answer["matched"]:
        rows = [
            [row["label"] + (" (few)" if row["few"] else ""), *row["filters"], row["drift"]]
            for row in answer["matched"]
        ]
        _table([f"{answer['match']} in both", f"filters in {a}", f"in {b}", "drift"], rows)
        _say(f"in the same mix of these: {answer['within_matched']:.4g}; what the mix makes: {answer['left']:.4g}")
    else:
        _say(f"no {answer['match']} is in both groups")
    _say(f"kl drift by {answer['by']}, mode {answer['mode']} · {counts(answer)}")
    basis_warning(answer)


def _some(what: str, number: int) -> str | None:
    return f"the {SHOWN} of {number:,} {what} with the largest share; --json has all" if number > SHOWN else None
