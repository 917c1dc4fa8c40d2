"""`filterdb pca`: show the principal components of the filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filterdb as fdb
from filterdb.choices import COMPONENTS
from filterdb.commands.answer import Answer, head_of_result, print_answer
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.options import by_option, database, raw_option, selection
from filterdb.commands.table import counts_line, leading, print_table, say, say_leading, wide_option

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.store.database import Database


@commands.command()
@wide_option
@database
@selection
@by_option()
@raw_option
@figure_option
def pca(db: Database, by: str | None, raw: bool, draw: Draw, as_json: bool) -> None:
    """Show mean, basis and variance ratios, by group.

    The figure shows the components as pictures, for the twelve largest groups.

    Examples:
        filterdb pca db --by task
    """
    result = fdb.pca(db, by, scaled=not raw)
    print_answer(to_answer(result), as_json, show)
    draw(lambda: fdb.plot.basis(result) if by is None else fdb.plot.bases(result))


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: all variables of each group."""
    names = [str(key) for key in result.data_vars]
    groups = [
        {"group": str(label), **{key: result[key].values[i] for key in names}}
        for i, label in enumerate(result["group"].values)
    ]
    return {
        **head_of_result(result),
        "scaled": bool(result.attrs["scaled"]),
        "by": result.attrs["by"],
        "groups": groups,
    }


def show(answer: Answer) -> None:
    """Print the explained-variance ratios of each group."""
    components = len(answer["groups"][0]["explained_variance_ratio"])
    print_table(
        [name("group"), number("filters", 1), *(number(f"ratio {i}") for i in leading(components))],
        ([g["group"], g["count"], *g["explained_variance_ratio"][:COMPONENTS]] for g in answer["groups"]),
        "explained-variance ratios" + ("" if answer["scaled"] else " (raw filters)"),
    )
    say_leading(components)
    say(counts_line(answer))
