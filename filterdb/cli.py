"""Thin commands: options in, one call of the same name, a table or --json out."""

from __future__ import annotations

import functools
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from distributed.security import Security

import filterdb as fdb
from filterdb import answers, cluster, demo, logs, schema, tables
from filterdb.analysis.degeneration import VERDICTS
from filterdb.analysis.drift import METRICS, drift_strata
from filterdb.cluster import Session
from filterdb.errors import FilterDBError, UsageError
from filterdb.extract.sandbox import Limits
from filterdb.reduce.basis import MODES, layer_histograms, projection
from filterdb.reduce.integrity import verify
from filterdb.store.collect import GRACE
from filterdb.store.database import Database

INTERNAL = 70


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(fdb.__version__, prog_name="filterdb")
def commands() -> None:
    """The 3×3 filters of trained CNNs as a database, and what they tell.

    DB is a folder or a URL such as s3://bucket/db; S3 settings come from the environment (AWS_*).
    """


def main() -> None:
    """Run the command line; an error is one line on stderr and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logs.setup()
    debug = "--debug" in sys.argv
    try:
        code = commands.main(prog_name="filterdb", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "filterdb"
        line = " ".join(error.format_message().split())
        click.echo(f"filterdb: {tables.printable(line)} (see `{command} --help`)", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except FilterDBError as error:
        _fail(error, error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the last stop: one line, whatever it is
        _fail(error, INTERNAL, debug)


def _fail(error: Exception, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    line = " ".join(str(error).split()) or type(error).__name__
    if code == INTERNAL:
        line = f"unexpected {type(error).__name__}: {line}; --debug shows where, please report it"
    click.echo(f"filterdb: {tables.printable(line)}", err=True)
    sys.exit(code)


Command = Callable[..., Any]


def _place(command: Command) -> Command:
    """The options that every command takes, and where it computes."""
    options = [
        click.option("--json", "as_json", is_flag=True, help="Machine output on stdout, nothing else there."),
        click.option("--threads", type=click.IntRange(1), help="Work in this many threads of this process."),
        click.option(
            "--workers",
            type=click.IntRange(1),
            help="Work in a local cluster of this many processes (or pods, or jobs).",
        ),
        click.option(
            "--scheduler",
            metavar="WHERE",
            help="Work on this cluster: tcp:// or tls://HOST:PORT, kubernetes:NAME|FILE.yaml, slurm, pbs, …",
        ),
        click.option("--tls-ca", type=click.Path(exists=True, dir_okay=False), help="CA file for tls://."),
        click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="Certificate for tls://."),
        click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Key for tls://."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ]

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        threads: int | None,
        workers: int | None,
        scheduler: str | None,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        debug: bool,
        **kwargs: Any,
    ) -> Any:
        if threads is not None and (workers is not None or scheduler is not None):
            raise UsageError("--threads: expected neither --workers nor --scheduler beside it, got several")
        tls = {"tls_ca_file": tls_ca, "tls_client_cert": tls_cert, "tls_client_key": tls_key}
        security = Security(require_encryption=True, **tls) if any(tls.values()) else None
        with cluster.session(Session(threads, workers, scheduler, security, debug=debug)):
            return command(*args, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _database(command: Command) -> Command:
    """DB and --snapshot; the command gets the open database."""

    @functools.wraps(command)
    def wrapped(db: str, snapshot: str | None, **kwargs: Any) -> Any:
        return command(fdb.open(db, snapshot), **kwargs)

    wrapped = click.option("--snapshot", metavar="N|TAG", help="Open at this snapshot, not the newest.")(wrapped)
    return _place(click.argument("db")(wrapped))


def _newest(command: Command) -> Command:
    """As `_database`, for what makes a new snapshot: that goes on top of the newest, and --snapshot is refused."""

    @functools.wraps(command)
    def wrapped(db: str, snapshot: str | None, **kwargs: Any) -> Any:
        if snapshot is not None:
            raise UsageError("--snapshot: expected none, a change goes on top of the newest snapshot; leave it out")
        return command(fdb.open(db), **kwargs)

    wrapped = click.option("--snapshot", metavar="N|TAG", hidden=True)(wrapped)
    return _place(click.argument("db")(wrapped))


def _selection(command: Command) -> Command:
    """--where and --exclude-verdict; the command gets the view."""

    @functools.wraps(command)
    def wrapped(db: Database, where: tuple[str, ...], exclude_verdict: str, **kwargs: Any) -> Any:
        for condition in where:
            name, negated, value = _condition(condition)
            db = db.where(name, [value], negate=negated)
        verdicts = [verdict.strip() for verdict in exclude_verdict.split(",") if verdict.strip()]
        return command(fdb.exclude_verdict(db, verdicts, kwargs.get("mode") or "sound"), **kwargs)

    wrapped = click.option(
        "--where",
        multiple=True,
        metavar="'COLUMN=VALUE'",
        help="Only layers with this label (!= too; repeatable).",
    )(wrapped)
    return click.option(
        "--exclude-verdict",
        default="",
        metavar="LIST",
        help=f"Without layers that are {', '.join(VERDICTS)}.",
    )(wrapped)


def _condition(text: str) -> tuple[str, bool, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.rstrip("!").strip():
        raise UsageError(f"--where: expected COLUMN=VALUE or COLUMN!=VALUE, got {text!r}")
    return name.removesuffix("!").strip(), name.endswith("!"), value.strip()


def _mode(command: Command) -> Command:
    return click.option(
        "--mode",
        type=click.Choice(MODES),
        default="sound",
        show_default=True,
        help="sound: the best answer; paper: the CVPR 2022 paper's.",
    )(command)


def _limits(command: Command) -> Command:
    """What reading a stranger's file may take; the command gets the Limits."""

    @functools.wraps(command)
    def wrapped(model_memory: int, model_seconds: float, **kwargs: Any) -> Any:
        return command(limits=Limits(model_memory * 2**20, model_seconds), **kwargs)

    default = Limits()
    wrapped = click.option(
        "--model-seconds",
        type=click.FloatRange(1),
        default=default.seconds,
        show_default=True,
        metavar="S",
        help=f"CPU time for reading a file, and 1 s more for every {default.rate / 1e6:.0f} MB.",
    )(wrapped)
    return click.option(
        "--model-memory",
        type=click.IntRange(1),
        default=default.memory // 2**20,
        show_default=True,
        metavar="MIB",
        help="Memory for reading a file; one that takes more is rejected.",
    )(wrapped)


def _answer(answer: answers.Answer, as_json: bool, table: Callable[[answers.Answer], None]) -> None:
    if as_json:
        click.echo(answers.to_json(answer))
    else:
        table(answer)


@commands.command("demo")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("filterdb-demo"),
    show_default=True,
)
@_place
def demo_command(folder: Path, as_json: bool) -> None:
    """The whole path on small real models: fetch, ingest, passes, tables, page."""
    done = demo.run(folder)
    if not as_json:
        tables.models(answers.models(done.database))
        tables.drift(answers.drift(fdb.drift(done.database, by="task")))
        tables.degeneration(answers.degeneration(fdb.degeneration(done.database)))
    answer = {**answers.head(done.database), "database": done.database.url, "page": str(done.page)}
    _answer(answer, as_json, tables.demo)


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
@_limits
@_place
def ingest(
    db: str, sources: tuple[str, ...], catalog: str | None, chunk_rows: int, limits: Limits, as_json: bool
) -> None:
    """Read ONNX files, folders, globs or URLs (or every row of a catalog) into DB."""
    done = fdb.ingest(db, sources, catalog=catalog, chunk_rows=chunk_rows, limits=limits)
    for reason in done.rejected.values():
        click.echo(f"filterdb: rejected {tables.printable(reason)}", err=True)
    _answer(answers.ingested(done), as_json, tables.ingested)


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
@_limits
@_place
def import_hdf5(
    db: str, file: Path, csv: tuple[Path, Path] | None, chunk_rows: int, limits: Limits, as_json: bool
) -> None:
    """The published data set of the CVPR 2022 paper (HDF5) into DB, as one segment."""
    done = fdb.import_hdf5(db, file, tables=csv, chunk_rows=chunk_rows, limits=limits)
    _answer(answers.ingested(done), as_json, tables.ingested)


@commands.command()
@_newest
@click.option("--catalog", metavar="FILE", required=True, help="CSV or Parquet with the new rows, by name or path.")
def relabel(db: Database, catalog: str, as_json: bool) -> None:
    """Put a catalog's rows in the place of those of the models; a new snapshot, no filter is rewritten."""
    before = db
    db = fdb.relabel(db, catalog)
    _answer(answers.changed(before, db), as_json, tables.changed)


@commands.command()
@_newest
@click.argument("models", nargs=-1, required=True)
def remove(db: Database, models: tuple[str, ...], as_json: bool) -> None:
    """A new snapshot without these models; earlier snapshots keep them."""
    _answer(answers.changed(db, fdb.remove(db, models)), as_json, tables.changed)


@commands.command()
@_database
@click.argument("name")
def tag(db: Database, name: str, as_json: bool) -> None:
    """Call the newest snapshot (or --snapshot) NAME; --snapshot NAME opens it from now on."""
    _answer(answers.changed(db, fdb.tag(db, name)), as_json, tables.changed)


@commands.command()
@_newest
@click.option("--chunk-rows", type=click.IntRange(1), default=schema.CHUNK_ROWS, show_default=True)
def compact(db: Database, chunk_rows: int, as_json: bool) -> None:
    """Join neighbouring segments of less than a chunk into larger ones."""
    _answer(answers.changed(db, fdb.compact(db, chunk_rows=chunk_rows)), as_json, tables.changed)


@commands.command("gc")
@_database
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
    _answer(answers.collected(db, found, deleted=delete), as_json, tables.collected)


@commands.command()
@_database
def info(db: Database, as_json: bool) -> None:
    """What is in DB: counts, segments, snapshot."""
    _answer(answers.info(db), as_json, tables.info)


@commands.command()
@_database
@_selection
def models(db: Database, as_json: bool) -> None:
    """The models, a row each."""
    _answer(answers.models(db), as_json, tables.models)


@commands.command()
@_database
@_selection
def layers(db: Database, as_json: bool) -> None:
    """The layers, a row each, and the convolutions that are not stored."""
    _answer(answers.layers(db), as_json, tables.layers)


@commands.command("reduce")
@_database
@_mode
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
def reduce_command(db: Database, mode: str, raw: bool, as_json: bool) -> None:
    """Run the passes that are still missing (the analyses do so by themselves)."""
    db, found = projection(db, mode, scaled=not raw)
    layer_histograms(db, found)
    _answer({**answers.head(db), "mode": mode, "scaled": not raw, "basis": found.id}, as_json, tables.reduced)


@commands.command()
@_newest
def refit(db: Database, as_json: bool) -> None:
    """Fit a new basis on the newest snapshot and commit it."""
    db = fdb.refit(db)
    _answer({**answers.head(db), "basis": db.state.basis}, as_json, tables.reduced)


@commands.command()
@_database
@_selection
@click.option("--by", metavar="KEY", help="A label, depth_decile, layer, or several joined with commas.")
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
def pca(db: Database, by: str | None, raw: bool, as_json: bool) -> None:
    """Mean, basis and ratios of the filters, whole or by group."""
    _answer(answers.pca(fdb.pca(db, by, scaled=not raw)), as_json, tables.pca)


@commands.command()
@_database
@_selection
@_mode
@click.option("--by", metavar="KEY", required=True, help="A label, depth_decile, layer, or several joined with commas.")
@click.option("--metric", type=click.Choice(list(METRICS)), default="kl", show_default=True)
@click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
@click.option("--within", metavar="KEY", help="One matrix for each of these groups.")
@click.option(
    "-o", "--output", metavar="OUT", help="Write the matrix here, a Zarr group: for ten thousand groups and more."
)
def drift(
    db: Database, by: str, mode: str, metric: str, raw: bool, within: str | None, output: str | None, as_json: bool
) -> None:
    """Drift between all pairs of groups."""
    if output is not None:
        written = fdb.drift(db, by, mode, metric, scaled=not raw, within=within, out=output)
        _answer(answers.drift_written(written, output), as_json, tables.drift_written)
        return
    strata = drift_strata(db, by, within, mode, metric, scaled=not raw) if within else None
    result = fdb.drift(db, by, mode, metric, scaled=not raw)
    _answer(answers.drift(result, strata, within), as_json, tables.drift)


@commands.command()
@_database
@_selection
@_mode
def degeneration(db: Database, mode: str, as_json: bool) -> None:
    """Sparsity, entropy, threshold and verdict of every layer."""
    _answer(answers.degeneration(fdb.degeneration(db, mode)), as_json, tables.degeneration)


@commands.command()
@_database
@_selection
@_mode
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    required=True,
    help="Folder of the page, or a URL such as s3://bucket/report.",
)
def report(db: Database, output: str, mode: str, as_json: bool) -> None:
    """The page with figures and tables."""
    page = fdb.report(db, output, mode=mode)
    _answer({**answers.head(db), "page": str(page)}, as_json, tables.reported)


@commands.command("verify")
@_database
@click.option("--deep", is_flag=True, help="Read every byte, recompute every layer's hash.")
@click.pass_context
def verify_command(context: click.Context, db: Database, deep: bool, as_json: bool) -> None:
    """Integrity: history, tables and summaries whole, every chunk present; with --deep every byte."""
    answer = answers.verified(db, verify(db, deep=deep))
    _answer(answer, as_json, tables.verified)
    if not answer["ok"]:
        context.exit(1)


@commands.command()
@_database
def snapshots(db: Database, as_json: bool) -> None:
    """The history of DB."""
    _answer(answers.history(db), as_json, tables.history)
