"""A crawl of a thousand repositories of a hub on this machine, killed at random moments, against plain ranged reads.

The hub is the tests' stand-in, in a process of its own: every layout, one repository in twenty broken, latency, and
429 now and then. First the crawl is killed `--kills` times and resumed until it is complete; then an undisturbed one
writes another database, and both must be equal. Then the requests to the content delivery network are made again, with
nothing but aiohttp. The ratio says what filterdb adds.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import psutil  # type: ignore[import-untyped]

import filterdb as fdb

sys.path.append(str(Path(__file__).parents[1]))
from tests.hub.server import Asked, Fault, Hub, serving, size
from tests.hub.zoo import is_sound, repository


def serve(folder: Path, count: int, divisor: int, latency: float, end: Connection) -> None:
    """Serve the repositories, and answer each message with the requests since the last one."""
    hub = Hub(latency=latency)
    for number in range(count):
        hub.add(repository(number, divisor, folder))
    with serving(hub):
        end.send(
            (hub.endpoint, hub.cdn, sum(size(data) for r in hub.repositories.values() for data in r.files.values()))
        )
        while end.recv():
            end.send(hub.asked)
            hub.asked = []
            hub.faults = [
                Fault("cdn/", times=1, status=429, headers={"Retry-After": "1"}, skip=200 * i) for i in range(1, 40)
            ]


class Peak:
    """The largest memory of a process and its children together, sampled."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._process = psutil.Process(pid)
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while True:
            try:
                processes = [self._process, *self._process.children(recursive=True)]
                self.bytes = max(self.bytes, sum(process.memory_info().rss for process in processes))
            except psutil.NoSuchProcess:
                if not self._process.is_running():
                    return
            time.sleep(0.2)


def crawl(db: Path, catalog: Path, seconds: float | None, environment: dict[str, str]) -> tuple[bool, int]:
    """Run the command, and kill it after some seconds; return whether it ended by itself, and its largest memory."""
    command = [sys.executable, "-m", "filterdb", "ingest", db, "--catalog", catalog, "--threads", "2", "--json"]
    run = subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = Peak(run.pid)
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        run.wait()
        return False, peak.bytes
    return True, peak.bytes


async def read_plainly(cdn: str, requests: list[Asked], in_flight: int) -> int:
    """Make the same requests to the content delivery network again, and return the bytes."""
    slots = asyncio.Semaphore(in_flight)

    async def one(session: aiohttp.ClientSession, asked: Asked) -> int:
        async with slots, session.get(f"{cdn}{asked.path}", headers={"Range": asked.range}) as response:
            return len(await response.read())

    async with aiohttp.ClientSession() as session:
        return sum(await asyncio.gather(*(one(session, asked) for asked in requests)))


def content(db: Path) -> list[tuple[str, str, str]]:
    """Return model, layer and hash of every layer, sorted."""
    layers = fdb.open(db).layers
    return sorted(
        zip(*(layers[name].values.astype(str).tolist() for name in ("model", "layer_name", "hash")), strict=True)
    )


class Served:
    """The hub in a process of its own, and a catalog of its repositories."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._end, other = multiprocessing.Pipe()
        arguments = (folder / "hub", options.models, options.divisor, options.latency, other)
        multiprocessing.Process(target=serve, args=arguments, daemon=True).start()
        self.endpoint, self.cdn, self.bytes = self._end.recv()
        self.catalog = folder / "crawl.csv"
        names = [f"{number:04}" for number in range(options.models)]
        self.catalog.write_text("path,name\n" + "".join(f"hf://zoo/net-{name},net-{name}\n" for name in names))

    def requests(self) -> list[Asked]:
        """Return the requests since the last call."""
        self._end.send(True)
        asked: list[Asked] = self._end.recv()
        return asked

    def crawl(self, db: Path, seconds: float | None = None) -> tuple[bool, int]:
        """Crawl into a database, with a cache of its own."""
        environment = os.environ | {"HF_ENDPOINT": self.endpoint, "FILTERDB_CACHE": f"{db}-cache"}
        return crawl(db, self.catalog, seconds, environment)

    def share(self, requests: list[Asked]) -> str:
        """Return the share of the repositories' bytes that requests took."""
        return f"{100 * sum(asked.sent for asked in requests) / self.bytes:.1f} % of the bytes"


def main() -> None:
    """Print the figures of one crawl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--divisor", type=int, default=8, help="divide the widths of ResNet-50")
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    moments = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="filterdb-bench-") as place:
        killed_db, db = Path(place) / "killed", Path(place) / "db"
        hub = Served(Path(place), options)
        hub.requests()
        ended, kills = False, 0
        while not ended:
            ended, _ = hub.crawl(killed_db, moments.uniform(10, 60) if kills < options.kills else None)
            kills += not ended
        killed = hub.requests()
        began = time.monotonic()
        _, memory = hub.crawl(db)
        took = time.monotonic() - began
        asked = hub.requests()
        parts = [one for one in asked if one.host == "cdn" and one.method == "GET" and one.status == 206]
        began = time.monotonic()
        asyncio.run(read_plainly(hub.cdn, parts, 8))
        plain = time.monotonic() - began
        sound, stored = sum(map(is_sound, range(options.models))), len(fdb.open(db).models["model"])
        print(f"{options.models} repositories, {hub.bytes / 1e6:,.0f} MB: {sound} sound, {stored} stored")
        print(f"undisturbed: {len(asked):,} requests, {hub.share(asked)}; {memory / 2**20:,.0f} MiB at most")
        print(f"undisturbed: {took:.0f} s; the same parts, plainly: {plain:.0f} s; ratio {took / plain:.2f}")
        same = "the same database" if content(killed_db) == content(db) else "another database"
        print(f"killed {kills} times: {hub.share(killed)}; {same}")


if __name__ == "__main__":
    main()
