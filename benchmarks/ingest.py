"""The ingest against the sum of its parts, and the commands `import-hdf5` and `reduce` as whole processes.

parse: protobuf and weights as arrays, every layer. hash: SHA-256 of the files. write: the same rows written as chunks,
synced to the disk. The ingest also hashes and measures layers, and takes moments and sketches. Times are those of the
wall clock; CPU times are those of the process and its children, and say more on a machine that others use.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path

import dask
import h5py
import numpy as np
from rounds import Contender, interleave, table

import filterdb as fdb
from filterdb.models.inputs import file_digest
from filterdb.models.onnx.graph import parse
from filterdb.models.onnx.layers import read_model
from filterdb.store.files import Files
from filterdb.store.segment import Segment

sys.path.append(str(Path(__file__).parents[1]))
from tests.models import chain
from tests.models.published.published import frame, write_csv

CHANNELS = [64] * 6 + [128] * 7 + [256] * 11 + [512] * 5
"""Channels of the 3×3 convolutions of a ResNet-34, of which the published file of the benchmark consists."""

LIMIT = 1.6
"""What an ingest may take of the time of its parts."""


def _parsed(path: Path) -> None:
    for layer in read_model(path, parse(path)).layers:
        layer.weight().filters.sum()


def compare_parts(place: Path, options: argparse.Namespace) -> None:
    """Print a row for each part of an ingest, one for the whole in threads, and one for each number of processes."""
    rng = np.random.default_rng(0)
    shape = (options.channels, options.channels, 3, 3)
    paths = [place / "models" / f"{i}.onnx" for i in range(options.models)]
    paths[0].parent.mkdir()
    for path in paths:
        chain(path, *[rng.standard_normal(shape, dtype=np.float32) for _ in range(options.layers)])
    filters = options.models * options.layers * options.channels**2
    segment = Segment(Files(str(place / "plain")), "x", filters, 1 << 20)
    block = rng.standard_normal((1 << 20, 9), dtype=np.float32)

    def written(chunk: int) -> None:
        start, stop = segment.bounds(chunk)
        segment.write_chunk(chunk, block[: stop - start])

    def clean() -> None:
        shutil.rmtree(place / "db", ignore_errors=True)
        shutil.rmtree(place / "plain", ignore_errors=True)

    with ThreadPoolExecutor(options.threads) as pool, dask.config.set(scheduler="threads", num_workers=options.threads):
        works = {
            "parse": lambda: list(pool.map(_parsed, paths)),
            "hash": lambda: list(pool.map(file_digest, paths)),
            "write": lambda: list(pool.map(written, range(segment.chunks))),
            "ingest": lambda: fdb.ingest(place / "db", paths),
        }
        times = interleave([Contender(name, filters, work, clean) for name, work in works.items()], options.rounds)
    print(f"{filters:,} filters in {len(paths)} models, {options.threads} threads, {options.rounds} rounds\n")
    print(table(times, "ingest", ratio="share of the ingest", inverse=True))
    parts = [sum(taken) for taken in zip(times["parse"], times["hash"], times["write"], strict=True)]
    ratios = [whole / part for whole, part in zip(times["ingest"], parts, strict=True)]
    print(f"\ningest ÷ (parse + hash + write): {statistics.median(ratios):.2f}, at most {LIMIT}\n")
    compare_processes(place, paths, filters, options.rounds)


def compare_processes(place: Path, paths: list[Path], filters: int, rounds: int) -> None:
    """Print how long an ingest takes on one and on two worker processes of one thread each."""
    times: dict[str, list[float]] = {}
    for workers in (1, 2):
        with fdb.connect("local", workers=workers):
            work = partial(fdb.ingest, place / "db", paths)
            clean = partial(shutil.rmtree, place / "db")
            times |= interleave([Contender(f"{workers} process(es)", filters, work, clean)], rounds)
    print(table(times, "2 process(es)", ratio="times two processes", inverse=True), flush=True)


def published(path: Path, filters: int) -> int:
    """Write a file of the published data set's layout with about so many filters, and return how many they are."""
    layers, first = [], 0
    for number, channels in enumerate(cycle(CHANNELS)):
        if first >= filters:
            break
        last = first + channels**2 - 1
        place = number % len(CHANNELS)
        layers.append((7, place, place / len(CHANNELS), number, [first, last], channels, channels))
        first = last + 1
    write_csv(path, frame(levels=4, layers=layers))
    rng = np.random.default_rng(0)
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset("filters", (first, 3, 3), "f4")
        for start in range(0, first, 1 << 20):
            stop = min(start + (1 << 20), first)
            dataset[start:stop] = rng.standard_normal((stop - start, 3, 3), dtype=np.float32)
    return first


def command(*arguments: str | Path) -> tuple[float, float]:
    """Run a command in a process of its own; return the seconds of the clock and of CPUs that it took."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "filterdb", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments[0]}: ended with status {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


def compare_commands(place: Path, options: argparse.Namespace) -> None:
    """Print what `import-hdf5` and `reduce`, with all three readings, take beyond `info` on the same database."""
    filters, db = published(place / "published.h5", options.filters), place / "imported"
    runs: dict[str, Callable[[], tuple[float, float]]] = {
        "import-hdf5": lambda: command("import-hdf5", db, place / "published.h5"),
        "info (start-up)": lambda: command("info", db),
        "reduce": lambda: command("reduce", db),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        shutil.rmtree(db, ignore_errors=True)
        for name, run in runs.items():
            if name == "reduce":
                shutil.rmtree(db / "summaries")
            times[name].append(run())
    start = [statistics.median(values) for values in zip(*times["info (start-up)"], strict=True)]
    print(f"\n{filters:,} filters, whole processes less start-up, {options.rounds} rounds, median (min–max)\n")
    print("| command | ns per filter | CPU ns per filter |\n|---|---|---|")
    for name, taken in times.items():
        less = [0.0, 0.0] if name.startswith("info") else start
        columns = [[(s - less[i]) / filters * 1e9 for s in values] for i, values in enumerate(zip(*taken, strict=True))]
        shown = [f"{statistics.median(ns):,.1f} ({min(ns):,.1f}–{max(ns):,.1f})" for ns in columns]
        print(f"| {name} | {' | '.join(shown)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--filters", type=int, default=20_000_000, help="in the file that import-hdf5 imports")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare_parts(Path(folder), options)
        compare_commands(Path(folder), options)


if __name__ == "__main__":
    main()
