"""Requests to an object store: bounded in time, tried again with jitter, their errors one kind.

A client's own retries do not cover all: an s3fs PUT waits for ever where the server never sends `100-continue`, and a
body that breaks off may come as an error of any of four libraries. Credentials come from each process's own
environment; nothing here travels to workers.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import fsspec
from aiohttp import ClientError as HttpError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    NoCredentialsError,
)
from fsspec.asyn import sync

from filterdb import metrics
from filterdb.errors import DamageError, StoreError, StoreMissingError, UsageError
from filterdb.redaction import redact, redact_url, redacted_error

TRIES = 3
"""How often a request is made before its error counts."""

SECONDS = 30.0
"""How long a request may take, and as long again for every SLOWEST · SECONDS bytes that it writes."""

SLOWEST = 1_000_000
"""Bytes a second below which a store counts as hanging."""

READ_SECONDS = 180.0
"""How long a request may take that reads."""

RETRY_SECONDS = 60.0
"""After so long nothing is tried again: the client has retried by itself all the while."""

PAUSE = 0.3
"""Seconds before the second try, at most; twice that before the third."""

LOST = (OSError, BotoCoreError, ClientError, HttpError, TimeoutError, NotImplementedError)
"""What the clients raise when a store refuses, breaks off or cannot be reached, or can only be read."""

_FINAL = (
    FileNotFoundError,
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    NoCredentialsError,
    CredentialRetrievalError,
    NotImplementedError,
)
"""Answers that another try would not change."""


def is_remote(url: str) -> bool:
    """Whether a path is a URL for fsspec (`file://` is not: local files have their own, atomic, ways)."""
    return "://" in url and not url.startswith("file://")


def options(url: str) -> dict[str, Any]:
    """Options of ours for a file system; never a secret."""
    if not url.startswith("s3://"):
        return {}
    region = os.environ.get("AWS_REGION")  # botocore itself knows AWS_DEFAULT_REGION only
    return {"use_listings_cache": False, **({"client_kwargs": {"region_name": region}} if region else {})}


@lru_cache(maxsize=16)
def _known_filesystem(protocol: str, region: str | None) -> Any:
    del region  # part of the key: options reads it
    try:
        return fsspec.filesystem(protocol, **options(f"{protocol}://"))
    except Exception as error:  # of any file system's own
        said = " ".join(str(error).split())[:100]
        raise UsageError(f"{protocol}://: expected a protocol that fsspec can open here, got {said}") from error


def filesystem(url: str) -> Any:
    """The file system behind a URL, one for each process."""
    return _known_filesystem(url.split("://", 1)[0], os.environ.get("AWS_REGION"))


def call(url: str, method: str, *args: Any, seconds: float | None = None, **kwargs: Any) -> Any:
    """One request, `method` of the file system behind `url`; TimeoutError after `seconds` (READ_SECONDS)."""
    files = filesystem(url)
    if not getattr(files, "async_impl", False):
        return getattr(files, method)(*args, **kwargs)
    limit = READ_SECONDS if seconds is None else seconds

    async def bounded() -> Any:
        try:
            return await asyncio.wait_for(getattr(files, f"_{method}")(*args, **kwargs), limit)
        except TimeoutError as error:
            raise TimeoutError(f"no answer within {limit:.0f} s") from error

    return sync(files.loop, bounded)


def writing_seconds(size: int) -> float:
    """How long a request may take that writes so many bytes."""
    return SECONDS + size / SLOWEST


def retried[T](attempt: Callable[[], T]) -> T:
    """The result of `attempt`, made TRIES times, unless the answer is final or the time is up."""
    began = time.monotonic()
    for number in range(1, TRIES):
        try:
            return attempt()
        except _FINAL:
            raise
        except LOST:
            if time.monotonic() - began > RETRY_SECONDS:
                raise
            metrics.count(metrics.RETRIES)
            pause(number)
    return attempt()


def pause(number: int) -> None:
    """Wait before the next try; by chance longer or shorter, so that many workers do not come back at once."""
    time.sleep(random.uniform(0.5, 1) * PAUSE * 2 ** (number - 1))


@contextmanager
def store_errors(action: str, url: str) -> Iterator[None]:
    """Turn what store clients raise inside the block into one StoreError line; StoreMissingError where it is absent.

    A StoreError passes as it is: one raised from itself would be its own cause.
    """
    shown = redact_url(url)
    try:
        yield
    except StoreError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        cause = redacted_error(error, url)
        if action == "writing":
            what = f"expected a folder or bucket to write to, found none ({redact(str(error), url)})"
            raise StoreError(f"writing {shown}: {what}") from cause
        raise StoreMissingError(f"{action} {shown}: expected an object there, found none") from cause
    except LOST as error:
        raise store_error(action, url, error) from redacted_error(error, url)


def store_error(action: str, url: str, error: BaseException) -> StoreError:
    """One line that names the object and what the store said, with the remedy that fits."""
    said = " ".join(redact(str(error), url).split())[:200] or type(error).__name__
    url = redact_url(url)
    if isinstance(error, FlexibleChecksumError):
        return DamageError(
            f"{action} {url}: expected the bytes that were put, got others ({said}); restore it from a copy"
        )
    refused = isinstance(error, PermissionError | NoCredentialsError | CredentialRetrievalError)
    remedy = "check the credentials and rights" if refused else "check the store, run again"
    return StoreError(f"{action} {url}: the store refused or failed ({said}); {remedy}")
