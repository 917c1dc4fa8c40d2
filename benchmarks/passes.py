"""Each pass against the plain library read and against the floor, interleaved, medians, on one local database.

floor: whole chunks into reused buffers with their checksum, plain threads, no Dask. zarr: zarr's own read of the same
chunks. Passes run through Dask's threads, as `filterdb --threads N` does, summaries not stored. Page cache warm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np

import filterdb as fdb
from filterdb.reduce import passes
from filterdb.reduce.basis import fit_basis, whole_moments
from filterdb.reduce.reductions import Axes, ExtremesReduction, HistogramsReduction, MomentsReduction


def main() -> None:
    """Print a row per contender: median and range in ns per filter, and the ratio of the floor to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="a database, such as benchmarks/synthetic.py makes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    db = fdb.open(options.url)
    (segment,) = db.segments
    tables = db.tables[0]
    with dask.config.set(scheduler="threads", num_workers=options.threads):
        whole_moments(db, scaled=True)
        basis = fit_basis(db)
        mean, components, _ = basis.arrays()
        axes = Axes.of(mean, components, scaled=True)
        chunks = range(segment.chunks)
        array = segment.filters()

        pool = ThreadPoolExecutor(options.threads)  # kept, as Dask keeps its own: new threads would need new buffers

        def threads(read: Callable[[int], object]) -> None:
            list(pool.map(read, chunks))

        def run(reduction: passes.Reduction) -> None:
            dask.compute(passes.build(segment, tables, [reduction]))

        low, high = basis.range
        contenders: dict[str, Callable[[], None]] = {
            "floor (read + checksum)": lambda: threads(lambda c: segment.read_columns(c)[0, 0]),
            "zarr, plain read": lambda: threads(lambda c: np.asarray(array[slice(*segment.bounds(c))])[0, 0]),
            "moments pass": lambda: run(MomentsReduction()),
            "extremes pass": lambda: run(ExtremesReduction(axes)),
            "histograms pass": lambda: run(HistogramsReduction(axes, low, high)),
        }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(options.rounds + 1):
            for name, contender in contenders.items():
                start = time.perf_counter()
                contender()
                if turn:  # the first warms cache, buffers and compiled code
                    times[name].append((time.perf_counter() - start) / segment.rows * 1e9)
    floor = statistics.median(times["floor (read + checksum)"])
    print(f"{segment.rows:,} filters, {segment.chunks} chunks, {options.threads} threads, {options.rounds} rounds")
    print("| contender | ns per filter, median (min–max) | floor ÷ it |\n|---|---|---|")
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"| {name} | {middle:.1f} ({min(taken):.1f}–{max(taken):.1f}) | {floor / middle:.0%} |")


if __name__ == "__main__":
    main()
