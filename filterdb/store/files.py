"""Read and write the objects of a folder or an object store."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from filterdb.errors import DamageError, InputError, StoreError, StoreMissingError, UsageError
from filterdb.redaction import has_credentials, redact_url
from filterdb.store import local, remote, web
from filterdb.store.clients import client
from filterdb.store.local import ObjectInfo
from filterdb.store.objects import Objects
from filterdb.store.remote import is_remote, lost, retried, store_errors

if TYPE_CHECKING:
    from zarr.abc.store import Store

_PIECE = 256 * 1024
"""Bytes per piece when a file is read to compute its checksum. A piece fits into the second-level cache."""


@dataclass(frozen=True, slots=True)
class Files:
    """The objects below a root, which is an absolute local path or a URL that fsspec supports.

    Only the root is sent to workers. Every process takes credentials from its own environment.
    """

    root: str

    @classmethod
    def at(cls, url: str | os.PathLike[str]) -> Files:
        """Create from a path or URL. `file://` URLs and relative paths become absolute local paths.

        Raises UsageError for a URL with credentials, since the root appears in messages, results and tasks, or for a
        URL without a host or bucket; InputError for an empty text.
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
        """Whether the root is a URL that is accessed through fsspec."""
        return is_remote(self.root)

    @property
    def web(self) -> bool:
        """Whether the objects are served by a web server, which neither lists nor writes them."""
        return web.is_web(self.root)

    @property
    def _objects(self) -> Objects:
        return client(self.root)

    def url(self, name: str) -> str:
        """Return the full path or URL of an object."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """Return the bytes of an object. Raises StoreMissingError if it does not exist."""
        url = self.url(name)
        if self.web:
            (data,) = web.read_many([url])
            if data is None:
                raise StoreMissingError(f"reading {url}: expected an object there, found none")
            return data
        with store_errors("reading", url):
            return retried(lambda: self._objects.read(url)) if self.remote else Path(url).read_bytes()

    def read_valid[T](self, name: str, decode: Callable[[bytes], T]) -> T:
        """Read an object and decode it. If `decode` raises DamageError, read again as in `retry_on_damage`."""
        return self.retry_on_damage(lambda: decode(self.read(name)))

    def retry_on_damage[T](self, attempt: Callable[[], T]) -> T:
        """Run `attempt`, and retry after a DamageError if the root is remote: data may be corrupted in transit."""
        for number in range(1, remote.TRIES if self.remote else 1):
            try:
                return attempt()
            except DamageError:
                remote.pause(number)
        return attempt()

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read several objects concurrently, with one GET each. Leave out objects that do not exist."""
        contents: dict[str, bytes] = {}
        if not self.remote:
            for name in names:
                with suppress(StoreMissingError):
                    contents[name] = self.read(name)
            return contents
        urls = [self.url(name) for name in names]
        if self.web:
            pairs = zip(names, web.read_many(urls), strict=True)
            return {name: data for name, data in pairs if data is not None}
        with store_errors("reading", self.root):
            results = retried(lambda: self._objects.read_many(urls)) if urls else []
        for name, data in zip(names, results, strict=True):
            if isinstance(data, bytes):
                contents[name] = data
            elif not isinstance(data, FileNotFoundError):  # read it again by itself, which retries or raises its error
                with suppress(StoreMissingError):
                    contents[name] = self.read(name)
        return contents

    @contextmanager
    def opened(self, name: str, size: int | None = None) -> Iterator[Reader]:
        """Open an object for reading without copies. A remote object is fetched whole.

        If the `size` that it should have is given, S3 is asked for several ranges of it at a time.
        """
        if self.remote:
            yield _Fetched(memoryview(self.read(name)) if size is None else self._read_sized(name, size))
            return
        url = self.url(name)
        with store_errors("reading", url), Path(url).open("rb", buffering=0) as file:
            yield _Local(file, os.fstat(file.fileno()).st_size)

    def _read_sized(self, name: str, size: int) -> memoryview:
        if self.web:
            return memoryview(self.read(name))
        url = self.url(name)
        with store_errors("reading", url):
            return retried(lambda: self._objects.read_sized(url, size))

    def reading_bytes(self, size: int) -> int:
        """Return the memory that reading an object of this size takes: pages of a local file, or what is fetched."""
        if not self.remote:
            return size
        return 2 * size if self.web else self._objects.reading_bytes(size)

    def list(self, prefix: str) -> dict[str, int | None]:
        """List the objects below a prefix, sorted by name: name → size in bytes (None if unknown)."""
        return {name: entry.size for name, entry in self.entries(prefix).items()}

    def entries(self, prefix: str) -> dict[str, ObjectInfo]:
        """List the objects below a prefix with size and time, sorted by name.

        Raises ReadOnlyStoreError for a web server that lists no folders. What only reads a database looks up objects by
        name instead (`read_many`, `sizes`).
        """
        url = self.url(prefix)
        with store_errors("listing", url):
            listing = dict(sorted(self._remote_entries(prefix) if self.remote else local.walk(Path(url), prefix)))
        if self.web and not listing:
            if prefix == "snapshots":  # of which every database has one
                raise web.read_only("listing", url)
            self.entries("snapshots")
        return listing

    def sizes(self, names: Sequence[str], prefix: str) -> dict[str, int | None]:
        """Return the sizes of those of these objects below a prefix that exist: by a listing if the store has any."""
        if not self.web:
            return self.list(prefix)
        urls = {self.url(name): name for name in names}
        return {urls[url]: size for url, size in web.sizes(list(urls)).items()}

    def unfinished(self) -> dict[str, ObjectInfo]:
        """List the temporary files of writers that were killed. Only local folders have such files."""
        return {} if self.remote else dict(local.walk(Path(self.root), "", unfinished=True))

    def _remote_entries(self, prefix: str) -> Sequence[tuple[str, ObjectInfo]]:
        return retried(lambda: tuple(self._objects.entries(self.root, prefix)))

    def create(self, name: str, data: bytes) -> bool:
        """Create an object, unless it exists. Return whether it now has these bytes; False if it already had others.

        Races and lost replies are safe: after a failed put, the object is read back and compared. Therefore the bytes
        must identify their writer (by a nonce) or be the same for every writer (named by their content).
        """
        url = self.url(name)
        if self.web:
            raise web.read_only("writing", url)
        if not self.remote:
            with store_errors("writing", url):
                try:
                    local.create(Path(url), data)
                    return True
                except FileExistsError:
                    return self.read(name) == data

        def attempt() -> bool:
            try:
                self._objects.create(url, data)
                return True
            except lost() as error:
                try:
                    return self.read(name) == data
                except StoreMissingError:
                    raise error from None

        with store_errors("writing", url):
            return retried(attempt)

    def put(self, objects: Mapping[str, bytes | memoryview]) -> None:
        """Write objects, overwriting existing ones. Only for bytes that are the same for every writer."""
        if not objects:
            return
        if self.web:
            raise web.read_only("writing", self.url(next(iter(objects))))
        if not self.remote:
            with store_errors("writing", self.url(next(iter(objects)))):
                local.replace({Path(self.url(name)): data for name, data in objects.items()})
            return
        by_url = {self.url(name): data for name, data in objects.items()}
        with store_errors("writing", next(iter(by_url))):
            retried(lambda: self._objects.put(by_url))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects. Objects that do not exist are ignored."""
        for name in names:
            url = self.url(name)
            if self.web:
                raise web.read_only("removing", url)
            with suppress(StoreMissingError), store_errors("removing", url):
                if self.remote:
                    retried(lambda url=url: self._objects.remove(url))  # type: ignore[misc]
                else:
                    Path(url).unlink()
                    self._remove_empty(Path(url).parent)

    def _remove_empty(self, folder: Path) -> None:
        """Remove folders that became empty, because object stores have no empty folders either."""
        while str(folder) != self.root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written below this root, before any work is spent on a result."""
        name = f".filterdb-probe-{uuid4().hex}"
        parent, key = self, name
        bucket, _, path = self.root.partition("://")[2].partition("/")
        if self.remote and bucket and path:
            # Write beside the root: some stores still list a folder minutes after its last object was removed.
            folder, _, last = self.root.rpartition("/")
            parent, key = Files(folder), f"{last}{name}"
        is_new = not self.remote and not Path(self.root).exists()
        parent.put({key: b""})
        with suppress(StoreError):  # users may be allowed to write but not to remove
            parent.remove([key])
        if is_new:
            with suppress(OSError):
                Path(self.root).rmdir()

    def probe(self) -> None:
        """Raise StoreError if the root cannot be written, or if the store lets a second writer overwrite the first.

        Creates the same object twice, under a new name. The second attempt must fail.
        """
        name = f"ingests/probe-{uuid4().hex}"
        is_new = not self.remote and not Path(self.root).exists()
        first = self.create(name, b"first")
        second = self.create(name, b"second")
        stored = self.read(name)
        self.remove([name])
        if is_new:
            with suppress(OSError):
                Path(self.root).rmdir()  # the ingest may still fail, and must not leave an empty folder
        if not first or second or stored != b"first":
            raise StoreError(
                f"{self.root}: expected a store that refuses to overwrite an object when asked to (If-None-Match: *), "
                "this one overwrote it; two writers would lose data, use another store"
            )

    def zarr(self, name: str, *, read_only: bool) -> Store:
        """Open the Zarr store at a name."""
        from zarr.storage import LocalStore

        url = self.url(name)
        return self._objects.zarr(url, read_only=read_only) if self.remote else LocalStore(url, read_only=read_only)


def _check_address(url: str) -> None:
    """Raise UsageError if a URL has no host or bucket."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.netloc) and (parts.scheme not in {"http", "https"} or bool(parts.hostname))
        _ = parts.port if parts.scheme in {"http", "https"} else None  # raises ValueError if it is not a number
    except ValueError:
        has_host = False
    scheme, rest = url.split("://", 1)
    if (not has_host and scheme in {"http", "https", "s3"}) or not rest.strip("/"):
        raise UsageError(f"{url}: expected a URL that names a host or bucket, as s3://bucket/db, got one that does not")


class Reader(Protocol):
    """An open object."""

    @property
    def size(self) -> int:
        """Size in bytes."""

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield its first `size` bytes in pieces. A piece is valid only until the next one."""

    def whole(self) -> memoryview:
        """Return all its bytes, read-only. A local file is mapped into memory."""

    def stream(self) -> BinaryIO:
        """Return a stream from its first byte on, which can seek; valid while the object is open."""


@dataclass(frozen=True, slots=True)
class _Local:
    """A local file. It is read in small pieces, so that disk errors are raised, and then mapped without a copy.

    Reading the whole file into a new buffer would take four times as long, since every byte would pass through memory
    two more times.
    """

    file: FileIO
    size: int

    def pieces(self, size: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(size, _PIECE)))
        while size:
            got = self.file.readinto(buffer[: min(size, _PIECE)])
            if not got:
                raise OSError(errno.EIO, "the file ended before all of it was read")
            yield buffer[:got]
            size -= got

    def whole(self) -> memoryview:
        return memoryview(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))

    def stream(self) -> BinaryIO:
        self.file.seek(0)
        return self.file


@dataclass(frozen=True, slots=True)
class _Fetched:
    data: memoryview

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self, size: int) -> Iterator[memoryview]:
        yield self.data[:size]

    def whole(self) -> memoryview:
        return self.data

    def stream(self) -> BinaryIO:
        return BytesIO(self.data)


def local_path(url: str) -> str:
    """Return the path of a `file://` URL, and anything else unchanged."""
    return url.removeprefix("file://")
