"""A remote ResNet-50 as safetensors, read by range, against plain ranged reads of the same bytes and the local file.

The hub is the tests' stand-in, in a process of its own on loopback; `--latency` adds seconds to each of its answers.
Contenders take turns in every round, with an empty cache each time. The ratio says what filterdb adds to a GET.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from rounds import Contender, interleave

from filterdb.models.catalog import ModelSource
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan
from filterdb.store import part_cache
from filterdb.store.ranged import IN_FLIGHT

sys.path.append(str(Path(__file__).parents[1]))
from tests.hub.nets import filter_bytes, resnet50, safetensors
from tests.hub.server import Asked, Hub, Repository, serving


def serve(path: Path, latency: float, end: Connection) -> None:
    """Serve one repository, and answer each message with the requests since the last one."""
    hub = Hub(latency=latency)
    hub.add(Repository("org/resnet50", {"model.safetensors": path}))
    with serving(hub):
        end.send(hub.endpoint)
        while end.recv():
            end.send(hub.asked)
            hub.asked = []


async def read_plainly(address: str, requests: list[Asked]) -> int:
    """Make the same requests to the content delivery network, as many at a time, and return the bytes."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(session: aiohttp.ClientSession, asked: Asked) -> int:
        async with slots, session.get(f"{address}{asked.path}", headers={"Range": asked.range}) as response:
            return len(await response.read())

    async with aiohttp.ClientSession() as session:
        return sum(await asyncio.gather(*(one(session, asked) for asked in requests)))


def main() -> None:
    """Print the requests, the share of the bytes, and a row per contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--divisor", type=int, default=1, help="divide the widths of the network")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        path.write_bytes(safetensors(resnet50(options.divisor)))
        os.environ[part_cache.FOLDER] = str(Path(folder) / "cache")
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        server = multiprocessing.get_context("fork").Process(target=serve, args=(path, options.latency, theirs))
        server.start()
        os.environ["HF_ENDPOINT"] = ours.recv()
        try:
            measure(path, options, ours)
        finally:
            ours.send(None)
            server.join()


def measure(path: Path, options: argparse.Namespace, server: Connection) -> None:
    """Take the times and print them."""
    from filterdb.store import hub, ranged

    def requests() -> list[Asked]:
        server.send("requests")
        asked: list[Asked] = server.recv()
        return asked

    def remote() -> None:
        assert scan(ModelSource("remote", "hf://org/resnet50"), None, Limits()).rows

    def local() -> None:
        assert scan(ModelSource("local", str(path)), None, Limits()).rows

    remote()
    asked = requests()
    parts = [request for request in asked if request.host == "cdn"]
    source = ranged.open_source(f"{hub.pin(hub.Place('org/resnet50'))[0].url}/model.safetensors")
    assert isinstance(source, ranged._HttpFile)
    address = source.location.rsplit("/", 1)[0]
    got = sum(request.sent for request in parts)
    assert asyncio.run(read_plainly(address, parts)) == got
    times = interleave(
        [
            Contender("plain ranged reads", 1, lambda: asyncio.run(read_plainly(address, parts))),
            Contender("scan of the local file", 1, local),
            Contender("scan over ranges", 1, remote, lambda: shutil.rmtree(part_cache.root())),
        ],
        options.rounds,
    )
    size = path.stat().st_size
    print(f"{len(asked)} requests, {len(parts)} of them for parts: {got:,} of {size:,} bytes, {got / size:.1%};")
    print(f"the 3×3 filters are {filter_bytes(options.divisor) / size:.1%}\n")
    print("| contender | ms, median (min–max) |\n|---|---|")
    middle = {name: statistics.median(taken) / 1e6 for name, taken in times.items()}
    for name, taken in times.items():
        print(f"| {name} | {middle[name]:,.0f} ({min(taken) / 1e6:,.0f}–{max(taken) / 1e6:,.0f}) |")
    plain, here, there = middle.values()
    print(f"\nscan over ranges / (plain ranged reads + scan of the local file) = {there / (plain + here):.2f}")


if __name__ == "__main__":
    main()
