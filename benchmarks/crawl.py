"""A crawl of many small models from a web server on this machine, against plain GETs of the same files.

Each size is a process of its own, with the settings of filterdb's workers for malloc: without them, freed memory of
threads stays with the process. Its peak memory is that of one crawl, with the processes that read the files. Every
model is fetched twice (to be read, and to be written), and asked for its ETag; the GETs fetch it once, with the same
client and as many threads. The ratio says what filterdb adds; `again` is a run in which everything is stored already.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil  # type: ignore[import-untyped]

import filterdb as fdb
from filterdb.store import download

sys.path.append(str(Path(__file__).parents[1]))
from tests import site
from tests.models import chain


def serve(folder: Path, channel: Any) -> None:
    """Serve the models of a folder until the channel closes, in a process of its own."""
    with site.serving() as served:
        served.files.update({f"/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.onnx"))})
        channel.send(served.url)
        channel.recv()


class Peak:
    """The largest memory of this process and its children, sampled; memory that they share counts once for each."""

    def __init__(self) -> None:
        self.own = self.all = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.1):
            own = me.memory_info().rss
            sizes = [own]
            for child in me.children(recursive=True):
                try:
                    sizes.append(child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            self.own, self.all = max(self.own, own), max(self.all, sum(sizes))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def measure(url: str, count: int, threads: int, rounds: int) -> dict[str, Any]:
    """Return the times and the memory of a crawl of `count` models."""
    names = [f"{i:04}" for i in range(count)]
    times: dict[str, list[float]] = {"GETs": [], "crawl": [], "again": []}
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads", num_workers=threads):
        place = Path(folder)
        rows = "".join(f"{url}/{name}.onnx,{name}\n" for name in names)
        (place / "crawl.csv").write_text(f"path,name\n{rows}")

        def get(name: str) -> None:
            target = place / name
            download.fetch(f"{url}/{name}.onnx", target)
            target.unlink()

        def crawl(db: str, every: int | None) -> int:
            return len(fdb.ingest(place / db, catalog=place / "crawl.csv", commit_every=every).added)

        fdb.ingest(place / "warm", [f"{url}/0000.onnx"])  # imports, and the processes that read
        peak = Peak()
        with peak:
            for number in range(rounds):
                began = time.monotonic()
                with ThreadPoolExecutor(threads) as pool:
                    list(pool.map(get, names))
                times["GETs"].append(time.monotonic() - began)
                for kind in ("crawl", "again"):
                    began = time.monotonic()
                    assert crawl(str(number), 100) == (count if kind == "crawl" else 0)
                    times[kind].append(time.monotonic() - began)
    seconds = {kind: statistics.median(values) for kind, values in times.items()}
    return {"models": count, **seconds, "own": peak.own, "all": peak.all}


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[200, 800])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        url, count = options.measure
        print(json.dumps(measure(url, int(count), options.threads, options.rounds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        shape = (options.channels, options.channels, 3, 3)
        for i in range(max(options.models)):
            chain(Path(folder) / f"{i:04}.onnx", *(rng.standard_normal(shape, dtype=np.float32) for _ in range(2)))
        size = (Path(folder) / "0000.onnx").stat().st_size
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(Path(folder), theirs), daemon=True)
        server.start()
        url = ours.recv()
        print(f"models of {size:,} bytes, {options.threads} threads, {options.rounds} rounds, a commit every 100\n")
        print("| models | plain GETs, s | crawl, s | crawl ÷ GETs | again, s | peak RSS, MiB | with readers, MiB |")
        print("|---|---|---|---|---|---|---|")
        for count in options.models:
            command = [sys.executable, __file__, "--threads", str(options.threads), "--rounds", str(options.rounds)]
            done = subprocess.run(
                [*command, "--measure", url, str(count)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env={**os.environ, "MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "65536"},
            )
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {count} | {row['GETs']:.1f} | {row['crawl']:.1f} | {row['crawl'] / row['GETs']:.1f} "
                f"| {row['again']:.1f} | {row['own'] / 2**20:.0f} | {row['all'] / 2**20:.0f} |"
            )
        ours.send(None)
        server.join()


if __name__ == "__main__":
    main()
