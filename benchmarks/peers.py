"""Peers side by side: moments and basis of max-scaled filters, interleaved rounds, ns per filter, peak memory.

Two tables: first the peers get filters that were scaled for them beforehand, while ours reads raw ones and scales
them; then everybody gets raw filters. Each peer is what its users would write. The peak of each is measured in a
process of its own, above what it held before. dask-ml is timed where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import zarr
from rounds import Contender, interleave, table
from sklearn.decomposition import PCA, IncrementalPCA

import filterdb as fdb
from filterdb import cluster
from filterdb.engine.graph import build
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.reduction import LayerReduction
from filterdb.numerics.scaling import scale
from filterdb.reduce.basis import fit_basis
from filterdb.reduce.reductions import Axes, ExtremesReduction, HistogramsReduction
from filterdb.store import summary

OURS = "filterdb: moments pass"
OURS_ALL = "filterdb: moments, basis, extremes, histograms (three readings)"


def copy(db: fdb.Database, folder: str, n: int, *, scaled: bool) -> str:
    """The first n filters in an array of their own, rows first, chunks of the same size."""
    (segment,) = db.segments
    path = str(Path(folder) / f"{'scaled' if scaled else 'raw'}.zarr")
    array = zarr.create_array(path, shape=(n, 9), chunks=(segment.chunk_rows, 9), dtype="f4", compressors=None)
    for chunk in range(-(-n // segment.chunk_rows)):
        start, stop = segment.bounds(chunk)
        filters = segment.read_chunk(chunk)[: min(stop, n) - start]
        array[start : min(stop, n)] = scale(filters) if scaled else filters
    return path


def whole(path: str, *, scaled: bool) -> np.ndarray:
    """All filters in memory, scaled."""
    filters = np.asarray(zarr.open_array(path, mode="r")[:])
    if scaled:
        return filters
    largest = np.abs(filters).max(axis=1, keepdims=True)
    return filters / np.where(largest > 0, largest, 1)


def lazy(path: str, *, scaled: bool) -> da.Array:
    """All filters as a Dask array, scaled."""
    filters = da.from_zarr(path)
    if scaled:
        return filters
    largest = da.abs(filters).max(axis=1, keepdims=True)
    return filters / da.where(largest > 0, largest, 1)


def notebook(path: str, *, scaled: bool, solver: str) -> None:
    """P1's notebook: PCA of everything, then nine histograms of the coefficients."""
    filters = whole(path, scaled=scaled)
    found = PCA(svd_solver=solver).fit(filters)
    coefficients = found.transform(filters)
    low, high = coefficients.min(), coefficients.max()
    for k in range(9):
        np.histogram(coefficients[:, k], bins=70, range=(low, high))


def covariance(path: str, *, scaled: bool) -> None:
    """Blockwise covariance on Dask, then eigh."""
    filters = lazy(path, scaled=scaled).astype("f8")
    centred = filters - filters.mean(axis=0)
    np.linalg.eigh(dask.compute(centred.T @ centred)[0])


def incremental(path: str, *, scaled: bool) -> None:
    """scikit-learn's PCA in batches, a chunk each."""
    array, model = zarr.open_array(path, mode="r"), IncrementalPCA()
    for chunk in range(array.nchunks):
        filters = np.asarray(array.blocks[chunk])
        if not scaled:
            largest = np.abs(filters).max(axis=1, keepdims=True)
            filters = filters / np.where(largest > 0, largest, 1)
        model.partial_fit(filters)


def dask_svd(path: str, *, scaled: bool) -> None:
    """da.linalg.svd of the centred filters."""
    filters = lazy(path, scaled=scaled)
    dask.compute(*da.linalg.svd(filters - filters.mean(axis=0))[1:])


def dask_ml(path: str, *, scaled: bool) -> None:
    """dask-ml's PCA."""
    from dask_ml import decomposition

    filters = lazy(path, scaled=scaled)
    filters.compute_chunk_sizes()
    decomposition.PCA(svd_solver="full").fit(filters)


def ours(url: str, *, every: bool) -> None:
    """Our passes, nothing taken from summaries, nothing left behind."""
    db = fdb.open(url)
    (segment,), tables = db.segments, db.tables[0]

    def run(reduction: LayerReduction) -> None:
        dask.compute(build(segment, tables, [reduction]))
        summary.remove_parts(segment.files, segment.id, reduction.key)

    run(MomentsReduction())
    if every:
        basis = fit_basis(db)
        mean, components, _ = basis.arrays()
        axes = Axes.of(mean, components, scaled=True)
        run(ExtremesReduction(axes))
        run(HistogramsReduction(axes, *basis.range))


def _child(pipe: Connection, work: Callable[[], object], threads: int) -> None:
    with dask.config.set(scheduler="threads", num_workers=threads):
        Path("/proc/self/clear_refs").write_text("5")
        before = cluster.peak_memory()["client"]
        work()
        pipe.send(cluster.peak_memory()["client"] - before)


def peak_of(work: Callable[[], object], threads: int) -> int:
    """The most that a process of its own has held while it did it, less what it held before."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(there, work, threads))
    process.start()
    there.close()
    held = int(here.recv())
    process.join()
    return held


def scikit(path: str, *, scaled: bool, solver: str) -> None:
    """scikit-learn's PCA of everything: `full` is what P1's notebook ran, `auto` takes the covariance today."""
    PCA(svd_solver=solver).fit(whole(path, scaled=scaled))


def peers(path: str, *, scaled: bool) -> dict[str, Callable[[], None]]:
    """What each peer does, by name."""
    found: dict[str, Callable[[], None]] = {
        "da.linalg.svd": partial(dask_svd, path, scaled=scaled),
        "blockwise dask covariance": partial(covariance, path, scaled=scaled),
        "scikit-learn PCA, full SVD": partial(scikit, path, scaled=scaled, solver="full"),
        "scikit-learn PCA, today's default": partial(scikit, path, scaled=scaled, solver="auto"),
        "scikit-learn IncrementalPCA": partial(incremental, path, scaled=scaled),
        "notebook: full SVD, nine histograms": partial(notebook, path, scaled=scaled, solver="full"),
        "notebook with today's default": partial(notebook, path, scaled=scaled, solver="auto"),
    }
    if importlib.util.find_spec("dask_ml"):
        found["dask-ml PCA"] = partial(dask_ml, path, scaled=scaled)
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="a local database of one segment, such as benchmarks/synthetic.py makes")
    parser.add_argument("--filters", type=int, default=4_000_000, help="how many of them the peers get")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    db = fdb.open(options.url)
    (segment,) = db.segments
    n = min(options.filters, segment.rows)
    mine = {OURS: partial(ours, options.url, every=False), OURS_ALL: partial(ours, options.url, every=True)}
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads", num_workers=options.threads):
        print(f"ours {segment.rows:,} filters, peers {n:,}; {options.threads} threads, {options.rounds} rounds")
        for scaled in (True, False):
            works = peers(copy(db, folder, n, scaled=scaled), scaled=scaled)
            print(f"\nfilters {'scaled beforehand for the peers' if scaled else 'raw, scaled by each'}\n", flush=True)
            contenders = [Contender(name, segment.rows, work) for name, work in mine.items()]
            contenders += [Contender(name, n, work) for name, work in works.items()]
            times = interleave(contenders, options.rounds)
            held = {name: peak_of(work, options.threads) for name, work in (mine | works).items()}
            print(table(times, OURS, ratio="times ours", inverse=True, peaks=held))


if __name__ == "__main__":
    main()
