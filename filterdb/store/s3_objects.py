"""Objects of S3, fetched by s3fs. A large object is fetched as several ranges at a time, into one buffer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from filterdb.store import remote
from filterdb.store.fsspec_objects import FsspecObjects
from filterdb.store.objects import OtherSizeError, all_or_error, ranges

_PIECE = 256 * 1024
"""Most bytes that are copied from a connection's buffer at a time."""

_CONNECTION_BYTES = 3 * _PIECE
"""Memory of a connection. aiohttp 3.14 stops reading from one once its buffer has more than two pieces."""


@dataclass(frozen=True, slots=True)
class S3Objects(FsspecObjects):
    """The objects of S3."""

    def read_sized(self, url: str, size: int) -> memoryview:
        files = remote.filesystem(url)
        buffer = memoryview(np.empty(size, np.uint8))  # unlike a bytearray, not filled with zeros first

        async def fetch() -> None:
            await all_or_error([_fill(files, url, start, buffer[start:stop], size) for start, stop in ranges(size)])

        try:
            remote.run(files.loop, fetch)
        except OtherSizeError:
            return memoryview(self.read(url))
        return buffer.toreadonly()

    def reading_bytes(self, size: int) -> int:
        return size + _CONNECTION_BYTES * len(ranges(size))


async def _fill(files: Any, url: str, start: int, target: memoryview, size: int) -> None:
    """Read a range of an object of `size` bytes into `target`. After a failure, only the rest is requested again.

    Raises OtherSizeError if the object has another size.
    """
    done = 0
    for number in range(1, remote.TRIES + 1):
        try:
            async for piece in _pieces(files, url, start + done, start + len(target), size):
                target[done : done + len(piece)] = piece
                done += len(piece)
            if done < len(target):
                raise ConnectionError(f"expected {len(target):,} bytes, got {done:,}")
            return
        except Exception as error:
            if remote.s3_code(error) in {"InvalidRange", "416"}:
                raise OtherSizeError from None
            if number == remote.TRIES or not remote.may_pass(error):
                raise
            await asyncio.sleep(remote.PAUSE * 2**number)


async def _pieces(files: Any, url: str, start: int, stop: int, size: int) -> AsyncIterator[bytes]:
    """Yield the bytes [start, stop) of an object as they arrive. Raises OtherSizeError if it has not `size` bytes."""
    bucket, key, _ = files.split_path(url)
    reply = await files._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}")
    async with reply["Body"] as body:
        if reply.get("ContentRange") != f"bytes {start}-{stop - 1}/{size}":
            raise OtherSizeError
        while start < stop:
            piece = await body.read(min(stop - start, _PIECE))
            if not piece:
                return
            start += len(piece)
            yield piece
