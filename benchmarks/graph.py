"""What a pass a hundred times the published size costs besides reading: 140,000 chunks, nothing read, nothing computed.

Building the graph, sending it, scheduling, merging, keeping the parts of an unfinished pass, gathering: real worker
processes, real messages of real sizes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass

import cloudpickle
import numpy as np
from distributed import Client, LocalCluster

from filterdb import cluster
from filterdb.engine.graph import build, projected
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.reduction import Block
from filterdb.plan import chunk_count
from filterdb.schema import CHUNK_ROWS
from filterdb.store.files import Files
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays


@dataclass(frozen=True, slots=True)
class NullSegment(Segment):
    """A segment whose chunks are not there."""

    def read_columns(self, chunk: int) -> np.ndarray:
        """Nothing."""
        return np.empty((9, 0), np.float32)


@dataclass(frozen=True, slots=True)
class NullMoments(MomentsReduction):
    """Arrays of the right size, nothing added."""

    def add(self, arrays: Arrays, block: Block) -> None:
        """Nothing."""


def main() -> None:
    """Print what each step took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=140_000)
    parser.add_argument("--layers", type=int, default=21_436)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    rows = options.chunks * CHUNK_ROWS
    sizes = np.full(options.layers, rows // options.layers)
    sizes[0] += rows - sizes.sum()
    tables = {"row_size": sizes, "peak": np.ones(options.layers)}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(options.workers, threads_per_worker=options.threads, dashboard_address=None) as place,
        Client(place),
    ):
        segment = NullSegment(Files(folder), "null", rows, CHUNK_ROWS)
        assert segment.chunks == chunk_count(rows, CHUNK_ROWS) == options.chunks
        start = time.perf_counter()
        task = build(segment, tables, [NullMoments()])
        built = time.perf_counter() - start
        graph = dict(task.__dask_graph__())
        size = len(cloudpickle.dumps(graph))
        start = time.perf_counter()
        ((part,),) = cluster.run([task], "null", projected(segment, tables, [NullMoments()]))
        ran = time.perf_counter() - start
        kept = Files(folder).list("summaries")
        peaks = cluster.peak_memory()
    assert len(part.arrays["peak"]) == options.layers
    print(f"{options.chunks:,} chunks of {CHUNK_ROWS:,} filters, {rows:,} in all, {options.layers:,} layers")
    print(f"{options.workers} workers of {options.threads} threads; nothing is read or computed\n")
    print("| what | figure |\n|---|---|")
    print(f"| tasks | {len(graph):,} |")
    print(f"| building | {built:.2f} s |")
    print(f"| graph, pickled | {size / 1e6:.1f} MB |")
    print(f"| sending, scheduling, merging, gathering | {ran:.2f} s, {ran / len(graph) * 1e3:.2f} ms a task |")
    print(f"| parts kept on the way | {len(kept):,}, {sum(size or 0 for size in kept.values()) / 1e6:.0f} MB |")
    print(f"| client's peak | {peaks.pop('client') / 2**20:,.0f} MiB (the scheduler is in it) |")
    print(f"| workers' peak | {max(peaks.values()) / 2**20:,.0f} MiB |")


if __name__ == "__main__":
    main()
