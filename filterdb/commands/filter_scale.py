"""`filterdb filter-scale`: show how large filters are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_result, print_answer, rows_along
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.options import by_option, database, selection
from filterdb.commands.table import counts_line, print_table, say, wide_option

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.store.database import Database


@commands.command("filter-scale")
@wide_option
@database
@selection
@by_option(default="model")
@figure_option
def filter_scale(db: Database, by: str, draw: Draw, as_json: bool) -> None:
    """Show how large filters are, by group and depth.

    The scale of a filter is max w − min w; the table has its mean by group and depth decile.

    Examples:
        filterdb filter-scale db --by task
    """
    result = fdb.filter_scale(db, by)
    print_answer(to_answer(result), as_json, show)
    draw(lambda: fdb.plot.boxes(result))


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: a row for each group, with its depth deciles."""
    deciles = [str(label) for label in result["decile"].values]
    groups = rows_along(result, "group")
    for i, row in enumerate(groups):
        scale, count = result["decile_scale"].values[i].tolist(), result["decile_count"].values[i].tolist()
        row["deciles"] = [
            {"decile": label, "scale": mean, "count": number}
            for label, mean, number in zip(deciles, scale, count, strict=True)
        ]
    return {**head_of_result(result), "by": result.attrs["by"], "rows": groups}


def show(answer: Answer) -> None:
    """Print a column for each depth decile in which a group has filters."""
    kept = [k for k in range(10) if any(row["deciles"][k]["count"] for row in answer["rows"])]
    labels = [answer["rows"][0]["deciles"][k]["decile"].strip("[(])").replace(", ", "–") for k in kept]
    print_table(
        [name("group"), number("filters", 1), number("all"), *map(number, labels)],
        (
            [row["group"], row["count"], row["scale"], *(row["deciles"][k]["scale"] for k in kept)]
            for row in answer["rows"]
        ),
        "mean of max w − min w, by normalised depth",
    )
    say(counts_line(answer))
