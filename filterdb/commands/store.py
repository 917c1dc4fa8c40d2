"""Commands that fill a database, change it, and look at what is in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

import filterdb as fdb
from filterdb import schema
from filterdb.commands import answer as answers
from filterdb.commands import table as tables
from filterdb.commands.group import commands
from filterdb.commands.options import answer_with, database, limits_option, newest, place, selection
from filterdb.models.sandbox import Limits
from filterdb.reduce.integrity import verify
from filterdb.store.collect import GRACE
from filterdb.store.database import Database, open_readable


@commands.command()
@click.argument("db")
@click.argument("sources", nargs=-1)
@click.option("--catalog", metavar="FILE", help="CSV or Parquet with path, name, task, visual_category, …")
@click.option(
    "--chunk-rows",
    type=click.IntRange(1),
    default=schema.CHUNK_ROWS,
    show_default=True,
    help="Filters in a chunk.",
)
@limits_option
@place
def ingest(
    db: str, sources: tuple[str, ...], catalog: str | None, chunk_rows: int, limits: Limits, as_json: bool
) -> None:
    """Read ONNX files, folders, globs or URLs (or every row of a catalog) into DB."""
    done = fdb.ingest(db, sources, catalog=catalog, chunk_rows=chunk_rows, limits=limits)
    for reason in done.rejected.values():
        click.echo(f"filterdb: rejected {tables.printable(reason)}", err=True)
    _report_unread(done.unread)
    answer_with(answers.ingested(done), as_json, tables.ingested)


def _report_unread(unread: list[tuple[str, str, str]]) -> None:
    """Say on stderr how many convolutions should have been read and were not, with the first one's reason."""
    if unread:
        model, layer, reason = map(tables.printable, unread[0])
        what = f"{len(unread):,} convolution{'s' if len(unread) > 1 else ''} could not be read"
        click.echo(f"filterdb: {what}, such as {model} layer {layer}: {reason}; `filterdb layers` lists all", err=True)


@commands.command("import-hdf5")
@click.argument("db")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--tables",
    "csv",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="FILTERS MODELS",
    help="Metadata from the two CSV tables of the authors' tool, not from FILE.",
)
@click.option("--chunk-rows", type=click.IntRange(1), default=schema.CHUNK_ROWS, show_default=True)
@limits_option
@place
def import_hdf5(
    db: str, file: Path, csv: tuple[Path, Path] | None, chunk_rows: int, limits: Limits, as_json: bool
) -> None:
    """The published data set of the CVPR 2022 paper (HDF5) into DB, as one segment."""
    done = fdb.import_hdf5(db, file, tables=csv, chunk_rows=chunk_rows, limits=limits)
    answer_with(answers.ingested(done), as_json, tables.ingested)


@commands.command()
@newest
@click.option("--catalog", metavar="FILE", required=True, help="CSV or Parquet with the new rows, by name or path.")
def relabel(db: Database, catalog: str, as_json: bool) -> None:
    """Put a catalog's rows in the place of those of the models; a new snapshot, no filter is rewritten."""
    before = db
    db = fdb.relabel(db, catalog)
    answer_with(answers.changed(before, db), as_json, tables.changed)


@commands.command()
@newest
@click.argument("models", nargs=-1, required=True)
def remove(db: Database, models: tuple[str, ...], as_json: bool) -> None:
    """A new snapshot without these models; earlier snapshots keep them."""
    answer_with(answers.changed(db, fdb.remove(db, models)), as_json, tables.changed)


@commands.command()
@database
@click.argument("name")
def tag(db: Database, name: str, as_json: bool) -> None:
    """Call the newest snapshot (or --snapshot) NAME; --snapshot NAME opens it from now on."""
    answer_with(answers.changed(db, fdb.tag(db, name)), as_json, tables.changed)


@commands.command()
@click.argument("db")
@click.option("--snapshot", metavar="N|TAG", required=True, help="Go back to this snapshot.")
@place
def restore(db: str, snapshot: str, as_json: bool) -> None:
    """A new snapshot that holds what an earlier one held; those between stay in the history."""
    before = open_readable(db)
    after = fdb.restore(db, snapshot)
    _warn(after.damaged_tables().values())
    answer_with(answers.changed(before, after), as_json, tables.changed)


@commands.command()
@newest
@click.option("--chunk-rows", type=click.IntRange(1), default=schema.CHUNK_ROWS, show_default=True)
def compact(db: Database, chunk_rows: int, as_json: bool) -> None:
    """Join neighbouring segments of less than a chunk into larger ones."""
    answer_with(answers.changed(db, fdb.compact(db, chunk_rows=chunk_rows)), as_json, tables.changed)


@commands.command("gc")
@database
@click.option("--delete", is_flag=True, help="Remove it; without, it is only listed.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=GRACE / 60,
    show_default=True,
    metavar="MINUTES",
    help="Leave alone what was written later than this.",
)
def gc_command(db: Database, delete: bool, grace: float, as_json: bool) -> None:
    """What no snapshot lists and no live ingest owns: listed, and with --delete removed."""
    found = fdb.gc(db.url, delete=delete, grace=60 * grace)
    answer_with(answers.collected(db, found, deleted=delete), as_json, tables.collected)


@commands.command()
@database
def info(db: Database, as_json: bool) -> None:
    """What is in DB: counts, segments, snapshot."""
    answer = answers.info(db)
    _warn(damage["what"] for damage in answer["damaged"])
    answer_with(answer, as_json, tables.info)


@commands.command()
@database
@selection
def models(db: Database, as_json: bool) -> None:
    """The models, a row each."""
    answer_with(answers.models(db), as_json, tables.models)


@commands.command()
@database
@selection
def layers(db: Database, as_json: bool) -> None:
    """The layers, a row each, and the convolutions that are not stored."""
    answer_with(answers.layers(db), as_json, tables.layers)


@commands.command("verify")
@database
@click.option("--deep", is_flag=True, help="Read every byte, recompute every layer's hash.")
@click.pass_context
def verify_command(context: click.Context, db: Database, deep: bool, as_json: bool) -> None:
    """Integrity: history, tables and summaries whole, every chunk present; with --deep every byte."""
    answer = answers.verified(db, verify(db, deep=deep))
    answer_with(answer, as_json, tables.verified)
    if not answer["ok"]:
        context.exit(1)


@commands.command()
@click.argument("db")
@click.option("--snapshot", metavar="N|TAG", help="Open at this snapshot, not the newest.")
@place
def snapshots(db: str, snapshot: str | None, as_json: bool) -> None:
    """The history of DB."""
    answer = answers.history(open_readable(db, snapshot))
    _warn(row["damage"] for row in answer["rows"] if row["damage"])
    answer_with(answer, as_json, tables.history)


def _warn(damages: Iterable[str]) -> None:
    """Say what is damaged, a line each, on stderr."""
    for damage in damages:
        click.echo(f"filterdb: warning: {tables.printable(damage)}", err=True)
