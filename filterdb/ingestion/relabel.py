"""Other catalog rows for models that are there."""

from __future__ import annotations

import os

from filterdb.arguments import as_path
from filterdb.models.catalog import parse_catalog
from filterdb.models.inputs import read_input
from filterdb.store import history
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.files import local_path


def relabel(db: AnyDatabase, catalog: str | os.PathLike[str]) -> Database:
    """Commit a snapshot in which the catalog's rows stand for those of its models; no filter is rewritten.

    A model is found by the row's `name`, else its `path`; its whole row is replaced: columns that the catalog lacks
    become "unknown". Models without a row keep theirs. Gives the database at the new snapshot, or at the newest where
    nothing changes. Raises InputError for a catalog that cannot be used and for a row of a model that is not there.
    """
    db = as_database(db)
    place = local_path(as_path(catalog, "catalog"))
    rows = parse_catalog(read_input(place), place, needs_path=False)
    return history.relabel(db, {row.id: {**row.labels, "extra": row.extra_json} for row in rows})
