"""The paper's full size for real: 1,464,797,156 synthetic filters in 21,436 layers of 647 models, and every answer.

Written by the ingest's writer on a worker, then each pass from nothing, each on a fresh cluster of one worker process
with two threads; wall time, throughput, and the most that worker and client held. What the generator knows is checked.
About 53 GB of disk: `--keep` leaves them there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import synthetic
from distributed import Client, LocalCluster

import filterdb as fdb
from filterdb import cluster
from filterdb.engine.moments import SCALED, MomentsReduction, raw_state, state
from filterdb.engine.run import summaries
from filterdb.numerics.histogram import bin_edges
from filterdb.numerics.quality import variance_entropy
from filterdb.numerics.scaling import scale
from filterdb.reduce.basis import layer_histograms, projection
from filterdb.reduce.reductions import ExtremesReduction

FILTERS, LAYERS, MODELS = 1_464_797_156, 21_436, 647
MIB = 2**20


def _bytes_read() -> int:
    """Bytes that this process has asked of files and sockets so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def workers(threads: int) -> Iterator[Client]:
    """A fresh local cluster of one process."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=threads, dashboard_address=None, memory_limit="1GiB") as place,
        Client(place) as client,
    ):
        yield client


def step[Result](name: str, work: Callable[[], Result], filters: int, threads: int) -> Result:
    """Do it on a fresh cluster; print a row of the table."""
    with workers(threads) as client:
        _forget_peak()
        before = _bytes_read() + sum(client.run(_bytes_read).values())
        start = time.perf_counter()
        result = work()
        taken = time.perf_counter() - start
        read = _bytes_read() + sum(client.run(_bytes_read).values()) - before
        peaks = cluster.peak_memory()
    own = peaks.pop("client")
    rate = f"{filters * 36 / taken / 1e9:.2f} GB/s, {taken / filters * 1e9:.1f} ns" if filters else ""
    print(
        f"| {name} | {taken:,.2f} s | {rate} | {read / 1e9:,.3f} GB | {max(peaks.values()) / MIB:,.0f} MiB | "
        f"{own / MIB:,.0f} MiB |",
        flush=True,
    )
    return result


def forget(db: fdb.Database) -> dict[str, bytes]:
    """Remove every summary; gives those of the moments."""
    names = db.files.list("summaries")
    kept = {name: db.files.read(name) for name in names if "/moments" in name}
    db.files.remove(names)
    db.kept.clear()
    return kept


def _drift(url: str, by: str) -> None:
    fdb.drift(fdb.open(url), by=by)


def answers(url: str, threads: int, more: Path | None) -> None:
    """Every pass and every analysis, a row each."""
    db = fdb.open(url)
    filters = int(db.counts["filters"])
    written = forget(db)
    step("moments pass", lambda: summaries(db, MomentsReduction()), filters, threads)
    again = {name: db.files.read(name) for name in written}
    print(f"| … the same bytes as those taken while writing: {again == written} |")
    db, sound = step("basis: fit and commit", lambda: projection(fdb.open(url), "sound"), 0, threads)
    step("extremes pass", lambda: summaries(db, ExtremesReduction(sound.axes)), filters, threads)
    step("histograms pass", lambda: layer_histograms(db, sound), filters, threads)
    for by in ("task", "visual_category", "model", "depth_decile"):
        step(f"drift by {by}, a new process's", partial(_drift, url, by), 0, threads)
    step("degeneration", lambda: fdb.degeneration(fdb.open(url)), 0, threads)
    out = Path(f"{url}-drift.zarr")
    step(
        f"layer drift, {db.layers.sizes['layer']:,}², to Zarr",
        lambda: fdb.drift(fdb.open(url), by="layer", out=out),
        0,
        threads,
    )
    shutil.rmtree(out)
    if more is not None:

        def add() -> None:
            grown = fdb.ingest(url, [more]).database
            fdb.drift(grown, by="model")

        step("one model more: ingest, drift by model", add, 0, threads)


def check(url: str, number: int, models: int) -> None:
    """What the generator knows, against the results."""
    db = fdb.open(url, 0)
    found = synthetic.layers(int(db.counts["filters"]), number)
    (moments,) = summaries(db, MomentsReduction())
    raw, scaled = raw_state(moments), state(moments, SCALED)
    kinds = np.array([layer.kind for layer in found])
    assert (raw.count == [layer.size for layer in found]).all()
    print(f"- counts: {raw.count.sum():,} filters in {number:,} layers of {models} models, each layer exact")
    # Covariances A·Aᵀ: the diagonal's relative error is N(0, 2/(n-1)) for Gaussians.
    many = (raw.count >= 1_000) & (kinds != "dead")
    truth = np.stack([layer.factor.astype(float) @ layer.factor.astype(float).T for layer in found])
    diagonal = np.einsum("lii->li", truth)[many]
    z = (np.einsum("lii->li", raw.covariance)[many] / diagonal - 1) * np.sqrt((raw.count[many, None] - 1) / 2)
    print(f"- variances against A·Aᵀ, {z.size:,} of them: z has {spread(z)}")
    for name, states in (("raw", raw), ("scaled", scaled)):
        z = states.mean[many] / np.sqrt(np.einsum("lii->li", states.covariance)[many] / states.count[many, None])
        print(f"- {name} means against 0: z has {spread(z)}")
    verdict = fdb.degeneration(db)["verdict"].values
    ratios = np.linalg.eigvalsh(truth)[:, ::-1].clip(0)
    ratios /= np.maximum(ratios.sum(axis=1, keepdims=True), 1e-300)
    expected = {
        "dead": kinds == "dead",
        "collapsed": (10 ** variance_entropy(ratios) < 2) & (raw.count >= 64),
        "random": kinds == "random",
    }
    for j, (name, drawn) in zip((0, 2, 3), expected.items(), strict=True):
        print(
            f"- verdict {name}: {int((verdict[:, j] & drawn).sum())} of {int(drawn.sum())} drawn so "
            f"({int((drawn & (raw.count >= 64)).sum())} of them with 64 filters or more), "
            f"{int((verdict[:, j] & ~drawn).sum())} others"
        )
    spot_check(db, found)


def spread(z: np.ndarray) -> str:
    """Of what should be standard normal."""
    return f"rms {np.sqrt((z**2).mean()):.3f}, largest {np.abs(z).max():.2f}"


def spot_check(db: fdb.Database, found: list[synthetic.Layer]) -> None:
    """Some layers drawn again and computed by NumPy: moments, extremes, histograms."""
    db, sound = projection(db, "sound")
    (moments,) = summaries(db, MomentsReduction())
    (extremes,) = summaries(db, ExtremesReduction(sound.axes))
    histograms = layer_histograms(db, sound)
    mean, components = sound.axes.arrays
    edges = bin_edges(sound.low, sound.high)
    rng = np.random.default_rng(1)
    chosen = [i for i in rng.choice(len(found), 60, replace=False) if found[i].size < 500_000][:40]
    apart = 0
    with workers(2) as client:  # with one BLAS thread, as they were drawn: more round differently
        drawn = [client.submit(found[i].rows, 0, found[i].size).result().T for i in chosen]
    for i, rows in zip(chosen, drawn, strict=True):
        filters = scale(rows)
        own = state(moments, SCALED).pick(i)
        np.testing.assert_allclose(own.mean, filters.mean(axis=0), rtol=0, atol=1e-12)
        centred = filters - filters.mean(axis=0)
        np.testing.assert_allclose(own.m2, centred.T @ centred, rtol=0, atol=1e-12 * len(filters))
        coefficients = (filters - mean) @ components.T
        np.testing.assert_allclose(extremes["smallest"][i], coefficients.min(axis=0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(extremes["largest"][i], coefficients.max(axis=0), rtol=0, atol=1e-12)
        expected = np.stack([np.histogram(coefficients[:, k], edges)[0] for k in range(9)])
        apart += int(np.abs(expected - histograms["counts"][i]).sum())
    assert not histograms["underflow"].any() and not histograms["overflow"].any()
    total = sum(found[i].size for i in chosen)
    print(f"- {len(chosen)} layers drawn again, {total:,} filters: moments to 1e-12, extremes to 1e-12,")
    print(f"  histogram counts apart from numpy.histogram's: {apart} of {9 * total:,}; outside the range: 0")


def main() -> None:
    """Write, answer, check, delete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="a local folder that does not exist, or one that --keep has left")
    parser.add_argument("--filters", type=int, default=FILTERS)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--models", type=int, default=MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--more", type=Path, help="an ONNX model to add at the end")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    print("| step | wall time | filters | read | worker's peak | client's peak |\n|---|---|---|---|---|---|")
    if not Path(options.url).exists():
        free = shutil.disk_usage(Path(options.url).parent).free
        if free < options.filters * 38:
            raise SystemExit(f"expected {options.filters * 38 / 1e9:.0f} GB of free disk, got {free / 1e9:.0f} GB")
        sizes = options.filters, options.layers, options.models
        step("write, moments with it", lambda: synthetic.make(options.url, *sizes), options.filters, options.threads)
    os.sync()
    answers(options.url, options.threads, options.more)
    print()
    check(options.url, options.layers, options.models)
    held = [path.stat().st_size for path in Path(options.url).rglob("*") if path.is_file()]
    print(f"- on disk: {sum(held):,} bytes in {len(held):,} objects")
    if not options.keep:
        shutil.rmtree(options.url)


if __name__ == "__main__":
    main()
