"""Commands that compute: the passes, the analyses, the page."""

from __future__ import annotations

from pathlib import Path

import click

import filterdb as fdb
from filterdb import answers, demo, tables
from filterdb.analysis.drift import METRICS, drift_strata
from filterdb.analysis.drift_metrics import MetricName
from filterdb.cli.options import answer_with, commands, database, mode_option, newest, place, selection
from filterdb.errors import UsageError
from filterdb.numerics.modes import ModeName
from filterdb.numerics.noise import DRAWS, ENOUGH_PERMUTATIONS, MOST_DRAWS
from filterdb.reduce.basis import layer_histograms, projection
from filterdb.store.database import Database


@commands.command("demo")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("filterdb-demo"),
    show_default=True,
)
@place
def demo_command(folder: Path, as_json: bool) -> None:
    """The whole path on small real models: fetch, ingest, passes, tables, page."""
    done = demo.run(folder)
    if not as_json:
        tables.models(answers.models(done.database))
        tables.drift(answers.drift(fdb.drift(done.database, by="task")))
        tables.degeneration(answers.degeneration(fdb.degeneration(done.database)))
    answer = {**answers.head(done.database), "database": done.database.url, "page": str(done.page)}
    answer_with(answer, as_json, tables.demo)


@commands.command("reduce")
@database
@mode_option
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
def reduce_command(db: Database, mode: ModeName, raw: bool, as_json: bool) -> None:
    """Run the passes that are still missing (the analyses do so by themselves)."""
    db, found = projection(db, mode, scaled=not raw)
    layer_histograms(db, found)
    answer_with({**answers.head(db), "mode": mode, "scaled": not raw, "basis": found.id}, as_json, tables.reduced)


@commands.command()
@newest
def refit(db: Database, as_json: bool) -> None:
    """Fit a new basis on the newest snapshot and commit it."""
    db = fdb.refit(db)
    answer_with({**answers.head(db), "basis": db.state.basis}, as_json, tables.reduced)


@commands.command()
@database
@selection
@click.option("--by", metavar="KEY", help="A label, depth_decile, layer, or several joined with commas.")
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
def pca(db: Database, by: str | None, raw: bool, as_json: bool) -> None:
    """Mean, basis and ratios of the filters, whole or by group."""
    answer_with(answers.pca(fdb.pca(db, by, scaled=not raw)), as_json, tables.pca)


@commands.command()
@database
@selection
@mode_option
@click.option("--by", metavar="KEY", required=True, help="A label, depth_decile, layer, or several joined with commas.")
@click.option("--metric", type=click.Choice(list(METRICS)), default="kl", show_default=True)
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
@click.option("--within", metavar="KEY", help="One matrix for each of these groups.")
@click.option(
    "-o", "--output", metavar="OUT", help="Write the matrix here, a Zarr group: for ten thousand groups and more."
)
@click.option(
    "--noise/--no-noise",
    default=None,
    help="Floors, verdicts and intervals in any case, or not at all; else where they take seconds.",
)
@click.option(
    "--draws",
    type=click.IntRange(ENOUGH_PERMUTATIONS, MOST_DRAWS),
    metavar="N",
    help=f"Permutations of a pair, and draws of models: {DRAWS:,} unless said otherwise.",
)
def drift(
    db: Database,
    by: str,
    mode: ModeName,
    metric: MetricName,
    raw: bool,
    within: str | None,
    output: str | None,
    noise: bool | None,
    draws: int | None,
    as_json: bool,
) -> None:
    """Drift between all pairs of groups, with what noise makes of it."""
    if draws is not None and noise is False:
        raise UsageError("--draws: expected noise to draw for, got --no-noise beside it")
    asked = noise if draws is None else draws
    if output is not None:
        written = fdb.drift(db, by, mode, metric, scaled=not raw, within=within, out=output, noise=asked)
        answer_with(answers.drift_written(written, output), as_json, tables.drift_written)
        return
    strata = drift_strata(db, by, within, mode, metric, scaled=not raw, noise=asked) if within else None
    result = fdb.drift(db, by, mode, metric, scaled=not raw, noise=asked)
    answer_with(answers.drift(result, strata, within), as_json, tables.drift)


@commands.command()
@database
@selection
@mode_option
def degeneration(db: Database, mode: ModeName, as_json: bool) -> None:
    """Sparsity, entropy, threshold and verdict of every layer."""
    answer_with(answers.degeneration(fdb.degeneration(db, mode)), as_json, tables.degeneration)


@commands.command()
@database
@selection
@mode_option
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    required=True,
    help="Folder of the page, or a URL such as s3://bucket/report.",
)
@click.option(
    "--densities/--no-densities",
    default=None,
    help="Bivariate densities of all pairs of components, which take a pass over the filters.  "
    "[default: up to 50 million filters]",
)
def report(db: Database, output: str, mode: ModeName, densities: bool | None, as_json: bool) -> None:
    """The page, every figure as SVG and PNG, every table as CSV and Parquet."""
    page = fdb.report(db, output, mode=mode, densities=densities)
    answer_with({**answers.head(db), "page": str(page)}, as_json, tables.reported)
