"""`filterdb density`, `filterdb phenotypes`: how coefficients are distributed."""

from __future__ import annotations

import click

import filterdb as fdb
from filterdb.analysis.density import MOST_BINS
from filterdb.analysis.phenotypes import PAIRS
from filterdb.answers import shapes as answers
from filterdb.cli.options import answer_with, commands, database, mode_option, selection
from filterdb.errors import UsageError
from filterdb.numerics.histogram import BINS
from filterdb.numerics.modes import ModeName
from filterdb.store.database import Database
from filterdb.tables import shapes as tables

KEY_HELP = "A label, depth_decile, layer, or several joined with commas."


def _pair(text: str) -> tuple[int, int]:
    """Two components, written "0,1"."""
    try:
        first, second = map(int, text.split(","))
    except ValueError:
        raise UsageError(f"components: expected two numbers joined with a comma, such as 0,1, got {text!r}") from None
    return first, second


@commands.command()
@database
@selection
@mode_option
@click.option("--by", metavar="KEY", help=KEY_HELP)
@click.option("--components", default="0,1", show_default=True, metavar="I,J", help="The two components.")
@click.option("--bins", type=click.IntRange(1, MOST_BINS), default=BINS, show_default=True, help="On either side.")
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
def density(db: Database, by: str | None, components: str, bins: int, mode: ModeName, raw: bool, as_json: bool) -> None:
    """Joint histogram of two coefficients, by group. A pass over the filters, once for each grouping and pair."""
    result = fdb.density(db, by, _pair(components), bins, mode=mode, scaled=not raw)
    answer_with(answers.density(result), as_json, tables.density)


@commands.command()
@database
@selection
@mode_option
@click.option("--by", metavar="KEY", help=KEY_HELP)
@click.option(
    "--components", "pairs", multiple=True, metavar="I,J", help="A pair to look at (repeatable); by default 0,1 … 6,7."
)
@click.option("--no-pairs", is_flag=True, help="Components alone: no pass over the filters but the histograms'.")
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
def phenotypes(
    db: Database, by: str | None, pairs: tuple[str, ...], no_pairs: bool, mode: ModeName, raw: bool, as_json: bool
) -> None:
    """Phenotypes of coefficient distributions: sun, spikes, symbols, point."""
    if pairs and no_pairs:
        raise UsageError("--no-pairs: expected no --components beside it, got both")
    wanted = [] if no_pairs else [_pair(text) for text in pairs] or PAIRS
    result = fdb.phenotypes(db, by, wanted, mode=mode, scaled=not raw)
    answer_with(answers.phenotypes(result), as_json, tables.phenotypes)
