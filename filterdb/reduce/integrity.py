"""Verification on Dask: every chunk listed and present, and with `deep` every byte decoded."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial

from filterdb import cluster, plan
from filterdb.store.database import Database
from filterdb.store.verify import Problem, check_chunks, check_presence, check_tables


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification looked at and what it found."""

    chunks: int
    problems: list[Problem]


def verify(db: Database, *, deep: bool = False) -> Verified:
    """Check metadata, tables and chunks of every segment of the snapshot; with `deep` decode every chunk."""
    db = db.whole
    problems = check_tables(db)
    for segment in db.segments:
        problems += check_presence(segment)
    if deep:
        seen = {(problem.segment, problem.chunk) for problem in problems}
        run = uuid.uuid4().hex[:8]
        tasks = [
            cluster.task(f"verify-{run}-{segment.id}-{chunks[0]}", partial(check_chunks, segment, chunks))
            for segment in db.segments
            for chunks in plan.partitions(segment.chunks, segment.chunk_rows)
        ]
        found = [problem for part in cluster.run(tasks, "verify") for problem in part]
        problems += [problem for problem in found if (problem.segment, problem.chunk) not in seen]
    return Verified(sum(segment.chunks for segment in db.segments), problems)
