"""`filterdb spectrum`: show the frequencies of filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_result, print_answer, rows_along
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.options import by_option, database, selection
from filterdb.commands.table import counts_line, print_table, say, wide_option

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.store.database import Database

DIGITS = 3
"""Decimal places of shares in the table."""


@commands.command()
@wide_option
@database
@selection
@by_option()
@click.option("--scaled", is_flag=True, help="Max-scaled filters instead of raw ones.")
def spectrum(db: Database, by: str | None, scaled: bool, as_json: bool) -> None:
    """Show the energy of filters by frequency.

    The shares are those of the nine DCT terms, the orientations and, for strided layers, the frequencies above the
    Nyquist frequency after striding. No filter is read.

    Examples:
        filterdb spectrum db --by task
    """
    print_answer(to_answer(fdb.spectrum(db, by, scaled=scaled)), as_json, show)


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: a row for each group, with the energy and share of each term."""
    groups = rows_along(result, "group")
    for row, energy, share in zip(groups, result["energy"].values, result["share"].values, strict=True):
        row |= {"energy": energy.tolist(), "share": share.tolist()}
    return {
        **head_of_result(result),
        "by": result.attrs["by"],
        "scaled": bool(result.attrs["scaled"]),
        "terms": result["term"].values.tolist(),
        "rows": groups,
    }


def show(answer: Answer) -> None:
    """Print the shares of each group."""
    names = ["low", "high", "constant", "horizontal", "vertical", "diagonal", "aliasing", "strided"]
    rows = (
        [
            row["group"],
            row["count"],
            *(round(value, DIGITS) for value in (*row["share"], *(row[key] for key in names))),
        ]
        for row in answer["rows"]
    )
    print_table(
        [name("group"), number("filters", 1), *(number(term, 2) for term in answer["terms"]), *map(number, names)],
        rows,
        "share of the energy of DCT terms (vertical, horizontal frequency)",
    )
    say(counts_line(answer))
