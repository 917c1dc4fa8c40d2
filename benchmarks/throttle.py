"""A proxy in a process of its own that makes a server on this machine as far away and as slow as object storage.

Each request reaches the server late, and each connection gets only so many bytes a second. Loopback has no such limits,
so it cannot show what several requests at a time are worth.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from urllib.parse import urlsplit


@contextmanager
def throttling(upstream: str, latency: float, rate: float) -> Iterator[str]:
    """Yield the endpoint of a proxy that delays requests by `latency` seconds; `rate` is bytes/s of a connection."""
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(far, upstream, latency, rate))
    process.start()
    try:
        yield f"http://127.0.0.1:{near.recv()}"
    finally:
        process.kill()
        process.join()


def _serve(ready: Connection, upstream: str, latency: float, rate: float) -> None:
    asyncio.run(_proxy(ready, upstream, latency, rate))


async def _proxy(ready: Connection, upstream: str, latency: float, rate: float) -> None:
    place = urlsplit(upstream)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(place.hostname, place.port)
        await asyncio.gather(_late(reader, up_writer, latency), _slow(up_reader, writer, rate))

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 20):
            await asyncio.sleep(latency)
            writer.write(data)
            await writer.drain()
    writer.close()


async def _slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
    loop = asyncio.get_running_loop()
    free = loop.time()
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
            free = max(free, loop.time()) + len(data) / rate
            await asyncio.sleep(free - loop.time())
    writer.close()
