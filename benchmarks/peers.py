"""Peers side by side: moments and basis of max-scaled filters, interleaved rounds, ns per filter, each at its own n.

What a notebook or a Dask user would write, on filters that are scaled already, from the same Zarr array; ours reads
raw filters, and scales them itself. dask-ml is timed if it is installed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import zarr
from sklearn.decomposition import PCA, IncrementalPCA

import filterdb as fdb
from filterdb.numerics.scaling import scale
from filterdb.reduce import passes
from filterdb.reduce.reductions import MomentsReduction


def main() -> None:
    """Print a row per peer: median ns per filter and how many times our pass's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="a database of one segment, such as benchmarks/synthetic.py makes")
    parser.add_argument("--filters", type=int, default=4_000_000, help="how many of them the peers get")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    db = fdb.open(options.url)
    (segment,) = db.segments
    tables = db.tables[0]
    n = min(options.filters, segment.rows)
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads", num_workers=options.threads):
        array = zarr.create_array(
            Path(folder) / "scaled.zarr", shape=(n, 9), chunks=(segment.chunk_rows, 9), dtype="f4", compressors=None
        )
        for chunk in range(-(-n // segment.chunk_rows)):
            start, stop = segment.bounds(chunk)
            array[start : min(stop, n)] = scale(segment.read_chunk(chunk)[: min(stop, n) - start])
        lazy = da.from_zarr(array)

        def notebook() -> None:
            found = PCA().fit(np.asarray(array[:]))
            coefficients = found.transform(np.asarray(array[:]))
            for k in range(9):
                np.histogram(coefficients[:, k], bins=70)

        def covariance() -> None:
            centred = lazy.astype("f8") - lazy.astype("f8").mean(axis=0)
            np.linalg.eigh(dask.compute(centred.T @ centred)[0])

        def incremental() -> None:
            model = IncrementalPCA()
            for chunk in range(array.nchunks):
                model.partial_fit(np.asarray(array.blocks[chunk]))

        peers: dict[str, tuple[int, Callable[[], object]]] = {
            "filterdb moments pass": (
                segment.rows,
                lambda: dask.compute(passes.build(segment, tables, [MomentsReduction()])),
            ),
            "da.linalg.svd": (n, lambda: dask.compute(*da.linalg.svd(lazy - lazy.mean(axis=0))[1:])),
            "blockwise dask covariance": (n, covariance),
            "scikit-learn PCA": (n, lambda: PCA().fit(np.asarray(array[:]))),
            "scikit-learn IncrementalPCA": (n, incremental),
            "notebook: PCA + nine histograms": (n, notebook),
        }
        try:
            from dask_ml import decomposition

            peers["dask-ml PCA"] = (n, lambda: decomposition.PCA(svd_solver="full").fit(lazy))
        except ImportError:
            pass
        times: dict[str, list[float]] = {name: [] for name in peers}
        for turn in range(options.rounds + 1):
            for name, (rows, peer) in peers.items():
                start = time.perf_counter()
                peer()
                if turn:
                    times[name].append((time.perf_counter() - start) / rows * 1e9)
    ours = statistics.median(times["filterdb moments pass"])
    print(f"ours {segment.rows:,} filters, peers {n:,}; {options.threads} threads, {options.rounds} rounds")
    print("| contender | ns per filter, median (min–max) | times ours |\n|---|---|---|")
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"| {name} | {middle:,.0f} ({min(taken):,.0f}–{max(taken):,.0f}) | {middle / ours:.1f} |")


if __name__ == "__main__":
    main()
