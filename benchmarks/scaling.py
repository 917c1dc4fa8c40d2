"""How the moments pass scales: in filters, in worker processes, in chunk size. Local store, page cache warm."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import dask
import synthetic
from distributed import Client, LocalCluster

import filterdb as fdb
from filterdb import cluster
from filterdb.engine.graph import build
from filterdb.engine.moments import MomentsReduction
from filterdb.store import summary


def timed(db: fdb.Database, rounds: int) -> float:
    """Median seconds of the moments pass."""
    (segment,), tables, reduction = db.segments, db.tables[0], MomentsReduction()
    taken = []
    for turn in range(rounds + 1):
        start = time.perf_counter()
        cluster.run([build(segment, tables, [reduction])], "moments")
        if turn:
            taken.append(time.perf_counter() - start)
        summary.remove_parts(segment.files, segment.id, reduction.key)
        time.sleep(1)  # a scheduler that has not yet let go of the result would give it again
    return statistics.median(taken)


def row(what: str, db: fdb.Database, seconds: float) -> None:
    """Print one."""
    filters = int(db.counts["filters"])
    print(
        f"| {what} | {seconds:.3f} s | {seconds / filters * 1e9:.1f} | {filters * 36 / seconds / 1e9:.2f} GB/s |",
        flush=True,
    )


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=64_000_000)
    options = parser.parse_args()
    head = "| {} | median | ns per filter | |\n|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        print(head.format("filters (300 layers, two threads)"))
        with dask.config.set(scheduler="threads", num_workers=2):
            n = 1_000_000
            while n <= options.largest:
                db = synthetic.make(place / f"n{n}", n, 300, 12)
                row(f"{n:,}", db, timed(db, options.rounds))
                n *= 4
            middle = fdb.open(place / "n16000000")
            print("\n" + head.format("chunk, 16 million filters, two threads"))
            for chunk in (1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22):
                db = synthetic.make(place / f"c{chunk}", 16_000_000, 300, 12, chunk)
                row(f"{chunk:,} filters, {chunk * 36 / 2**20:.1f} MiB", db, timed(db, options.rounds))
        print("\n" + head.format("workers, 16 million filters, processes"))
        for workers, threads in ((1, 1), (1, 2), (2, 1)):
            with (
                LocalCluster(workers, threads_per_worker=threads, dashboard_address=None) as local,
                Client(local),
            ):
                row(f"{workers} × {threads} thread(s)", middle, timed(middle, options.rounds))


if __name__ == "__main__":
    main()
