"""`filterdb check`: judge model files without a database. Importing this module takes less than a tenth of a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.options import (
    gathered,
    kernel_option,
    limits_option,
    network_options,
    place,
    reference_option,
    snapshot_option,
)
from filterdb.commands.table import wide_option
from filterdb.errors import InputError, UsageError
from filterdb.schema import parse_kernel
from filterdb.wording import none_readable

if TYPE_CHECKING:
    from filterdb.analysis.findings import Result
    from filterdb.store.database import Database

_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class _FindingFiles:
    """Hold the files to which findings are written; None for a format that was not requested."""

    sarif: Path | None
    junit: Path | None

    def check_writable(self) -> None:
        """Raise UsageError if a file cannot be written. Call it before the models are read."""
        for path in (self.sarif, self.junit):
            if path is not None:
                _check_writable(path)

    def write(self, result: Result) -> None:
        """Write the findings of a result."""
        from filterdb.commands.junit import junit
        from filterdb.commands.sarif import sarif

        for path, text in ((self.sarif, sarif), (self.junit, junit)):
            if path is not None:
                _write(path, text(result))


@dataclass(frozen=True)
class _ComparedWith:
    """Hold the options that choose what layers are compared with."""

    db: str | None
    snapshot: str | None
    reference: str | None

    def __post_init__(self) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.snapshot is not None and self.db is None:
            raise UsageError("--snapshot requires --db; pass the database as --db, or leave --snapshot out")
        if self.reference is not None and self.db is not None:
            raise UsageError("--reference cannot be combined with --db; leave one of them out")

    def database(self) -> Database | None:
        """Return the open database, if one was chosen."""
        return fdb.open(self.db, self.snapshot) if self.db is not None else None


@commands.command()
@wide_option
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--db", metavar="DB", help="Compare each layer with this database's layers of similar depth and size.")
@snapshot_option()
@reference_option
@click.option("--rules", type=_FILE, help="Thresholds, what fails and what is ignored: TOML or YAML.")
@click.option("--sarif", type=_FILE, help="Write the findings here, SARIF 2.1.0.")
@click.option("--junit", type=_FILE, help="Write the findings here, JUnit XML.")
@limits_option
@network_options
@place
@kernel_option
@gathered("files", _FindingFiles)
@gathered("compared_with", _ComparedWith)
@click.pass_context
def check(
    context: click.Context,
    /,
    models: tuple[str, ...],
    compared_with: _ComparedWith,
    rules: Path | None,
    kernel: str | None,
    files: _FindingFiles,
    as_json: bool,
    **reading: Any,
) -> None:
    """Judge the convolutions of model files, of every kernel shape.

    MODELS are files (ONNX, PyTorch, safetensors, Keras, OpenVINO, TensorFlow Lite), folders, globs or URLs. Reports
    layers that are dead, sparse, collapsed, random, non-finite or duplicates, or that have outliers or dead channels,
    models that are untrained, and what could not be checked. Needs no database. The exit code is 1 if a rule fails or
    something could not be checked, and 65 if no file can be read.

    Examples:
        filterdb check model.onnx
        filterdb check models/*.onnx --db db --sarif findings.sarif
    """
    from filterdb.analysis.check import check_files
    from filterdb.commands.check_answer import show, to_answer

    files.check_writable()
    only = None if kernel is None else parse_kernel(kernel)
    opened, reference = compared_with.database(), compared_with.reference
    result = check_files(models, db=opened, reference=reference, rules=rules, kernel=only, **reading)
    files.write(result)
    answer = to_answer(result)
    if answer["models"] or as_json or len(answer["files"]) > 1:
        print_answer(answer, as_json, show)
    if not answer["models"]:
        raise InputError(none_readable([file["reason"] for file in answer["files"]]))
    if not answer["ok"]:
        context.exit(1)


def _check_writable(path: Path) -> None:
    """Raise UsageError if a file cannot be written."""
    try:
        is_new = not path.exists()
        if is_new or path.is_file():  # not a pipe: closing it would end its reader's input
            path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise UsageError(f"{path}: cannot write the file: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot write the file: {error.strerror}") from error
