"""Chunks of an object store as far away as a real one: one GET of a chunk against several ranges of it at a time.

Starts a SeaweedFS server behind a proxy with a latency and a bandwidth of each connection, as object stores have them.
Prints MB/s, and the CPU time of this process for each MB, which does not depend on what else runs on the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import fsspec
import numpy as np
from throttle import throttling

from filterdb.store import clients, objects
from filterdb.store.files import Files

sys.path.append(str(Path(__file__).parents[1]))
from tests import seaweed

CHUNK = 38_748_164
"""Bytes of a chunk of the default size."""


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def main() -> None:
    """Print a row per size of range and client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before a request reaches the server")
    parser.add_argument("--rate", type=float, default=50e6, help="bytes per second of a connection; 0: no proxy")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        seaweed.serving(Path(folder) / "s3") as server,
        throttling(server, options.latency, options.rate) if options.rate else nullcontext(server) as endpoint,
        ThreadPoolExecutor(options.threads) as pool,
    ):
        os.environ.update({**seaweed.KEYS, "AWS_ENDPOINT_URL": endpoint})
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bench")
        files = Files.at("s3://bench/db")
        data = np.random.default_rng(0).bytes(CHUNK)
        names = [f"c/{chunk}" for chunk in range(options.chunks)]
        for name in names:
            files.put({name: data})

        def read(name: str) -> int:
            with files.opened(name, CHUNK) as reader:
                return sum(map(len, reader.pieces(CHUNK)))

        def whole(name: str) -> int:
            return len(files.read(name))

        works: dict[str, tuple[str, str, Callable[[str], int]]] = {}
        for client in ("fsspec", *(["obstore"] if importlib.util.find_spec("obstore") else [])):
            works[f"{client}, one GET, joined"] = client, "1", whole
            for mebibytes in (64, 16, 8, 4, 2):
                works[f"{client}, ranges of {mebibytes} MiB"] = client, str(mebibytes * 2**20), read
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for turn in range(options.rounds + 1):
            for name, (client, size, work) in works.items():
                with setting(objects.RANGE_BYTES, size), setting(clients.CLIENT, client):
                    began, cpu = time.perf_counter(), time.process_time()
                    got = sum(pool.map(work, names))
                    seconds = time.perf_counter() - began, time.process_time() - cpu
                assert got == CHUNK * options.chunks
                if turn:
                    results[name].append(seconds)
        megabytes = CHUNK * options.chunks / 1e6
        print(f"{options.chunks} chunks of {CHUNK:,} bytes, {options.threads} threads, {options.rounds} rounds")
        far = f"{options.latency * 1e3:.0f} ms, {options.rate / 1e6:.0f} MB/s per connection"
        print(far if options.rate else "loopback", end="\n\n")
        print("| read | MB/s, median (min–max) | CPU ms per MB |\n|---|---|---|")
        for name, times in results.items():
            speeds = [megabytes / wall for wall, _ in times]
            spent = statistics.median(busy for _, busy in times) / megabytes * 1e3
            print(f"| {name} | {statistics.median(speeds):.0f} ({min(speeds):.0f}–{max(speeds):.0f}) | {spent:.2f} |")


if __name__ == "__main__":
    main()
