"""`filterdb check`. Its imports are those of a quick start: a first answer on one's own file takes no seconds."""

from __future__ import annotations

from pathlib import Path

import click

import filterdb as fdb
from filterdb.commands.check_answer import checked
from filterdb.commands.check_table import checked as table_of
from filterdb.commands.group import commands
from filterdb.commands.junit import junit
from filterdb.commands.options import answer_with, limits_option, place
from filterdb.commands.sarif import sarif
from filterdb.errors import InputError, UsageError
from filterdb.models.sandbox import Limits

_FILE = click.Path(dir_okay=False, path_type=Path)


@commands.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--db", metavar="DB", help="Where each layer stands among this database's of its depth and size.")
@click.option("--snapshot", metavar="N|TAG", help="Open --db at this snapshot, not the newest.")
@click.option("--rules", type=_FILE, help="Thresholds, what fails and what is ignored: TOML or YAML.")
@click.option("--sarif", "sarif_file", type=_FILE, help="Write the findings here, SARIF 2.1.0.")
@click.option("--junit", "junit_file", type=_FILE, help="Write the findings here, JUnit XML.")
@limits_option
@place
@click.pass_context
def check(
    context: click.Context,
    models: tuple[str, ...],
    db: str | None,
    snapshot: str | None,
    rules: Path | None,
    sarif_file: Path | None,
    junit_file: Path | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Judge the 3×3 layers of ONNX files, folders, globs or URLs.

    Reports layers that are dead, sparse, collapsed, random, non-finite, duplicates, or have outliers or dead channels,
    and what could not be checked. No database is needed. Exit code 1 when a rule fails, or when something could not be
    checked; 65 when no file can be read.
    """
    if snapshot is not None and db is None:
        raise UsageError("--snapshot: expected --db beside it, got none")
    for path in (sarif_file, junit_file):
        if path is not None:
            _check_writable(path)
    result = fdb.check(models, fdb.open(db, snapshot) if db is not None else None, rules, limits=limits)
    for path, text in ((sarif_file, sarif), (junit_file, junit)):
        if path is not None:
            _write(path, text(result))
    answer = checked(result)
    if answer["models"] or as_json or len(answer["files"]) > 1:
        answer_with(answer, as_json, table_of)
    if not answer["models"]:
        reasons = [file["reason"] for file in answer["files"]]
        more = f" (and {len(reasons) - 1:,} more)" if len(reasons) > 1 else ""
        raise InputError(f"check: expected at least one file that is a readable model, got none: {reasons[0]}{more}")
    if not answer["ok"]:
        context.exit(1)


def _check_writable(path: Path) -> None:
    """Raise UsageError, before the models are read, where the findings cannot be written."""
    try:
        is_new = not path.exists()
        if is_new or path.is_file():  # opening a pipe and closing it would end what its reader gets
            path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise UsageError(f"{path}: expected a place to write to, got: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: expected a place to write to, got: {error.strerror}") from error
