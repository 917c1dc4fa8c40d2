"""The commands `import-hdf5` and `reduce` as whole processes, in turns with peers on the same rows.

From each time, that of the same process on a thousandth of the rows is subtracted: starting Python, imports, reading
compiled loops. `reduce` makes all three readings: moments and basis, extremes, histograms. The peers read the filters
from a Zarr array; each is what its users would write, see `peers.py`.
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
from functools import partial
from itertools import cycle
from pathlib import Path

import h5py
import numpy as np
import peers

import filterdb as fdb

sys.path.append(str(Path(__file__).parents[1]))
from tests.models.published.published import frame, write_csv

CHANNELS = [64] * 6 + [128] * 7 + [256] * 11 + [512] * 5
"""Channels of the 3×3 convolutions of a ResNet-34, of which the published file of the benchmark consists."""

PEERS = ("da.linalg.svd", "notebook: full SVD, nine histograms", "notebook with today's default")

_PEER = "import sys, peers; peers.peers(sys.argv[2], scaled=False)[sys.argv[1]]()"

_SMALL = 1_000
"""The part of the rows whose time is subtracted."""

Times = tuple[float, float]
"""Seconds of the clock, and of CPUs."""


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


def process(*arguments: str | Path) -> Times:
    """Run Python in a process of its own, and return the seconds that it took."""
    began = time.perf_counter()
    started = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    _, status, usage = os.wait4(started.pid, 0)
    if status:
        raise SystemExit(f"{arguments}: ended with status {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


def contenders(place: Path, filters: int) -> tuple[dict[str, Callable[[], Times]], int]:
    """Return what is timed, by name, on a new file of about so many filters; and how many they are."""
    place.mkdir()
    file, db = place / "published.h5", place / "db"
    filters = published(file, filters)
    kept = place / "kept"
    fdb.import_hdf5(kept, file)
    rows = peers.copy(fdb.open(kept), str(place), filters, scaled=False)

    def imported() -> Times:
        shutil.rmtree(db, ignore_errors=True)
        return process("-m", "filterdb", "import-hdf5", db, file)

    def reduced() -> Times:
        shutil.rmtree(kept / "summaries")
        return process("-m", "filterdb", "reduce", kept)

    runs = {"filterdb import-hdf5": imported, "filterdb reduce": reduced}
    return {**runs, **{name: partial(process, "-c", _PEER, name, rows) for name in PEERS}}, filters


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filters", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small, few = contenders(Path(folder, "small"), options.filters // _SMALL)
        large, many = contenders(Path(folder, "large"), options.filters)
        times: dict[str, list[Times]] = {name: [] for name in large}
        for turn in range(options.rounds + 1):
            for name, run in large.items():
                clock, cpu = (b - a for a, b in zip(small[name](), run(), strict=True))
                if turn:  # the first round fills caches
                    times[name].append((clock / (many - few) * 1e9, cpu / (many - few) * 1e9))
    print(
        f"{many:,} filters, whole processes less those on {few:,} filters, {options.rounds} rounds, median (min–max)\n"
    )
    print("| process | ns per filter | CPU ns per filter | times `reduce` |\n|---|---|---|---|")
    reduce = statistics.median(clock for clock, _ in times["filterdb reduce"])
    for name, taken in times.items():
        clocks, cpus = zip(*taken, strict=True)
        shown = [f"{statistics.median(ns):,.1f} ({min(ns):,.1f}–{max(ns):,.1f})" for ns in (clocks, cpus)]
        print(f"| {name} | {' | '.join(shown)} | {statistics.median(clocks) / reduce:.1f}× |")


if __name__ == "__main__":
    main()
