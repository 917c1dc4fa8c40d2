"""`filterdb report`: write the web page of a database, or of model files."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import (
    Command,
    densities_option,
    kernel_option,
    labels_and_verdicts,
    limits_option,
    mode_option,
    network_options,
    place,
    reference_option,
    snapshot_option,
)
from filterdb.commands.table import say
from filterdb.errors import UsageError
from filterdb.models.limits import Limits

if TYPE_CHECKING:
    from filterdb.store.database import Database


def _database_or_files(command: Command) -> Command:
    """Add DB|MODEL..., --db and --snapshot. Pass `files` and `db`, the database to report on or to compare with."""

    @functools.wraps(command)
    def wrapped(sources: tuple[str, ...], db: str | None, snapshot: str | None, **kwargs: Any) -> Any:
        from filterdb.models.inputs import names_models  # takes 0.1 s

        databases = [source for source in sources if not names_models(source)]
        if databases:
            if len(sources) > 1:
                raise UsageError(f"{databases[0]}: expected model files or a single database, got both or several")
            if db is not None:
                raise UsageError("--db: only model files take this; leave it out for a database")
            return command(files=(), db=fdb.open(databases[0], snapshot), **kwargs)
        if db is None:
            for option, value in (
                ("snapshot", snapshot),
                ("where", kwargs["where"]),
                ("exclude-verdict", kwargs["exclude_verdict"]),
            ):
                if value:
                    raise UsageError(f"--{option} applies to a database only; pass one to compare with as --db")
        return command(files=sources, db=None if db is None else fdb.open(db, snapshot), **kwargs)

    wrapped = click.option(
        "--db", metavar="DB", help="Compare model files with this database, and find their nearest models."
    )(wrapped)
    return click.argument("sources", nargs=-1, required=True, metavar="DB|MODEL...")(snapshot_option()(wrapped))


@commands.command()
@_database_or_files
@reference_option
@limits_option
@network_options
@place
@kernel_option
@labels_and_verdicts
@mode_option
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    required=True,
    help="Folder of the page, or a URL such as s3://bucket/report.",
)
@densities_option
def report(
    db: Database | None, files: tuple[str, ...], output: str, kernel: str | None, as_json: bool, **options: Any
) -> None:
    """Write the page of a database, or of model files.

    The page of a database has all figures and tables, for each kernel shape with at least 1,000 filters, and a page for
    each model. Every figure is also an SVG and a PNG file, every table a CSV and a Parquet file.

    The page of model files needs no database. For each file it shows the layers in order with their first filters, what
    is wrong with them and what to do, and what could not be read. A folder with segments is a database.

    Examples:
        filterdb report db -o report
        filterdb report model.onnx -o page
    """
    of_database = {name: options.pop(name) for name in ("mode", "densities")}
    if files:
        if of_database != {"mode": "sound", "densities": None}:
            raise UsageError("--mode and --densities apply to a database only; leave them out for model files")
        print_answer(_of_files(files, output, db, kernel, options), as_json, show)
        return
    given = [name for name, value in options.items() if value not in {None, "", Limits()}]
    if given or db is None:
        names = ", ".join("--model-memory" if name == "limits" else f"--{name}" for name in given)
        raise UsageError(f"{names}: only model files take this; leave it out for a database")
    page = fdb.report(db, output, kernel=kernel, **of_database)
    print_answer({**head_of_database(db), "page": str(page)}, as_json, show)


def _of_files(
    files: tuple[str, ...], output: str, db: Database | None, kernel: str | None, reading: dict[str, Any]
) -> Answer:
    """Write the page of model files, and return the answer about them."""
    from filterdb.page.file_report import write_files  # heavy

    page, result = write_files(list(files), output, compare=db, kernel=kernel, **reading)
    return {
        "snapshot": result.attrs.get("snapshot"),
        **{name: result.attrs[name] for name in ("selection", "filters", "layers", "models")},
        "not_read": [str(reason) for reason in result["reason"].values if reason],
        "page": str(page),
    }


def show(answer: Answer) -> None:
    """Print where the page is, and which files could not be read."""
    for reason in answer.get("not_read", ()):
        say(f"not read: {reason}")
    say(f"page: {answer['page']}")
