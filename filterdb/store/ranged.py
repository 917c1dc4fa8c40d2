"""Read parts of a remote file, several at a time, and notice if it changes meanwhile.

A `Source` is a file at one version: its size, what identifies its content, and how to get a part. HTTP servers and S3
have one. Files of other stores, and of servers that do not serve parts, are fetched whole (`download`).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fsspec.asyn import sync

from filterdb.errors import FilterDBError, StoreError
from filterdb.ranges import Range, merged, pieces
from filterdb.redaction import redact_url, redacted_error
from filterdb.store import http, hub, remote
from filterdb.store.download import input_error
from filterdb.store.http import Headers, Reply, StatusError, no_headers, status_error
from filterdb.store.remote import store_errors

HEAD_BYTES = 65_536
"""Bytes from the start of a file that are read first."""

GAP = 65_536
"""Bytes between two parts up to which they are fetched with one request."""

IN_FLIGHT = 8
"""Most requests for parts of a file at a time."""

PIECE = 16 * 2**20
"""Most bytes of a request. An interrupted fetch resumes after the last whole piece."""

FETCH_SECONDS = 1800.0
"""Time limit for fetching parts, to which one second is added for every SLOWEST bytes."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


class ChangedError(StoreError):
    """A file changed on the server while its parts were read."""


class Source(Protocol):
    """A remote file at one version."""

    url: str
    """The URL that messages name."""

    @property
    def place(self) -> str:
        """The URL that requests are made to."""

    size: int
    version: str
    """Identifies the content among all versions of this file."""
    sha256: str
    """The SHA-256 of the content, if the store states it; else empty."""
    head: bytes
    """The first bytes, which were read to learn the rest."""

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies the file and its content, as JSON."""

    async def part(self, start: int, stop: int) -> bytes:
        """Return a part. Raises ChangedError if the file has another version now."""


def open_source(url: str) -> Source | None:
    """Return the file at a URL; None if it cannot be read in parts. Raises StoreError, StoreMissingError."""
    place = hub.file_address(url) if hub.is_hub(url) else url
    if place.startswith(("http://", "https://")):
        credentials = hub.credentials if hub.is_hub(url) else no_headers
        opened: Source | None = _call(place, url, lambda: _open_http(url, place, credentials))
        return opened
    if url.startswith("s3://"):
        with store_errors("fetching", url):
            source: Source | None = remote.retried(lambda: _call(url, url, lambda: _open_s3(url)))
            return source
    return None


def restore(url: str, identity: Mapping[str, Any]) -> Source | None:
    """Return a file of the hub at a commit from its identity, without a request; None if the identity is not known."""
    size, texts = identity.get("size"), [identity.get(name) for name in ("etag", "version", "sha256")]
    if type(size) is not int or not all(isinstance(text, str) for text in texts):
        return None
    etag, version, sha256 = map(str, texts)
    place = hub.file_address(url)
    return _HttpFile(url, place, hub.credentials, size, etag, version, sha256, b"", place)


def read_parts(source: Source, ranges: Iterable[Range], write: Callable[[int, bytes], None]) -> list[Range]:
    """Fetch the ranges and those between them that are not worth a request of their own. Return what was fetched.

    `write` gets the offset and the bytes of each piece as it arrives. Raises ChangedError, StoreError.
    """
    wanted = merged(ranges, GAP)

    async def fetch() -> None:
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def one(start: int, stop: int) -> None:
            async with slots:
                write(start, await source.part(start, stop))

        tasks = [asyncio.ensure_future(one(*piece)) for piece in pieces(wanted, PIECE)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    most = FETCH_SECONDS + sum(stop - start for start, stop in wanted) / remote.SLOWEST
    _call(source.place, source.url, lambda: asyncio.wait_for(fetch(), most))
    return wanted


def _call[T](place: str, url: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in the thread of the file system, and turn its errors into ours, which name `url`."""
    failure: Exception
    with store_errors("fetching", url):
        try:
            result: T = sync(remote.filesystem(place).loop, attempt)
            return result
        except StatusError as error:
            failure = (hub.hub_error if hub.is_hub(url) else status_error)("fetching", url, error)
            cause = redacted_error(error, url)
        except FilterDBError:
            raise
        except ValueError as error:  # of a URL that no client understands
            failure, cause = input_error("fetching", url, error), redacted_error(error, url)
    # Raised outside the except block, so that the original error does not become its context.
    raise failure from cause


@dataclass
class _HttpFile:
    """A file of an HTTP server that serves parts and names its versions."""

    url: str
    place: str
    credentials: Headers
    size: int
    etag: str
    version: str
    sha256: str
    head: bytes = field(repr=False)
    location: str = field(repr=False)
    """Where the last redirect led, which may be a signed URL. Parts are fetched there until it refuses."""

    @property
    def identity(self) -> dict[str, Any]:
        return {"size": self.size, "etag": self.etag, "version": self.version, "sha256": self.sha256}

    async def part(self, start: int, stop: int) -> bytes:
        headers = {"Range": f"bytes={start}-{stop - 1}", "If-Range": self.etag}
        for address in dict.fromkeys((self.location, self.place)):
            try:
                reply = await http.get(address, headers, credentials=self.credentials, limit=stop - start)
            except StatusError as error:
                if error.status not in {400, 401, 403, 404, 410} or address == self.place:
                    raise  # else: the signature has expired
                continue
            self.location = reply.url
            return self._checked(reply, start, stop)
        raise AssertionError("the last place returns or raises")

    def _checked(self, reply: Reply, start: int, stop: int) -> bytes:
        got = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
        etag = reply.headers.get("ETag", self.etag)
        if reply.status != 206 or got is None or etag != self.etag or int(got[3]) != self.size:
            raise changed(self.url)
        if (int(got[1]), int(got[2]) + 1) != (start, stop) or len(reply.body) != stop - start:
            raise StoreError(
                f"fetching {redact_url(self.url)}: expected bytes {start:,} to {stop:,}, got {len(reply.body):,} bytes "
                f"as {got[0]}; the server does not serve parts correctly"
            )
        return reply.body


async def _open_http(url: str, place: str, credentials: Headers) -> _HttpFile | None:
    """Return a file whose first part was served as one; None if the server does not serve parts of a known version."""
    headers = {"Range": f"bytes=0-{HEAD_BYTES - 1}"}
    try:
        reply = await http.get(place, headers, credentials=credentials, limit=HEAD_BYTES)
    except StatusError as error:
        if error.status == 416:  # an empty file
            return None
        raise
    got = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
    etag = reply.headers.get("ETag", "")
    # A weak ETag is equal for contents that differ by a byte.
    if reply.status != 206 or got is None or not etag.startswith('"'):
        return None
    size = int(got[3])
    if int(got[1]) != 0 or len(reply.body) != min(size, HEAD_BYTES):
        return None
    linked = _SHA256.fullmatch(next((h["X-Linked-ETag"] for h in reply.redirects if "X-Linked-ETag" in h), ""))
    sha256 = linked[1] if linked else ""
    return _HttpFile(url, place, credentials, size, etag, f"{sha256 or etag} {size}", sha256, reply.body, reply.url)


@dataclass
class _S3File:
    """An object of S3."""

    url: str
    size: int
    etag: str
    version: str
    head: bytes = field(repr=False)
    sha256: str = ""

    @property
    def place(self) -> str:
        return self.url

    @property
    def identity(self) -> dict[str, Any]:
        return {"size": self.size, "etag": self.etag, "version": self.version}

    async def part(self, start: int, stop: int) -> bytes:
        for number in range(1, remote.TRIES + 1):
            try:
                body, _ = await _get_s3(self.url, start, stop, IfMatch=self.etag)
                if len(body) != stop - start:
                    raise ConnectionError(f"expected {stop - start:,} bytes, got {len(body):,}")
                return body
            except Exception as error:
                if remote.s3_code(error) in {"PreconditionFailed", "412"}:
                    raise changed(self.url) from None
                if number == remote.TRIES or not isinstance(error, remote.lost()):
                    raise
                await asyncio.sleep(remote.PAUSE * 2**number)
        raise AssertionError("the last attempt returns or raises")


async def _open_s3(url: str) -> _S3File | None:
    try:
        body, reply = await _get_s3(url, 0, HEAD_BYTES)
    except Exception as error:
        if remote.s3_code(error) in {"InvalidRange", "416"}:  # an empty object
            return None
        raise
    got = _CONTENT_RANGE.fullmatch(reply.get("ContentRange", ""))
    etag = reply.get("ETag", "")
    if got is None or not etag:
        return None
    size = int(got[3])
    return _S3File(url, size, etag, f"{etag} {size}", body)


async def _get_s3(url: str, start: int, stop: int, **conditions: str) -> tuple[bytes, Any]:
    files = remote.filesystem(url)
    bucket, key, _ = files.split_path(url)

    async def request() -> tuple[bytes, Any]:
        reply = await files._call_s3(
            "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", **conditions
        )
        async with reply["Body"] as body:
            return await body.read(), reply

    return await asyncio.wait_for(request(), remote.READ_SECONDS)


def again_if_changed[T](attempt: Callable[[], T]) -> T:
    """Run `attempt`, and once more if a remote file changed on the server while its parts were read."""
    try:
        return attempt()
    except ChangedError:
        return attempt()


def changed(url: str) -> ChangedError:
    """Return the error for a file that changed while it was read."""
    return ChangedError(
        f"fetching {redact_url(url)}: expected one version of the file, it changed on the server while it was read; "
        "run again once it is complete"
    )


def version_digest(source: Source) -> str:
    """Return the SHA-256 of the file's content if the store states it, else one of what identifies the content."""
    return source.sha256 or hashlib.sha256(f"version {source.version}".encode()).hexdigest()
