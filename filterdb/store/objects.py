"""Clients of object stores: read, list, create, put and remove objects by URL.

The methods raise what the client's libraries raise. `Files` retries them and turns their errors into ours.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from filterdb.errors import UsageError
from filterdb.store import remote
from filterdb.store.local import ObjectInfo

if TYPE_CHECKING:
    from zarr.abc.store import Store

IN_FLIGHT = 32
"""Most objects that one call reads at a time."""

RANGE_BYTES = "FILTERDB_RANGE_BYTES"
"""Environment variable with the most bytes of a request for a part of an object."""

DEFAULT_RANGE_BYTES = 4 * 2**20


class OtherSizeError(Exception):
    """An object does not have the size that was expected."""


def ranges(size: int) -> list[tuple[int, int]]:
    """Return the parts [start, stop) of about equal size in which an object is read. Raises UsageError."""
    text = os.environ.get(RANGE_BYTES, "").strip()
    if text and not (text.isdecimal() and int(text)):
        raise UsageError(f"{RANGE_BYTES}: expected a number of bytes from 1 on, got {text[:40]!r}")
    count = -(-size // (int(text) if text else DEFAULT_RANGE_BYTES))
    return [(size * i // count, size * (i + 1) // count) for i in range(count)]


class Objects(Protocol):
    """What a database needs of a client."""

    def read(self, url: str) -> bytes:
        """Return an object, with one GET."""

    def read_many(self, urls: Sequence[str]) -> list[bytes | Exception]:
        """Read objects with one GET each, IN_FLIGHT at a time. Return the error of an object that cannot be read.

        Raises TimeoutError, without waiting for the others, if the store does not answer for an object.
        """

    def read_sized(self, url: str, size: int) -> memoryview:
        """Return an object that should have `size` bytes. If it has another size, it is returned all the same."""

    def reading_bytes(self, size: int) -> int:
        """Return the memory that `read_sized` needs."""

    def entries(self, root: str, prefix: str) -> Iterator[tuple[str, ObjectInfo]]:
        """Yield each object below a prefix with its name below the root."""

    def create(self, url: str, data: bytes) -> None:
        """Put an object, with a request that fails if it exists."""

    def put(self, objects: Mapping[str, bytes | memoryview]) -> None:
        """Put objects by URL, overwriting existing ones."""

    def remove(self, url: str) -> None:
        """Remove an object. Some stores raise FileNotFoundError if it does not exist."""

    def zarr(self, url: str, *, read_only: bool) -> Store:
        """Open a Zarr store."""


def read_all(
    loop: asyncio.AbstractEventLoop, get: Callable[[str], Awaitable[bytes]], urls: Sequence[str]
) -> list[bytes | Exception]:
    """Read objects as `Objects.read_many` does, each by a call of `get` in an event loop."""

    async def read(url: str) -> bytes | Exception:
        try:
            return await asyncio.wait_for(get(url), remote.READ_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"no answer within {remote.READ_SECONDS:.0f} s") from None
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            return error

    async def every() -> list[bytes | Exception]:
        return await in_turns([partial(read, url) for url in urls])

    return remote.run(loop, every, remote.READ_SECONDS * (1 + len(urls) // IN_FLIGHT))


async def all_or_error[T](calls: Sequence[Awaitable[T]]) -> list[T]:
    """Run calls concurrently and return their results. The first error cancels the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def in_turns[T](calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run calls concurrently, IN_FLIGHT at a time, and return their results. The first error cancels the others."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def in_turn(call: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await call()

    return await all_or_error([in_turn(call) for call in calls])
