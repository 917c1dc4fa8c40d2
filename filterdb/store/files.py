"""Bytes in and out of a folder or an object store."""

from __future__ import annotations

import errno
import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from filterdb.errors import DamageError, InputError, StoreError, StoreMissingError, UsageError
from filterdb.redaction import has_credentials, redact_url
from filterdb.store import local, remote
from filterdb.store.local import Found
from filterdb.store.remote import LOST, is_remote, retried, store_errors

if TYPE_CHECKING:
    from zarr.abc.store import Store

_PIECE = 256 * 1024
"""Bytes read at a time where they are only looked at: what fits the second-level cache."""


@dataclass(frozen=True, slots=True)
class Files:
    """A root below which everything of a database lies: an absolute local path, or a URL that fsspec knows.

    Only the root travels to workers; credentials come from each process's own environment.
    """

    root: str

    @classmethod
    def at(cls, url: str | os.PathLike[str]) -> Files:
        """The root at a path or URL; `file://` and relative paths become absolute local paths.

        Raises UsageError for a URL with credentials (the root stands in messages, results and tasks), and for none.
        """
        text = os.fspath(url)
        if not text:
            raise InputError("database: expected a path or URL, got an empty text")
        if is_remote(text) and has_credentials(text):
            raise UsageError(
                f"{redact_url(text)}: expected a URL without user, password, query or fragment; set credentials in the "
                "environment (AWS_…) or in fsspec's configuration"
            )
        if is_remote(text):
            _check_address(text)
        return cls(text.rstrip("/") if is_remote(text) else str(Path(local_path(text)).absolute()))

    @property
    def remote(self) -> bool:
        """Whether the root lies behind fsspec."""
        return is_remote(self.root)

    def url(self, name: str) -> str:
        """The full address of an object, for messages and for opening it."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """The bytes of an object. Raises StoreMissingError where there is none."""
        url = self.url(name)
        with store_errors("reading", url):
            return retried(lambda: bytes(remote.call(url, "cat_file", url))) if self.remote else Path(url).read_bytes()

    def read_valid[T](self, name: str, decode: Callable[[bytes], T]) -> T:
        """What `decode` makes of an object. Where it finds damage (DamageError), `untrusting` asks once more."""
        return self.untrusting(lambda: decode(self.read(name)))

    def untrusting[T](self, attempt: Callable[[], T]) -> T:
        """The result of `attempt`; after a DamageError made anew, where the wire may have done it and not the store."""
        for number in range(1, remote.TRIES if self.remote else 1):
            try:
                return attempt()
            except DamageError:
                remote.pause(number)
        return attempt()

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of several objects, at the same time; those that are not there are left out."""
        if not self.remote:
            found = {}
            for name in names:
                with suppress(StoreMissingError):
                    found[name] = self.read(name)
            return found
        urls = {self.url(name): name for name in names}
        with store_errors("reading", self.root):
            got = retried(lambda: remote.call(self.root, "cat", list(urls), on_error="return")) if urls else {}
        bytes_of = {}
        keys = {remote.filesystem(self.root)._strip_protocol(url): name for url, name in urls.items()}
        for key, data in got.items():
            name = urls.get(key) or keys[key]
            if isinstance(data, bytes):
                bytes_of[name] = data
            else:  # once more by itself: tried again, or its own error
                with suppress(StoreMissingError):
                    bytes_of[name] = self.read(name)
        return bytes_of

    @contextmanager
    def opened(self, name: str) -> Iterator[Reader]:
        """An object to read without a copy of it. An object store's is fetched whole, with one request."""
        if self.remote:
            yield _Fetched(self.read(name))
            return
        url = self.url(name)
        with store_errors("reading", url), Path(url).open("rb", buffering=0) as file:
            yield _Local(file, os.fstat(file.fileno()).st_size)

    def list(self, prefix: str) -> dict[str, int | None]:
        """Return the objects below a prefix, name → size in bytes (None unknown), by name; {} where there are none."""
        return {name: found.size for name, found in self.entries(prefix).items()}

    def entries(self, prefix: str) -> dict[str, Found]:
        """Objects below a prefix, with size and time, sorted by name; {} where there are none."""
        url = self.url(prefix)
        with store_errors("listing", url):
            return dict(sorted(self._remote_entries(url) if self.remote else local.walk(Path(url), prefix)))

    def unfinished(self) -> dict[str, Found]:
        """What writers that were killed have left beside objects: nothing where a store has no such thing."""
        return {} if self.remote else dict(local.walk(Path(self.root), "", unfinished=True))

    def _remote_entries(self, url: str) -> Iterator[tuple[str, Found]]:
        refresh = {"refresh": True} if self.root.startswith("s3://") else {}
        root = remote.filesystem(url)._strip_protocol(self.root)
        listing = retried(lambda: remote.call(url, "find", url, detail=True, **refresh))
        for key, info in listing.items():
            name = key.removeprefix(root).lstrip("/")
            if name:  # a store may list the folder itself, once an object below it was removed
                yield name, Found(None if info["size"] is None else int(info["size"]), _modified(info))

    def create(self, name: str, data: bytes) -> bool:
        """Put an object where there is none. True: these bytes stand there now; False: other bytes did before.

        Safe under races and lost replies: whatever the put answers, what counts is what is read back. The bytes must
        therefore tell their writer (a nonce) or be the same for every writer (addressed by content).
        """
        url = self.url(name)
        if not self.remote:
            with store_errors("writing", url):
                try:
                    local.create(Path(url), data)
                    return True
                except FileExistsError:
                    return self.read(name) == data

        def attempt() -> bool:
            try:
                seconds = remote.writing_seconds(len(data))
                remote.call(url, "pipe_file", url, data, mode="create", seconds=seconds)
                return True
            except LOST as error:
                try:
                    return self.read(name) == data
                except StoreMissingError:
                    raise error from None

        with store_errors("writing", url):
            return retried(attempt)

    def put(self, objects: Mapping[str, bytes | bytearray]) -> None:
        """Put objects, over what stands there: only for bytes that are the same whoever writes them."""
        if not objects:
            return
        if not self.remote:
            with store_errors("writing", self.url(next(iter(objects)))):
                local.replace({Path(self.url(name)): data for name, data in objects.items()})
            return
        by_url = {self.url(name): bytes(data) for name, data in objects.items()}
        seconds = remote.writing_seconds(sum(map(len, by_url.values())))
        with store_errors("writing", next(iter(by_url))):
            retried(lambda: remote.call(self.root, "pipe", by_url, seconds=seconds))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects that may be gone already."""
        for name in names:
            url = self.url(name)
            with suppress(StoreMissingError), store_errors("removing", url):
                if self.remote:
                    retried(lambda url=url: remote.call(url, "rm_file", url))  # type: ignore[misc]
                else:
                    Path(url).unlink()
                    self._remove_empty(Path(url).parent)

    def _remove_empty(self, folder: Path) -> None:
        """Remove the folders that an object leaves empty: an object store has none either."""
        while str(folder) != self.root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def check_writable(self) -> None:
        """Raise StoreError where nothing can be put below this root, before the work whose result goes there."""
        name = f".filterdb-probe-{uuid4().hex}"
        place, key = self, name
        bucket, _, path = self.root.partition("://")[2].partition("/")
        if self.remote and bucket and path:
            # Beside it: some stores list a folder for minutes after its last object was removed, as data for Zarr.
            folder, _, last = self.root.rpartition("/")
            place, key = Files(folder), f"{last}{name}"
        is_new = not self.remote and not Path(self.root).exists()
        place.put({key: b""})
        with suppress(StoreError):  # some may put and not remove
            place.remove([key])
        if is_new:
            with suppress(OSError):
                Path(self.root).rmdir()

    def probe(self) -> None:
        """Raise StoreError where this place cannot be written, or lets a second writer overwrite the first.

        Two puts where there is none, under a name of our own: the second must be refused.
        """
        name = f"ingests/probe-{uuid4().hex}"
        is_new = not self.remote and not Path(self.root).exists()
        first = self.create(name, b"first")
        second = self.create(name, b"second")
        stands = self.read(name)
        self.remove([name])
        if is_new:
            with suppress(OSError):
                Path(self.root).rmdir()  # nothing is kept of a place where nothing may come to stand
        if not first or second or stands != b"first":
            raise StoreError(
                f"{self.root}: expected a store that refuses to put over what is there (If-None-Match: *), this one "
                "overwrites; two writers would lose data, keep the database in another store"
            )

    def zarr(self, name: str, *, read_only: bool) -> Store:
        """The Zarr store at a name."""
        from zarr.storage import FsspecStore, LocalStore

        url = self.url(name)
        if not self.remote:
            return LocalStore(url, read_only=read_only)
        return FsspecStore.from_url(url, storage_options=remote.options(url), read_only=read_only)


def _check_address(url: str) -> None:
    """Raise UsageError for a URL that names no host or bucket."""
    try:
        parts = urlsplit(url)
        named = bool(parts.netloc) and (parts.scheme not in {"http", "https"} or bool(parts.hostname))
        _ = parts.port if parts.scheme in {"http", "https"} else None
    except ValueError:
        named = False
    scheme, place = url.split("://", 1)
    if (not named and scheme in {"http", "https", "s3"}) or not place.strip("/"):
        raise UsageError(f"{url}: expected a URL that names a host or bucket, as s3://bucket/db, got one that does not")


def _modified(info: Mapping[str, Any]) -> float:
    """When an object of a listing was written, POSIX seconds; NaN where the store does not say."""
    for name in ("LastModified", "last_modified", "mtime", "modified", "created", "updated"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return math.nan


class Reader(Protocol):
    """An open object."""

    @property
    def size(self) -> int:
        """Bytes in it."""

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Its first `size` bytes in order, in pieces; a piece is worth nothing after the next."""

    def whole(self) -> memoryview:
        """All of it, read-only; where it is a file, its pages."""


@dataclass(frozen=True, slots=True)
class _Local:
    """A file: read in pieces that stay in the cache, so that a disk's errors are raised; then mapped, without a copy.

    Reading it whole into memory of our own would cost four times as much: every byte goes through memory twice more.
    """

    file: FileIO
    size: int

    def pieces(self, size: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(size, _PIECE)))
        while size:
            got = self.file.readinto(buffer[: min(size, _PIECE)])
            if not got:
                raise OSError(errno.EIO, "it ended while it was read")
            yield buffer[:got]
            size -= got

    def whole(self) -> memoryview:
        return memoryview(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))


@dataclass(frozen=True, slots=True)
class _Fetched:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self, size: int) -> Iterator[memoryview]:
        yield memoryview(self.data)[:size]

    def whole(self) -> memoryview:
        return memoryview(self.data)


def local_path(url: str) -> str:
    """A `file://` URL as the path that it is; anything else as it is."""
    return url.removeprefix("file://")
