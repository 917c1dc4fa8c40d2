"""Each pass against zarr's own read of the same chunks and against the floor, interleaved, on one local database.

floor: whole chunks read into reused buffers with their checksum, plain threads, no Dask. Passes run through Dask's
threads, as `filterdb --threads N` does, summaries not stored. Page cache warm.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import crc32c
import dask
import numpy as np
import zarr
from rounds import Contender, interleave, table

import filterdb as fdb
from filterdb.engine.graph import build
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.reduction import LayerReduction
from filterdb.reduce.basis import fit_basis
from filterdb.reduce.reductions import Axes, ExtremesReduction, HistogramsReduction
from filterdb.store import summary
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays

_kept = threading.local()


def read_whole(segment: Segment, chunk: int, *, checked: bool = True) -> None:
    """The floor: one chunk into this thread's buffer."""
    path = Path(segment.files.url(segment.chunk_name(chunk)))
    if not hasattr(_kept, "buffer"):
        _kept.buffer = bytearray(path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        file.readinto(_kept.buffer)
    if checked:
        crc32c.crc32c(memoryview(_kept.buffer)[:-4])


def pipelines() -> list[str]:
    """Zarr's default codec pipeline, and zarrs where it is installed."""
    try:
        import zarrs  # noqa: F401
    except ImportError:
        return ["zarr.core.codec_pipeline.BatchedCodecPipeline"]
    return ["zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"]


def _plain_read(segment: Segment, array: Any, chunk: int) -> Any:
    return np.asarray(array[slice(*segment.bounds(chunk))])[0, 0]


def contenders_of(db: fdb.Database, threads: int) -> list[Contender]:
    """Floors, zarr's reads, and passes over a database of one segment."""
    (segment,) = db.segments
    basis = fit_basis(db)
    mean, components, _ = basis.arrays()
    return contenders(segment, db.tables[0], Axes.of(mean, components, scaled=True), basis.range[1], threads)


def contenders(segment: Segment, tables: Arrays, axes: Axes, high: float, threads: int) -> list[Contender]:
    """Floors, zarr's reads, and passes over a bank, in these axes and the range ±high."""
    pool = ThreadPoolExecutor(threads)  # kept, as Dask keeps its own: new threads would need new buffers
    moments, extremes = MomentsReduction(segment.weights), ExtremesReduction(axes)
    histograms = HistogramsReduction(axes, -high, high)

    def each(read: Callable[[int], object]) -> Callable[[], object]:
        return lambda: list(pool.map(read, range(segment.chunks)))

    def passing(name: str, *reductions: LayerReduction) -> Contender:
        def forget() -> None:
            for reduction in reductions:
                summary.remove_parts(segment.files, segment.summarised_as, reduction.key)

        return Contender(name, segment.rows, lambda: dask.compute(build(segment, tables, reductions)), after=forget)

    found = [
        Contender("floor: read + checksum", segment.rows, each(lambda c: read_whole(segment, c))),
        Contender("read alone", segment.rows, each(lambda c: read_whole(segment, c, checked=False))),
        Contender("as the passes read", segment.rows, each(lambda c: segment.read_columns(c)[0, 0])),
    ]
    for path in pipelines():
        with zarr.config.set({"codec_pipeline.path": path}):
            # Without filterdb's strictness about missing chunks, which zarrs does not know.
            array = zarr.open_array(segment.files.url(f"{segment.name}/filters"), mode="r")
        name = "zarr" if path.startswith("zarr.") else "zarr with zarrs"
        read = each(partial(_plain_read, segment, array))
        found.append(Contender(f"{name}, plain read", segment.rows, read))
    return [
        *found,
        passing("moments pass", moments),
        passing("extremes pass", extremes),
        passing("histograms pass", histograms),
        passing("all three in one reading", moments, extremes, histograms),
    ]


def main() -> None:
    """Print a row per contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="a local database of one segment, such as benchmarks/synthetic.py makes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    db = fdb.open(options.url)
    with dask.config.set(scheduler="threads", num_workers=options.threads):
        times = interleave(contenders_of(db, options.threads), options.rounds)
    (segment,) = db.segments
    print(f"{segment.rows:,} filters, {segment.chunks} chunks, {options.threads} threads, {options.rounds} rounds\n")
    print(table(times, "floor: read + checksum", ratio="floor ÷ it"))


if __name__ == "__main__":
    main()
