"""Verify a database on Dask: that every chunk is listed and present, and with `deep` that every layer has its hash."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial

from filterdb import cluster, plan, schema
from filterdb.cluster import Work
from filterdb.store.database import AnyDatabase, as_database
from filterdb.store.tables import of_bank
from filterdb.store.verify import (
    Listing,
    Problem,
    check_history,
    check_layers,
    check_pages,
    check_segment,
    layers_of,
)


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a verification."""

    chunks: int
    """Chunks that were checked."""
    problems: list[Problem]
    """What is wrong; empty for a sound database."""


def verify(db: AnyDatabase, *, deep: bool = False) -> Verified:
    """Check the history, and the metadata, tables, summaries and chunks of every segment of the snapshot.

    Parameters
    ----------
    db
        A database or its path.
    deep
        Also read every byte and compute the hash of every layer again. Default: only check that chunks are present.

    Returns
    -------
    Verified
        The number of chunks, and a `Problem` for each thing that is wrong. Problems are not raised.

    Raises
    ------
    StoreError
        If the database cannot be read at all.
    """
    db = as_database(db).root
    problems, layers, checked = check_history(db), [], []
    listing = Listing(db.files)
    for entry in db.state.segments:
        segment_problems, tables = check_segment(entry, db.files, listing)
        problems += segment_problems
        checked.append(tables)
        # Without sound tables it is not known which hashes to expect.
        if not deep or tables is None:
            continue
        for bank in entry.segments(db.files):
            own = of_bank(tables, schema.kernel_name(bank.kernel))
            layers += layers_of(bank, own, max(plan.bank_rows(plan.TASK_ROWS, bank.weights), bank.chunk_rows))
    problems += check_pages(db, checked)
    seen = {(problem.segment, problem.variable, problem.chunk) for problem in problems}
    run = uuid.uuid4().hex[:8]
    tasks = [
        cluster.task(f"verify-{run}-{part.segment.summarised_as}-{part.bounds[0]}", partial(check_layers, part))
        for part in layers
    ]
    nbytes = sum(int(part.bounds[-1] - part.bounds[0]) * 4 * part.segment.weights for part in layers)
    work = Work(nbytes, db.files.remote)
    for problem in (problem for part in cluster.run(tasks, "verify", work=work) for problem in part):
        # Layers of two tasks can be in the same chunk.
        if (problem.segment, problem.variable, problem.chunk) not in seen:
            problems.append(problem)
            seen.add((problem.segment, problem.variable, problem.chunk))
    return Verified(sum(bank.chunks for entry in db.state.segments for bank in entry.segments(db.files)), problems)
