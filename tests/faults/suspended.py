"""An ingest that stops itself at one point, as a laptop whose lid is closed; run as a process of its own.

`python -m tests.faults.suspended POINT SKEW URL MODEL`: its clock is SKEW seconds ahead. Exits as the command would.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import dask

import filterdb as fdb
from filterdb import schema
from filterdb.engine import checkpoint
from filterdb.errors import FilterDBError
from filterdb.ingestion.write import taken
from filterdb.store.files import Files
from filterdb.store.segment import Segment


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_after_chunk() -> None:
    """In the middle of writing."""
    write = Segment.write_chunk

    def write_chunk(segment: Segment, chunk: int, filters: Any) -> None:
        write(segment, chunk, filters)
        if chunk == 1:
            stop()

    Segment.write_chunk = write_chunk  # type: ignore[assignment, method-assign]


def stop_before_checks() -> None:
    """All is written, nothing is checked."""
    store, stores = checkpoint.store, iter(range(len(taken(schema.WEIGHTS))))

    def store_and_stop(*args: Any) -> Any:
        result = store(*args)
        if next(stores) == len(taken(schema.WEIGHTS)) - 1:
            stop()
        return result

    checkpoint.store = store_and_stop  # type: ignore[assignment]


def stop_before_put() -> None:
    """All is checked; the next request is the snapshot itself."""
    create = Files.create

    def create_later(files: Files, name: str, data: bytes) -> bool:
        if name.startswith("snapshots/") and name.endswith(".json"):
            Files.create = create  # type: ignore[method-assign]
            stop()
        return create(files, name, data)

    Files.create = create_later  # type: ignore[assignment, method-assign]


POINTS: dict[str, Callable[[], None]] = {
    "after a chunk": stop_after_chunk,
    "before the checks": stop_before_checks,
    "before the put": stop_before_put,
}


def main(point: str, skew: str, url: str, model: str) -> int:
    now = time.time
    time.time = lambda: now() + float(skew)
    POINTS[point]()
    try:
        with dask.config.set(scheduler="synchronous"):
            fdb.ingest(url, [model], chunk_rows=20)
    except FilterDBError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
