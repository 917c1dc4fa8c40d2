"""What the head of a page says of its database: name and dates."""

from __future__ import annotations

from filterdb.errors import FilterDBError
from filterdb.page.drawing import visible
from filterdb.store import snapshot as snapshots
from filterdb.store.database import Database


def header(db: Database) -> dict[str, str]:
    """Return the variables of the head: name, and when the first and this snapshot were made, as ISO dates."""
    return {"name": visible(database_name(db.url)), "created": first_commit(db), "changed": db.state.created}


def database_name(url: str) -> str:
    """Return the last part of a database's path or URL, or all of it if there is none."""
    path = url.partition("?")[0] if "://" in url else url
    return path.rstrip("/").rpartition("/")[2] or url


def first_commit(db: Database) -> str:
    """Return when the first snapshot was made, as an ISO date; "" if that snapshot is gone."""
    try:
        return snapshots.read(db.files, 0).created
    except FilterDBError:
        return ""
