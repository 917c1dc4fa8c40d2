"""Decide whether a report is about a database or about model files. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filterdb.arguments import formerly_positional
from filterdb.errors import UsageError
from filterdb.models.sources import name_models

if TYPE_CHECKING:
    from filterdb.models.sources import Sources
    from filterdb.numerics.modes import ModeName
    from filterdb.schema import AnyKernel
    from filterdb.store.database import AnyDatabase


@formerly_positional("mode")
def report(
    db: AnyDatabase | Sources,
    folder: str | Path,
    *,
    mode: ModeName = "sound",
    densities: bool | None = None,
    kernel: AnyKernel | None = None,
    compare: AnyDatabase | None = None,
    **reading: Any,
) -> Path | str:
    """Write the page about a view's layers, or about model files, into a folder or below a URL.

    There is a page for each kernel shape of which the view has enough filters, with links between them: the first is
    `index.html`, the others are in folders such as `5x5`.
    `index.html` and its `data` open from disk or from a server, without other network access. `figures` has each figure
    as SVG and PNG, `tables` its numbers as CSV, and as Parquet if pyarrow is installed. `model.html` has a page for
    each model: its findings with remedies, its nearest models, and its layers in order with their first filters.

    The page of model files needs no database and no extra. It shows the same for each file, with percentiles among the
    layers of the reference that is packaged with filterdb, and lists what could not be read.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it; or model files, as `check` takes them: paths, folders, globs, URLs, models in
        memory, or a list of these. A folder with segments is a database.
    folder : str or path
        The folder, which is created if needed, or a URL.
    mode : {"sound", "paper"}
        As in `drift`. Default: "sound".
    densities : bool, optional
        Whether to add the bivariate densities of all pairs of components, which need a pass over the filters. Default:
        for up to 50 million filters.
    kernel : (int, int) or str, optional
        Only the page of this shape, such as "5x5". Default: all shapes of at most 121 weights with at least 1,000
        filters; of files, all layers.
    compare : Database, str or path, optional
        For files: a database to compare their layers with, among whose models the nearest are found.
    **reading
        For files: `reference`, `limits`, `key` and `order`, as in `check`.

    Returns
    -------
    Path or str
        The absolute path, or the URL, of `index.html`.

    Raises
    ------
    MissingExtraError
        For a database, without the extra `report`.
    UsageError
        If `folder` is a file, or if an option for databases is passed with model files or the other way round.
    InputError
        For a database without filters, or if none of the files can be read.
    StoreError
        If the folder cannot be written; raised before anything is computed.
    """
    if isinstance(db, list | tuple | Mapping) and not db:
        raise UsageError(f"db: expected a database or model files, got an empty {type(db).__name__}")
    if name_models(db):
        if mode != "sound" or densities is not None:
            raise UsageError("report: mode and densities apply to a database only; leave them out for model files")
        from filterdb.page.file_report import report_files

        return report_files(db, folder, compare=compare, kernel=kernel, **reading)
    if compare is not None or reading:
        names = ", ".join(["compare"] * (compare is not None) + sorted(reading))
        raise UsageError(f"report: {names}: only model files take this; leave it out for a database")
    from filterdb.page.report import report_database

    database: Any = db
    return report_database(database, folder, mode, densities, kernel)
