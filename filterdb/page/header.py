"""What the head of a page says of its database: name and dates."""

from __future__ import annotations

from filterdb.errors import FilterDBError
from filterdb.plotting.drawing import visible
from filterdb.store import snapshot as snapshots
from filterdb.store.database import Database

GENERIC_NAMES = {"db", "database", "data", "filterdb"}
"""Names of folders that do not tell one database from another."""


def header(db: Database) -> dict[str, str]:
    """Return the variables of the head: name, and when the first and this snapshot were made, as ISO dates."""
    return {"name": visible(database_name(db.url)), "created": first_commit(db), "changed": db.state.created}


def page_title(name: str, kernel: str) -> str:
    """Return the title of a database's page in the browser's tab."""
    return f"{name} · {kernel} filters · filterdb"


def database_name(url: str) -> str:
    """Return the last part of a database's path or URL, with the one before if it says nothing; all if it has no parts.

    >>> database_name("s3://bucket/zoo"), database_name("/data/filterdb-demo/db"), database_name("db")
    ('zoo', 'filterdb-demo/db', 'db')
    """
    path = url.partition("?")[0].partition("://")[2] if "://" in url else url
    parts = [part for part in path.split("/") if part]
    return "/".join(parts[-2:] if parts and parts[-1] in GENERIC_NAMES else parts[-1:]) or url


def first_commit(db: Database) -> str:
    """Return when the first snapshot was made, as an ISO date; "" if that snapshot is gone."""
    try:
        return snapshots.read(db.files, 0).created
    except FilterDBError:
        return ""
