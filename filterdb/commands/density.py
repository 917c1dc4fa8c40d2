"""`filterdb density`: count two coefficients jointly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.choices import BINS, MOST_BINS
from filterdb.commands.answer import Answer, basis_of_result, head_of_result, print_answer
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.options import by_option, database, mode_option, parse_pair, raw_option, selection
from filterdb.commands.table import counts_line, print_basis_warning, print_table, say, wide_option

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
@click.option("--components", default="0,1", show_default=True, metavar="I,J", help="The two components.")
@click.option("--bins", type=WholeNumber(1, MOST_BINS), default=BINS, show_default=True, help="On either side.")
@raw_option
@figure_option
def density(
    db: Database, by: str | None, components: str, bins: int, mode: ModeName, raw: bool, draw: Draw, as_json: bool
) -> None:
    """Count two coefficients jointly, by group.

    Reads the filters once for each grouping and pair of components.

    Examples:
        filterdb density db --by task --components 0,1
    """
    result = fdb.density(db, by, components=parse_pair(components), bins=bins, mode=mode, scaled=not raw)
    print_answer(to_answer(result), as_json, show)
    draw(lambda: fdb.plot.bivariate(result))


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer, with counts[group][bin of the first component][bin of the second]."""
    attrs = result.attrs
    return {
        **head_of_result(result),
        "by": attrs["by"],
        "mode": attrs["mode"],
        "scaled": bool(attrs["scaled"]),
        "components": attrs["components"],
        "bins": result.sizes["bin"],
        "range": attrs["range"],
        **basis_of_result(result),
        "groups": [str(label) for label in result["group"].values],
        "count": result["count"].values,
        "outside": result["outside"].values,
        "counts": result["counts"].values,
    }


def show(answer: Answer) -> None:
    """Print where each group is densest; only --json prints the counts."""
    import numpy as np

    first, second = answer["components"]
    low, high = answer["range"]
    width = (high - low) / answer["bins"]
    rows = []
    for group, filters, counts in zip(answer["groups"], answer["count"], answer["counts"], strict=True):
        i, j = np.unravel_index(int(np.argmax(counts)), counts.shape)
        centre = [low + (k + 0.5) * width for k in (int(i), int(j))]
        rows.append([group, int(filters), *centre, float(counts[i, j] / filters), int((counts > 0).sum())])
    columns = [name("group"), number("filters", 1), number(f"densest at c{first}"), number(f"and c{second}")]
    print_table([*columns, number("share there"), number("bins with any", 2)], rows)
    bins = answer["bins"]
    say(f"{bins}×{bins} bins of {width:.3g}, mode {answer['mode']} · {counts_line(answer)}; --json has the counts")
    print_basis_warning(answer)
