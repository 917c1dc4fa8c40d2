"""`filterdb explain`: show what causes the drift between two groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, basis_of_result, head_of_result, noise_of_pair, print_answer
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.options import by_option, database, gathered, mode_option, raw_option, selection, unit_option
from filterdb.commands.table import counts_line, print_basis_warning, print_table, say, say_units, wide_option
from filterdb.verdicts import legend

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.choices import ModeName
    from filterdb.store.database import Database

ROWS_SHOWN = 10
"""Models and layers shown in the terminal."""


@dataclass(frozen=True)
class _Pair:
    """Hold the options that define the drift of one pair of groups."""

    a: str
    b: str
    by: str
    mode: ModeName
    raw: bool
    match: str
    unit: str | None

    def explain(self, db: Database) -> xr.Dataset:
        """Split the drift of the pair."""
        options: dict[str, Any] = {"mode": self.mode, "scaled": not self.raw, "match": self.match, "unit": self.unit}
        return fdb.explain(db, self.by, self.a, self.b, **options)


@commands.command()
@wide_option
@database
@click.argument("a")
@click.argument("b")
@selection
@mode_option
@by_option(required=True)
@raw_option
@click.option("--match", metavar="COLUMN", default="family", show_default=True, help="Label whose strata are matched.")
@unit_option
@gathered("pair", _Pair)
def explain(db: Database, pair: _Pair, as_json: bool) -> None:
    """Show what causes the drift between two groups.

    Splits the drift of groups A and B of KEY by component, bin, model and layer.

    Examples:
        filterdb explain db segmentation classification --by task
    """
    print_answer(to_answer(pair.explain(db)), as_json, show)


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: all shares of the drift, with models and layers of the largest share first."""
    sides = result["side"].values.tolist()
    shares, drift = result["component_share"].values, float(result["drift"])
    components = [
        {"component": i, "weight": weight, "share": share, "drift": share * drift}
        for i, (weight, share) in enumerate(zip(result["weights"].values, shares, strict=True))
    ]
    models = [
        {"model": model, "share": share, "without": without, "filters": filters}
        for model, share, without, filters in zip(
            *(result[name].values.tolist() for name in ("model", "model_share", "without_model", "model_count")),
            strict=True,
        )
    ]
    variables = ("layer", "layer_model", "layer_side", "layer_count", "layer_share", "without_layer")
    names = ("layer", "model", "group", "filters", "share", "without")
    layers = [
        dict(zip(names, row, strict=True))
        for row in zip(*(result[name].values.tolist() for name in variables), strict=True)
    ]
    matched = [
        {"label": label, "drift": drift_within, "filters": filters, "few": few}
        for label, drift_within, filters, few in zip(
            *(
                result[name].values.tolist()
                for name in ("matched_label", "matched_drift", "matched_count", "matched_few")
            ),
            strict=True,
        )
    ]
    return {
        **head_of_result(result),
        "by": result.attrs["by"],
        "mode": result.attrs["mode"],
        "metric": "kl",
        "scaled": bool(result.attrs["scaled"]),
        "groups": sides,
        "counts": result["count"].values,
        "drift": drift,
        **basis_of_result(result),
        **noise_of_pair(result),
        "verdict_words": legend(),
        "units_by": result.attrs.get("units_by"),
        "summary": result.attrs["summary"],
        "by_component": components,
        "bin_edges": result["bin_edges"].values,
        "by_bin": result["bin_share"].values,
        "rest": result["rest_share"].item(),
        "by_model": sorted(models, key=lambda row: -abs(row["share"])),
        "by_layer": sorted(layers, key=lambda row: -abs(row["share"])),
        "match": result.attrs["match"],
        "matched": matched,
        "within_matched": result["within_matched"].item(),
        "left": result["left"].item(),
    }


def show(answer: Answer) -> None:
    """Print the sentence, then components, models, layers and matched strata."""
    say(answer["summary"])
    a, b = answer["groups"]
    components = [[f"c{row['component']}", row["share"], row["drift"], row["weight"]] for row in answer["by_component"]]
    print_table(["component", "share", "part of D", number("weight", 1)], components)
    models = [[row["model"], *row["filters"], row["share"], row["without"]] for row in answer["by_model"]]
    print_table(
        ["model", number(f"filters in {a}", 1), number(f"in {b}", 1), number("share"), number("D without it")],
        models[:ROWS_SHOWN],
        _title("models", len(models)),
    )
    names = ("layer", "group", "filters", "share", "without")
    layers = [[row[key] for key in names] for row in answer["by_layer"]]
    columns = [name("layer"), name("group", 1), number("filters", 2), number("share"), number("D without it")]
    print_table(columns, layers[:ROWS_SHOWN], _title("layers", len(layers)))
    if answer["matched"]:
        rows = [
            [row["label"] + (" (few)" if row["few"] else ""), *row["filters"], row["drift"]]
            for row in answer["matched"]
        ]
        counts = [number(f"filters in {a}", 1), number(f"in {b}", 1)]
        print_table([name(f"{answer['match']} in both"), *counts, number("drift")], rows)
        say(f"with the same mix of these: {answer['within_matched']:.4g}; due to the mix: {answer['left']:.4g}")
    else:
        say(f"no {answer['match']} is in both groups")
    say_units(answer)
    say(f"kl drift by {answer['by']}, mode {answer['mode']} · {counts_line(answer)}")
    print_basis_warning(answer)


def _title(what: str, number: int) -> str | None:
    """Return the title of a table that does not show all rows."""
    if number <= ROWS_SHOWN:
        return None
    return f"the {ROWS_SHOWN} of {number:,} {what} with the largest share; --json has all"
