"""Verification on Dask: every chunk listed and present, and with `deep` every byte read and every layer hashed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial

from filterdb import cluster, plan
from filterdb.errors import DamageError
from filterdb.store.database import Database
from filterdb.store.segment import read_tables
from filterdb.store.snapshot import Entry
from filterdb.store.verify import (
    Layers,
    Problem,
    check_history,
    check_layers,
    check_presence,
    check_tables,
    layers_of,
)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification looked at and what it found."""

    chunks: int
    problems: list[Problem]


def verify(db: Database, *, deep: bool = False) -> Verified:
    """Check the history, and metadata, tables, summaries and chunks of every segment of the snapshot.

    With `deep` every byte is read and every layer's hash recomputed.
    """
    db = db.whole
    problems = check_history(db) + check_tables(db)
    for segment in db.segments:
        problems += check_presence(segment)
    if deep:
        seen = {(problem.segment, problem.chunk) for problem in problems}
        run = uuid.uuid4().hex[:8]
        tasks = [
            cluster.task(f"verify-{run}-{entry.id}-{layers.bounds[0]}", partial(check_layers, layers))
            for entry in db.state.segments
            for layers in _readable(entry, db)
        ]
        for problem in (problem for part in cluster.run(tasks, "verify") for problem in part):
            # Layers of two tasks may share a chunk.
            if (problem.segment, problem.chunk) not in seen:
                problems.append(problem)
                seen.add((problem.segment, problem.chunk))
    return Verified(sum(segment.chunks for segment in db.segments), problems)


def _readable(entry: Entry, db: Database) -> list[Layers]:
    """A segment's layers in tasks; none where its tables, which say what to expect, are damaged."""
    segment = entry.segment(db.files)
    try:
        tables = read_tables(segment, entry.digests)
    except DamageError:
        return []
    return layers_of(segment, tables, max(plan.TASK_ROWS, segment.chunk_rows))
