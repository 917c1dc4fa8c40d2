"""Integrity: every listed chunk present and whole, tables and metadata as the snapshot has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from filterdb import schema
from filterdb.errors import DamageError, StoreMissingError
from filterdb.store.database import Database
from filterdb.store.segment import CRC_BYTES, Segment, read_tables


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not what was committed."""

    segment: str
    variable: str
    chunk: int | None
    what: str


def check_tables(db: Database) -> list[Problem]:
    """Metadata, tables and basis of every segment against the snapshot's digests."""
    problems = []
    for entry in db.state.segments:
        try:
            read_tables(entry.segment(db.files), entry.digests)
        except DamageError as error:
            problems.append(Problem(entry.id, "tables", None, str(error)))
    try:
        _ = db.basis
    except DamageError as error:
        problems.append(Problem("", "basis", None, str(error)))
    return problems


def check_presence(segment: Segment) -> list[Problem]:
    """Presence and size of a segment's chunks, by one listing."""
    size = segment.chunk_rows * schema.WEIGHTS * 4 + CRC_BYTES
    listing = segment.files.list(f"{segment.name}/{schema.FILTERS.name}/c")
    problems = []
    for chunk in range(segment.chunks):
        got = listing.get(segment.chunk_name(chunk))
        if got is None:
            problems.append(Problem(segment.id, schema.FILTERS.name, chunk, "missing"))
        elif got != size:
            problems.append(Problem(segment.id, schema.FILTERS.name, chunk, f"expected {size} bytes, got {got}"))
    return problems


def check_chunks(segment: Segment, chunks: range) -> list[Problem]:
    """Read and decode chunks: their checksums, and that no row is NaN (padding begins after the last row)."""
    problems = []
    for chunk in chunks:
        try:
            filters = segment.read_chunk(chunk)
        except (DamageError, StoreMissingError) as error:
            problems.append(Problem(segment.id, schema.FILTERS.name, chunk, str(error)))
            continue
        if np.isnan(filters).any():
            problems.append(Problem(segment.id, schema.FILTERS.name, chunk, "NaN among the filters"))
    return problems
