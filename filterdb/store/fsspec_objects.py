"""fsspec's file systems as clients of object stores, s3fs among them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from filterdb.store import remote
from filterdb.store.local import ObjectInfo
from filterdb.store.objects import in_turns, read_all

if TYPE_CHECKING:
    from zarr.abc.store import Store


@dataclass(frozen=True, slots=True)
class FsspecObjects:
    """The objects of a store that fsspec can open."""

    def read(self, url: str) -> bytes:
        return remote.read(url)

    def read_many(self, urls: Sequence[str]) -> list[bytes | Exception]:
        files = remote.filesystem(urls[0])
        if not files.async_impl:
            return [_attempt(url) for url in urls]

        async def read(url: str) -> bytes:
            return bytes(await files._cat_file(url, **remote.one_get(url)))

        return read_all(files.loop, read, urls)

    def read_sized(self, url: str, size: int) -> memoryview:
        del size
        return memoryview(self.read(url))

    def reading_bytes(self, size: int) -> int:
        return 2 * size  # file systems join the pieces that they receive

    def entries(self, root: str, prefix: str) -> Iterator[tuple[str, ObjectInfo]]:
        url = f"{root}/{prefix}" if prefix else root
        base = remote.filesystem(url)._strip_protocol(root)
        for key, info in self._listing(url).items():
            name = key.removeprefix(base).lstrip("/")
            if name:  # some stores list the folder itself after an object in it was removed
                yield name, ObjectInfo(None if info.get("size") is None else int(info["size"]), _modified(info))

    def _listing(self, url: str) -> dict[str, Any]:
        if not url.startswith("s3://"):
            listing: dict[str, Any] = remote.call(url, "find", url, detail=True)
            return listing
        # With a path and no prefix, s3fs 2026.9 asks with two more requests whether an empty folder is an object.
        bucket, _, key = url.removeprefix("s3://").partition("/")
        listing = remote.call(url, "find", bucket, prefix=f"{key}/" if key else "", detail=True, refresh=True)
        return listing

    def create(self, url: str, data: bytes) -> None:
        remote.call(url, "pipe_file", url, data, mode="create", seconds=remote.writing_seconds(len(data)))

    def put(self, objects: Mapping[str, bytes | memoryview]) -> None:
        files = remote.filesystem(next(iter(objects)))
        if not files.async_impl:
            files.pipe({url: bytes(data) for url, data in objects.items()})
            return
        # fsspec's own `pipe` would leave requests running after the time limit. botocore 1.43 waits for `100 Continue`
        # only before it sends bytes: a bytearray that the store refuses would be sent in vain.
        puts = [partial(files._pipe_file, url, bytes(data)) for url, data in objects.items()]
        seconds = remote.writing_seconds(sum(map(len, objects.values())))
        remote.run(files.loop, lambda: in_turns(puts), seconds)

    def remove(self, url: str) -> None:
        remote.call(url, "rm_file", url)

    def zarr(self, url: str, *, read_only: bool) -> Store:
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(
            url, storage_options={**remote.options(url), **remote.one_get(url)}, read_only=read_only
        )


def _attempt(url: str) -> bytes | Exception:
    try:
        return remote.read(url)
    except Exception as error:  # noqa: BLE001 - the caller reads the object again, which raises it
        return error


def _modified(info: Mapping[str, Any]) -> float:
    """Return when a listed object was written, in POSIX seconds; NaN if the store does not say."""
    for name in ("LastModified", "last_modified", "mtime", "modified", "created", "updated"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return math.nan
