"""`filterdb import-hdf5`: import the published data set into a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import filterdb as fdb
from filterdb.commands.answer import print_answer
from filterdb.commands.group import commands
from filterdb.commands.ingest import show, to_answer
from filterdb.commands.options import chunk_rows_option, database_argument, limits_option, place

if TYPE_CHECKING:
    from filterdb.models.limits import Limits


@commands.command("import-hdf5")
@database_argument
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--tables",
    "csv",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="FILTERS MODELS",
    help="Metadata from the two CSV tables of the authors' tool, not from FILE.",
)
@chunk_rows_option
@limits_option
@place
def import_hdf5(
    db: str, file: Path, csv: tuple[Path, Path] | None, chunk_rows: int, limits: Limits, as_json: bool
) -> None:
    """Import the data set published with the paper.

    The HDF5 file of CNN Filter DB (CVPR 2022) becomes one segment of DB.

    Examples:
        filterdb import-hdf5 db dataset.h5
    """
    done = fdb.import_hdf5(db, file, tables=csv, chunk_rows=chunk_rows, limits=limits)
    print_answer(to_answer(done), as_json, show)
