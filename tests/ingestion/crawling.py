"""Crawl ten models of a web server."""

from __future__ import annotations

from pathlib import Path

import filterdb as fdb
from tests.site import Site

NAMES = [f"m{i:02}" for i in range(10)]


def catalog(db: Path, site: Site, names: list[str] = NAMES, **columns: str) -> Path:
    path = db.parent / "crawl.csv"
    path.write_text(site.catalog(names, **columns))
    return path


def crawl(db: Path, site: Site, names: list[str] = NAMES, every: int | None = 3, **options: object) -> fdb.Ingested:
    list_ = catalog(db, site, names)
    return fdb.ingest(db, catalog=list_, commit_every=every, chunk_rows=10, **options)  # type: ignore[arg-type]


def sizes(db: fdb.Database) -> list[int]:
    """Models of each segment."""
    return [entry.models for entry in db.state.segments]
