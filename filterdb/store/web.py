"""Read the objects of a database that a plain web server serves. It lists no folder and writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fsspec.asyn import sync

from filterdb.errors import ReadOnlyStoreError, StoreError
from filterdb.redaction import redact_url, redacted_error
from filterdb.store import http, remote
from filterdb.store.http import Reply, StatusError
from filterdb.store.remote import store_errors

IN_FLIGHT = 16
"""Most requests at a time."""

MAX_OBJECT = 2**33
"""Most bytes of an object."""

_MISSING = frozenset({403, 404, 410})
"""Statuses of an object that does not exist. S3 says 403 to users who may not list the bucket."""


def is_web(url: str) -> bool:
    """Return whether a URL is one of a web server."""
    return url.startswith(("http://", "https://"))


def read_many(urls: Sequence[str]) -> list[bytes | None]:
    """Return the bytes of objects, read concurrently; None for one that does not exist. Raises StoreError."""
    return [None if reply is None else reply.body for reply in _ask(urls, "GET")]


def sizes(urls: Sequence[str]) -> dict[str, int | None]:
    """Return the sizes of the objects that exist, by URL; None where the server does not say. Raises StoreError."""
    replies = zip(urls, _ask(urls, "HEAD"), strict=True)
    lengths = {url: reply.headers.get("Content-Length", "") for url, reply in replies if reply is not None}
    return {url: int(length) if length.isdigit() else None for url, length in lengths.items()}


def read_only(action: str, url: str) -> ReadOnlyStoreError:
    """Return the error for what a web server does not do."""
    return ReadOnlyStoreError(
        f"{action} {redact_url(url)}: expected a store that can be listed and written, got a web server, which can "
        "only be read; name the folder or the s3:// URL that it serves"
    )


def _ask(urls: Sequence[str], method: str) -> list[Reply | None]:
    """Make a request for each URL; None for an object that does not exist."""
    if not urls:
        return []
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(url: str) -> Reply | None:
        async with slots:
            try:
                return await http.get(url, {}, limit=MAX_OBJECT, method=method)
            except StatusError as error:
                if error.status in _MISSING:
                    return None
                raise

    async def every() -> list[Reply | None]:
        return await asyncio.gather(*map(one, urls))

    failure: StoreError
    with store_errors("reading", urls[0]):
        try:
            replies: list[Reply | None] = sync(remote.filesystem(urls[0]).loop, every)
            return replies
        except StatusError as error:
            failure, cause = http.status_error("reading", error.url, error), redacted_error(error, *urls)
    raise failure from cause
