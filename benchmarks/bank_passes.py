"""Each pass over banks of other kernel shapes, against the floor of their bytes and against BLAS, interleaved.

The filters are random, in a folder that is removed afterwards, with layers that chunks cut. floor: whole chunks read
into reused buffers with their checksum. BLAS: the symmetric product of every block in double precision, in as many
threads, of which moments take two (raw and scaled filters) and a projection takes about as much work as two.

With --memory, print instead the peak memory of a worker process that does all passes over banks of these sizes.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
from full_scale import workers
from passes import contenders
from rounds import Contender, interleave, table
from synthetic import complete_tables
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from filterdb import cluster, plan, schema
from filterdb.engine.graph import build
from filterdb.engine.moments import MomentsReduction
from filterdb.reduce.reductions import Axes, ExtremesReduction, HistogramsReduction
from filterdb.store.files import Files
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays
from filterdb.store.zarr_group import group_objects

BLOCK = 4_096
"""Filters in a product by BLAS."""

LAYERS = 100


def bank(folder: Path, kernel: schema.Kernel, nbytes: int) -> tuple[Segment, Arrays]:
    """Write a bank of random layers, and return it with its tables."""
    weights = kernel[0] * kernel[1]
    size = plan.bank_rows(schema.CHUNK_ROWS, weights)
    rows = nbytes // (4 * weights)
    sizes = np.diff(np.linspace(0, rows, LAYERS + 1).astype(np.int64))
    segment = Segment(Files.at(str(folder)), "bank", rows, size, kernel)
    rng, largest = np.random.default_rng(kernel), 0.0
    for chunk in range(segment.chunks):
        start, stop = segment.bounds(chunk)
        filters = rng.standard_normal((stop - start, weights), np.float32)
        largest = max(largest, float(np.abs(filters).max()))
        segment.write_chunk(chunk, filters)
    tables = complete_tables({"row_size": sizes, "peak": np.full(LAYERS, largest)}, {}, LAYERS, 1)
    segment.files.put({f"{segment.name}/{name}": data for name, data in group_objects(segment, tables).items()})
    return segment, tables


def products(segment: Segment, threads: int) -> Contender:
    """BLAS's symmetric product of every block."""
    pool = ThreadPoolExecutor(threads)

    def product(chunk: int) -> None:
        columns = segment.read_columns(chunk)
        for start in range(0, columns.shape[1], BLOCK):
            block = columns[:, start : start + BLOCK].astype(np.float64)
            _ = block @ block.T

    return Contender("BLAS: one product", segment.rows, lambda: list(pool.map(product, range(segment.chunks))))


def axes_and_range(segment: Segment) -> tuple[Axes, float]:
    """Return random axes of a bank, and a range of projections on them that no filter leaves."""
    weights = segment.weights
    components = np.linalg.qr(np.random.default_rng(0).standard_normal((weights, weights)))[0]
    return Axes.of(np.full(weights, 0.01), components, scaled=True), float(np.sqrt(weights)) + 1


def print_memory(kernel: schema.Kernel, sizes: list[int], threads: int, folder: str | None) -> None:
    """Print a worker's peak for each size in megabytes."""
    print("| kernel | filters | chunks | peak of a worker, MiB |\n|---|---|---|---|")
    for megabytes in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            segment, tables = bank(Path(place), kernel, megabytes * 10**6)
            axes, high = axes_and_range(segment)
            reductions = [
                MomentsReduction(segment.weights),
                ExtremesReduction(axes),
                HistogramsReduction(axes, -high, high),
            ]
            with workers(threads):
                cluster.run([build(segment, tables, reductions)], "passes")
                peaks = cluster.peak_memory()
        peaks.pop("client")
        name = schema.kernel_name(kernel)
        print(f"| {name} | {segment.rows:,} | {segment.chunks} | {max(peaks.values()) / 2**20:,.0f} |", flush=True)


def main() -> None:
    """Print a table for each kernel shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", nargs="*", default=["5x5", "7x7"])
    parser.add_argument("--megabytes", type=int, default=720)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    parser.add_argument("--memory", type=int, nargs="+", metavar="MEGABYTES", help="sizes of banks")
    options = parser.parse_args()
    for name in options.kernels:
        kernel = schema.parse_kernel(name)
        if options.memory:
            print_memory(kernel, options.memory, options.threads, options.folder)
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            segment, tables = bank(Path(folder), kernel, options.megabytes * 10**6)
            axes, high = axes_and_range(segment)
            with dask.config.set(scheduler="threads", num_workers=options.threads), threadpool_limits(1):
                found = [*contenders(segment, tables, axes, high, options.threads), products(segment, options.threads)]
                times = interleave(found, options.rounds)
        print(f"{name}: {segment.rows:,} filters, {segment.chunks} chunks, {options.threads} threads\n")
        print(table(times, "floor: read + checksum", ratio="floor ÷ it"), end="\n\n")


if __name__ == "__main__":
    main()
