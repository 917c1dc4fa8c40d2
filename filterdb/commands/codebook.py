"""`filterdb codebook`: describe filters by codes, compared with noise."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.choices import CODES, MOST_CODES, MOST_PASSES, NORMALISATION_NAMES, Normalisation
from filterdb.commands.answer import Answer, head_of_result, print_answer, rows_along
from filterdb.commands.figure import Draw, figure_option
from filterdb.commands.group import commands
from filterdb.commands.layout import name, number
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.one_of import OneOf
from filterdb.commands.options import by_option, database, seed_option, selection
from filterdb.commands.table import counts_line, print_table, say, wide_option
from filterdb.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.store.database import Database

SHOWN = {0.8: 2, 0.9: 0, 0.95: 1}
"""Thresholds of the correlation with a code that are in the table, and which are hidden first; the answer has more."""

ARRAYS = ("coverage", "noise_coverage", "counts")
SETTINGS = ("by", "kernel", "k", "normalise", "seed", "passes", "sample", "noise_filters")


@commands.command()
@wide_option
@database
@selection
@by_option()
@click.option("-k", type=WholeNumber(1, MOST_CODES), default=CODES, show_default=True, help="Number of codes.")
@click.option(
    "--normalise",
    type=OneOf(NORMALISATION_NAMES),
    default="scale",
    show_default=True,
    help="Divide filters by their norm, or also subtract their mean first.",
)
@seed_option
@click.option(
    "--passes",
    type=WholeNumber(0, MOST_PASSES),
    default=1,
    show_default=True,
    help="Lloyd's steps on all filters, after the fit to a sample.",
)
@figure_option
def codebook(
    db: Database,
    by: str | None,
    k: int,
    normalise: Normalisation,
    seed: int,
    passes: int,
    draw: Draw,
    as_json: bool,
) -> None:
    """Describe filters by k codes, compared with noise of the same size.

    Codes are the centres of k-means on normalised filters. The first run reads the filters a few times; the codes and
    their counts by layer are stored, so that further groupings read none.

    Examples:
        filterdb codebook db --by task -k 64
    """
    result = fdb.codebook(db, by, k=k, normalise=normalise, seed=seed, passes=passes)
    print_answer(to_answer(result), as_json, show)
    draw(lambda: fdb.plot.codebook(result))


def to_answer(result: xr.Dataset) -> Answer:
    """Return the answer: the codes, and a row for each group with its figures, those of noise, and its counts."""
    rows = rows_along(result, "group")
    for i, row in enumerate(rows):
        row |= {key: result[key].values[i] for key in ARRAYS}
    shares = result["share"].values.tolist()
    return {
        **head_of_result(result),
        **{key: result.attrs[key] for key in SETTINGS},
        "explained_variance": result.attrs["explained_variance"],
        "noise_explained_variance": result.attrs["noise_explained_variance"],
        "thresholds": result["threshold"].values,
        "codes": [
            {"share": share, "weights": code} for share, code in zip(shares, result["codes"].values, strict=True)
        ],
        "rows": rows,
    }


def show(answer: Answer) -> None:
    """Print how well the codes describe each group, each figure beside that of noise."""
    places = [answer["thresholds"].tolist().index(threshold) for threshold in SHOWN]
    covered = [number(title, rank) for threshold, rank in SHOWN.items() for title in (f"r ≥ {threshold}", "noise")]
    rows = []
    for row in answer["rows"]:
        shares = [(row["explained_variance"], row["noise_explained_variance"])]
        shares += [(row["coverage"][place], row["noise_coverage"][place]) for place in places]
        figures = [f"{share:.1%}" for pair in shares for share in pair]
        rows.append([row["group"], row["count"], row["flat"], *figures])
    columns = [name("group"), number("filters", 3), number("flat", 4), number("explained"), number("noise")]
    print_table([*columns, *covered], rows)
    say(
        "explained: share of the squared distances from the mean · r: correlation of a filter with its code · "
        f"flat: without a direction · noise: {counted(answer['k'], 'code')} of Gaussian filters"
    )
    say(_frequent(answer))
    say(counts_line(answer))


def _frequent(answer: Answer) -> str:
    """Say how evenly the codes are used."""
    shares = [code["share"] for code in answer["codes"]]
    half = sum(total < sum(shares) / 2 for total in accumulate(shares)) + 1
    codes = f"{counted(answer['k'], 'code')}, normalised by {answer['normalise']}"
    return (
        f"{codes}: the most frequent stands for {shares[0]:.1%} of the filters, {half:,} stand for half; "
        "--figure draws them, --json has them"
    )
