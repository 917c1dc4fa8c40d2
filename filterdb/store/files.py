"""Bytes in and out of a folder or an object store, and inputs brought to the worker that parses them."""

from __future__ import annotations

import errno
import glob
import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import fsspec
from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from filterdb.errors import InputError, StoreError, StoreMissingError, UsageError

_PIECE = 256 * 1024
"""Bytes read at a time where they are only looked at: what fits the second-level cache."""

_LOST = (OSError, BotoCoreError, ClientError, HttpError, TimeoutError)
"""What the clients raise when a store refuses, breaks off or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Files:
    """A root below which everything of a database lies: an absolute local path, or a URL that fsspec knows.

    Only the root travels to workers; credentials come from each process's own environment.
    """

    root: str

    @classmethod
    def at(cls, url: str | os.PathLike[str]) -> Files:
        """The root at a path or URL; `file://` and relative paths become absolute local paths."""
        text = os.fspath(url)
        if not text:
            raise InputError("database: expected a path or URL, got an empty text")
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
            return bytes(_filesystem(url).cat_file(url)) if self.remote else Path(url).read_bytes()

    @contextmanager
    def opened(self, name: str) -> Iterator[Reader]:
        """An object to read without a copy of it. An object store's is fetched whole, with one request."""
        url = self.url(name)
        with store_errors("reading", url):
            if self.remote:
                yield _Fetched(_filesystem(url).cat_file(url))
                return
            with Path(url).open("rb", buffering=0) as file:
                yield _Local(file, os.fstat(file.fileno()).st_size)

    def list(self, prefix: str) -> dict[str, int]:
        """Objects below a prefix, name → size in bytes, sorted by name; {} where there are none."""
        url = self.url(prefix)
        with store_errors("listing", url):
            if not self.remote:
                sizes = dict(_walk(Path(url), prefix))
            else:
                files = _filesystem(url)
                root = files._strip_protocol(self.root)
                listing = (
                    files.find(url, detail=True, refresh=True) if self._takes_refresh else files.find(url, detail=True)
                )
                sizes = {key.removeprefix(root).lstrip("/"): int(info["size"]) for key, info in listing.items()}
        return dict(sorted(sizes.items()))

    @property
    def _takes_refresh(self) -> bool:
        return self.root.startswith("s3://")

    def create(self, name: str, data: bytes) -> bool:
        """Put an object where there is none. True: these bytes stand there now; False: other bytes did before.

        Safe under races and lost replies: whatever the put answers, what counts is what is read back. The bytes must
        therefore tell their writer (a nonce) or be the same for every writer (addressed by content).
        """
        url = self.url(name)
        try:
            if self.remote:
                _filesystem(url).pipe_file(url, data, mode="create")
            else:
                _create_local(Path(url), data)
            return True
        except _LOST as error:
            try:
                return self.read(name) == data
            except StoreMissingError:
                raise _store_error("writing", url, error) from error

    def put(self, objects: Mapping[str, bytes | bytearray]) -> None:
        """Put objects, over what stands there: only for bytes that are the same whoever writes them."""
        if self.remote:
            with store_errors("writing", self.url(next(iter(objects), ""))):
                _filesystem(self.root).pipe({self.url(name): bytes(data) for name, data in objects.items()})
            return
        for name, data in objects.items():
            with store_errors("writing", self.url(name)):
                _replace_local(Path(self.url(name)), data)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects that may be gone already."""
        for name in names:
            url = self.url(name)
            with suppress(StoreMissingError), store_errors("removing", url):
                if self.remote:
                    _filesystem(url).rm_file(url)
                else:
                    Path(url).unlink()

    def zarr(self, name: str, *, read_only: bool) -> Store:
        """The Zarr store at a name."""
        url = self.url(name)
        if not self.remote:
            return LocalStore(url, read_only=read_only)
        return FsspecStore.from_url(url, storage_options=_options(url), read_only=read_only)


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


def is_remote(url: str) -> bool:
    """Whether a path is a URL for fsspec (`file://` is not: local files have their own, atomic, ways)."""
    return "://" in url and not url.startswith("file://")


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Files below a folder, name and size; what vanishes meanwhile and what begins with a dot (unfinished) left out."""
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        name = f"{prefix}/{entry.name}" if prefix else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), name)
        else:
            with suppress(FileNotFoundError):
                yield name, entry.stat().st_size


def _temporary(path: Path, data: bytes | bytearray) -> Path:
    """A file beside `path` with these bytes, on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).chmod(0o644)
    return Path(temporary)


def _replace_local(path: Path, data: bytes | bytearray) -> None:
    """Write beside, then rename: whole or not at all."""
    _temporary(path, data).replace(path)


def _create_local(path: Path, data: bytes) -> None:
    """Write beside, then link: the final name appears whole or not at all, and never over another."""
    temporary = _temporary(path, data)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _options(url: str) -> dict[str, Any]:
    """Options of ours for a file system; never a secret."""
    if not url.startswith("s3://"):
        return {}
    region = os.environ.get("AWS_REGION")  # botocore itself knows AWS_DEFAULT_REGION only
    return {"use_listings_cache": False, **({"client_kwargs": {"region_name": region}} if region else {})}


@lru_cache(maxsize=16)
def _known_filesystem(protocol: str, region: str | None) -> Any:
    del region  # part of the key: _options reads it
    try:
        return fsspec.filesystem(protocol, **_options(f"{protocol}://"))
    except (ValueError, ImportError) as error:
        raise UsageError(f"{protocol}://: expected a protocol that fsspec can open here: {error}") from error


def _filesystem(url: str) -> Any:
    return _known_filesystem(url.split("://", 1)[0], os.environ.get("AWS_REGION"))


@contextmanager
def store_errors(action: str, url: str) -> Iterator[None]:
    """Turn what store clients raise inside the block into one StoreError line; StoreMissingError where it is absent."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if action == "writing":
            raise StoreError(f"writing {url}: expected a folder or bucket to write to, found none ({error})") from error
        raise StoreMissingError(f"{action} {url}: expected an object there, found none") from error
    except _LOST as error:
        raise _store_error(action, url, error) from error


def _store_error(action: str, url: str, error: BaseException) -> StoreError:
    """One line that names the object and what the store said, with the remedy that fits."""
    if isinstance(error, StoreError):
        return error
    said = " ".join(str(error).split())[:200] or type(error).__name__
    remedy = "check the credentials and rights" if isinstance(error, PermissionError) else "check the store, run again"
    return StoreError(f"{action} {url}: the store refused or failed ({said}); {remedy}")


def expand(source: str, suffix: str = ".onnx") -> list[str]:
    """The files that a source names: itself, those below a folder, or those of a glob, sorted. Local paths or URLs.

    Raises InputError where it names none.
    """
    source = local_path(source)
    is_glob = any(c in source for c in "*?[")
    if is_remote(source):
        files = _filesystem(source)
        scheme = source.split("://", 1)[0]
        with store_errors("looking for models", source):
            if scheme in {"http", "https"}:
                found = [source]
            elif is_glob:
                found = [f"{scheme}://{name}" for name in files.glob(source)]
            elif files.isfile(source):
                found = [source]
            else:
                found = [f"{scheme}://{name}" for name in files.find(source) if name.endswith(suffix)]
    elif is_glob and not Path(source).exists():
        found = [name for name in glob.glob(source, recursive=True) if Path(name).is_file()]  # noqa: PTH207 - keeps the text as given
    elif Path(source).is_dir():
        found = [str(path) for path in Path(source).rglob(f"*{suffix}") if path.is_file()]
    else:
        found = [source] if Path(source).is_file() else []
    if not found:
        raise InputError(f"{source}: expected a file, a folder with {suffix} files, or a glob that matches, found none")
    return sorted(found)


def read_input(url: str) -> bytes:
    """The bytes of an input file (a catalog), local or remote. Raises InputError where there is none."""
    try:
        return _read_input(local_path(url))
    except StoreMissingError as error:
        raise InputError(f"{url}: expected a file, found none") from error


def _read_input(url: str) -> bytes:
    with store_errors("reading", url):
        return bytes(_filesystem(url).cat_file(url)) if is_remote(url) else Path(url).read_bytes()


@contextmanager
def local_copy(url: str) -> Iterator[LocalInput]:
    """An input file on this machine: itself, or a copy that is removed afterwards."""
    if not is_remote(url):
        yield LocalInput(Path(url), None)
        return
    with tempfile.TemporaryDirectory(prefix="filterdb-") as folder:
        path = Path(folder) / Path(url).name
        with store_errors("fetching", url):
            _filesystem(url).get_file(url, str(path))
        yield LocalInput(path, url)


@dataclass(frozen=True, slots=True)
class LocalInput:
    """An input file here, and the URL it was brought from (None: it lies here)."""

    path: Path
    origin: str | None

    def bring(self, companion: str) -> Path | None:
        """A file beside it, fetched if need be; None where `companion` does not stay inside its folder or is absent."""
        target = self.path.parent / companion
        if Path(companion).is_absolute() or ".." in Path(companion).parts or "\0" in companion:
            return None
        try:
            if self.origin is not None and not target.exists():
                url = f"{self.origin.rsplit('/', 1)[0]}/{companion}"
                target.parent.mkdir(parents=True, exist_ok=True)
                with store_errors("fetching", url):
                    _filesystem(url).get_file(url, str(target))
            return target if target.is_file() else None
        except StoreMissingError:
            return None
        except StoreError:
            raise
        except (OSError, ValueError):
            return None  # no name that a disk can have: the tensor cannot be read, the model can


def file_digest(paths: list[Path]) -> str:
    """SHA-256 of one file, or of the digests of several."""
    digests = []
    for path in paths:
        with store_errors("reading", str(path)), path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
