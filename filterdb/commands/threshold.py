"""`filterdb randomness-threshold`: P1's experiment again."""

from __future__ import annotations

import click

import filterdb as fdb
from filterdb.analysis.threshold import DRAWS
from filterdb.commands.group import commands
from filterdb.commands.options import answer_with
from filterdb.commands.threshold_answer import randomness_threshold as answer_of
from filterdb.commands.threshold_table import randomness_threshold as table
from filterdb.errors import UsageError
from filterdb.numerics.threshold import INITS


@commands.command("randomness-threshold")
@click.option(
    "--init", type=click.Choice(list(INITS)), default="normal", show_default=True, help="How layers are drawn."
)
@click.option("--sizes", metavar="N,N,…", help="Filters of a layer; by default powers of two.")
@click.option("--draws", type=click.IntRange(1), default=DRAWS, show_default=True, help="Layers of each size.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Experiments; the scatter is theirs."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Machine output on stdout, nothing else there.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def randomness_threshold(init: str, sizes: str | None, draws: int, repeats: int, seed: int, as_json: bool) -> None:
    """Fit the entropy from which on a layer counts as random, from layers drawn at random. Needs no database."""
    result = fdb.randomness_threshold(init, _sizes(sizes), draws, repeats, seed)
    answer_with(answer_of(result), as_json, table)


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--sizes: expected numbers joined with commas, got {text!r}") from None
