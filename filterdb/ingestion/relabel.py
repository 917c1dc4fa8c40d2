"""Replace the catalog rows of stored models."""

from __future__ import annotations

from filterdb.models.catalog_input import Catalog, as_catalog, read_catalog
from filterdb.store import history
from filterdb.store.database import AnyDatabase, Database, as_database


def relabel(db: AnyDatabase, catalog: Catalog) -> Database:
    """Commit a snapshot in which a catalog's rows replace those of its models. No filter is rewritten.

    A row's model is identified by `name`, or else by `path`. Its whole row is replaced: columns that the catalog lacks
    become "unknown". Models that are not in the catalog keep their rows.

    Parameters
    ----------
    db
        The database, or its path or URL.
    catalog
        Path or URL of a catalog (CSV or Parquet), or a DataFrame, as in `ingest`.

    Returns
    -------
    Database
        The database at the new snapshot, or at the newest if nothing changes.

    Raises
    ------
    InputError
        If the catalog cannot be used, or if it has a row for a model that does not exist.

    Examples
    --------
    >>> db = fdb.relabel("db", "catalog.csv")  # doctest: +SKIP
    """
    db = as_database(db)
    _, rows = read_catalog(as_catalog(catalog), needs_path=False)
    return history.relabel(db, {row.id: {**row.labels, "extra": row.extra_json} for row in rows})
