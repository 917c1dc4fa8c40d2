"""`filterdb phenotypes`: name the shapes of coefficient distributions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb.choices import COMPONENTS
from filterdb.commands.answer import Answer, basis_of_result, head_of_result, print_answer
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number, word
from filterdb.commands.options import by_option, database, mode_option, parse_pair, raw_option, selection
from filterdb.commands.table import (
    counts_line,
    leading,
    print_basis_warning,
    print_table,
    say,
    say_leading,
    wide_option,
)
from filterdb.errors import UsageError

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.choices import ModeName
    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@selection
@mode_option
@by_option()
@click.option(
    "--components",
    "pairs",
    multiple=True,
    metavar="I,J",
    help="A pair of components to classify (repeatable); by default 0,1 … 6,7.",
)
@click.option(
    "--no-pairs",
    is_flag=True,
    help="Classify single components only; no pass over the filters except for the histograms.",
)
@raw_option
def phenotypes(
    db: Database, by: str | None, pairs: tuple[str, ...], no_pairs: bool, mode: ModeName, raw: bool, as_json: bool
) -> None:
    """Name the shapes of coefficient distributions.

    The phenotypes are sun, spikes, symbols and point.

    Examples:
        filterdb phenotypes db --by task --components 0,1
    """
    if pairs and no_pairs:
        raise UsageError("--no-pairs cannot be combined with --components; leave one of them out")
    chosen: dict[str, Any] = {"pairs": list(map(parse_pair, pairs))} if pairs or no_pairs else {}
    result = fdb.phenotypes(db, by, **chosen, mode=mode, scaled=not raw)
    print_answer(to_answer(result), as_json, show)


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: components and pairs of each group, with the measures that the rule uses."""
    names = [str(key) for key, array in result.data_vars.items() if array.dims == ("group", "component")]
    groups = []
    for i, label in enumerate(result["group"].values):
        group = result.isel(group=i)
        components = [{key: group[key].values[k] for key in names} for k in range(result.sizes["component"])]
        pairs = [
            {
                "components": [int(group["first"][k]), int(group["second"][k])],
                **{key: group[f"pair_{key}"].values[k] for key in names},
            }
            for k in range(result.sizes["pair"])
        ]
        groups.append({"group": str(label), "count": int(group["count"]), "components": components, "pairs": pairs})
    attrs = result.attrs
    return {
        **head_of_result(result),
        "by": attrs["by"],
        "mode": attrs["mode"],
        "scaled": bool(attrs["scaled"]),
        **basis_of_result(result),
        "bounds": json.loads(attrs["bounds"]),
        "groups": groups,
    }


def show(answer: Answer) -> None:
    """Print a row for each group with the phenotype of every component and pair."""
    pairs = [pair["components"] for pair in answer["groups"][0]["pairs"]]
    components = len(answer["groups"][0]["components"])
    numbers = leading(components)
    titles = [*(f"c{k}" for k in numbers), *(f"c{first}×c{second}" for first, second in pairs)]
    print_table(
        [name("group"), number("filters", 1), *map(word, titles)],
        (
            [
                group["group"],
                group["count"],
                *(part["phenotype"] for part in (*group["components"][:COMPONENTS], *group["pairs"])),
            ]
            for group in answer["groups"]
        ),
    )
    say_leading(components)
    few = answer["bounds"]["fewest"]
    say(f"few: under {few:,} filters (docs/explanation/phenotypes.md) · mode {answer['mode']} · {counts_line(answer)}")
    print_basis_warning(answer)
