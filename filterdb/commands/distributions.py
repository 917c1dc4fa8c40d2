"""`filterdb distributions`: describe the coefficients of each component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filterdb as fdb
from filterdb.choices import COMPONENTS
from filterdb.commands.answer import Answer, basis_of_result, head_of_result, print_answer
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.options import by_option, database, mode_option, raw_option, selection
from filterdb.commands.table import (
    counts_line,
    leading,
    print_basis_warning,
    print_table,
    say,
    say_leading,
    wide_option,
)

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
@raw_option
@figure_option
def distributions(db: Database, mode: ModeName, by: str | None, raw: bool, draw: Draw, as_json: bool) -> None:
    """Show the distribution of each component's coefficients, by group.

    The table has the standard deviations; --json also has means, histograms and kernel density estimates, which the
    figure shows for the twelve largest groups.

    Examples:
        filterdb distributions db --by task --figure ridges.svg
    """
    result = fdb.distributions(db, by, mode=mode, scaled=not raw)
    print_answer(to_answer(result), as_json, show)
    draw(lambda: fdb.plot.ridges(result))


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: everything about each group."""
    attrs = result.attrs
    names = [each for each in ("count", "models", "mean", "std", "counts", "kde") if each in result]
    return {
        **head_of_result(result),
        "by": attrs["by"],
        "mode": attrs["mode"],
        "scaled": bool(attrs["scaled"]),
        "range": attrs["range"],
        "weights": result["weights"].values,
        "points": result["at"].values if "at" in result else None,
        **basis_of_result(result),
        "groups": [
            {"group": str(label), **{each: result[each].values[i] for each in names}}
            for i, label in enumerate(result["group"].values)
        ],
    }


def show(answer: Answer) -> None:
    """Print the standard deviation of each component by group."""
    components = len(answer["weights"])
    print_table(
        [name("group"), number("models", 2), number("filters", 1), *(number(f"c{i}") for i in leading(components))],
        ([row["group"], int(row["models"]), int(row["count"]), *row["std"][:COMPONENTS]] for row in answer["groups"]),
        "standard deviation of the coefficients" + ("" if answer["scaled"] else " (raw filters)"),
    )
    say_leading(components)
    say(f"mode {answer['mode']} · {counts_line(answer)}")
    print_basis_warning(answer)
