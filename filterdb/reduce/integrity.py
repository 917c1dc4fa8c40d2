"""Verification on Dask: every chunk listed and present, and with `deep` every byte read and every layer hashed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial

from filterdb import cluster, plan
from filterdb.store.database import AnyDatabase, as_database
from filterdb.store.verify import Problem, check_history, check_layers, check_segment, layers_of


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification looked at and what it found."""

    chunks: int
    problems: list[Problem]


def verify(db: AnyDatabase, *, deep: bool = False) -> Verified:
    """Check the history, and metadata, tables, summaries and chunks of every segment of the snapshot.

    With `deep` every byte is read and every layer's hash recomputed.
    """
    db = as_database(db)
    db = db.whole
    problems, layers = check_history(db), []
    for entry in db.state.segments:
        found, tables = check_segment(entry, db.files)
        problems += found
        # Tables that are damaged do not say what to expect.
        if deep and tables is not None:
            segment = entry.segment(db.files)
            layers += layers_of(segment, tables, max(plan.TASK_ROWS, segment.chunk_rows))
    seen = {(problem.segment, problem.chunk) for problem in problems}
    run = uuid.uuid4().hex[:8]
    tasks = [
        cluster.task(f"verify-{run}-{one.segment.id}-{one.bounds[0]}", partial(check_layers, one)) for one in layers
    ]
    for problem in (problem for part in cluster.run(tasks, "verify") for problem in part):
        # Layers of two tasks may share a chunk.
        if (problem.segment, problem.chunk) not in seen:
            problems.append(problem)
            seen.add((problem.segment, problem.chunk))
    return Verified(sum(segment.chunks for segment in db.segments), problems)
