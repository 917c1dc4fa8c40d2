"""Make requests to object stores with time limits, retries with jitter, and uniform errors.

The clients' own retries are not enough: a PUT of s3fs waits for ever if the server never sends `100-continue`, and an
interrupted body may raise an error of any of four libraries. Every process takes credentials from its own environment;
nothing here is sent to workers.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import fsspec
from fsspec.asyn import sync

from filterdb import metrics
from filterdb.errors import DamageError, MissingExtraError, StoreError, StoreMissingError, UsageError
from filterdb.redaction import redact, redact_url, redacted_error

TRIES = 3
"""Number of attempts for a request."""

SECONDS = 30.0
"""Time limit of a request that writes, to which one second is added for every SLOWEST bytes."""

SLOWEST = 1_000_000
"""Bytes per second below which a store is considered to hang."""

READ_SECONDS = 180.0
"""Time limit of a request that reads."""

RETRY_SECONDS = 60.0
"""Seconds after which a request is not retried, because the client has already retried for so long."""

CONNECTIONS = 64
"""Most connections of a process to S3. botocore's own limit of 10 would hold back the requests of several threads."""

PAUSE = 0.3
"""Longest pause before the second attempt, in seconds. It doubles before the third."""


_EXTRAS = {
    "hf": "hub",
    **dict.fromkeys(("http", "https"), "http"),
    **dict.fromkeys(("s3", "s3a"), "s3"),
}
"""The extra that a protocol of fsspec needs."""


def lost() -> tuple[type[Exception], ...]:
    """Return what the clients raise if a store refuses a request, breaks off, cannot be reached, or is read-only."""
    hub = ("HTTPError", "InvalidURL", "StreamError")  # of huggingface_hub's client, httpx2 in its later versions
    return (
        OSError,
        TimeoutError,
        NotImplementedError,
        *errors_of("botocore.exceptions", "BotoCoreError", "ClientError"),
        *errors_of("aiohttp", "ClientError"),
        *errors_of("httpx", *hub),
        *errors_of("httpx2", *hub),
        *errors_of("obstore.exceptions", "BaseError"),
    )


def errors_of(module: str, *names: str) -> list[type[Exception]]:
    """Return errors of a module, none if it is not imported yet: then it has raised nothing."""
    loaded = sys.modules.get(module)
    return [getattr(loaded, name) for name in names if hasattr(loaded, name)]


def _refused() -> tuple[type[Exception], ...]:
    """Return what the clients raise if credentials are missing or not accepted."""
    return (
        PermissionError,
        *errors_of("botocore.exceptions", "NoCredentialsError", "CredentialRetrievalError"),
        *errors_of("obstore.exceptions", "PermissionDeniedError", "UnauthenticatedError"),
    )


def _final() -> tuple[type[Exception], ...]:
    """Return the errors that another attempt would not change."""
    paths = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
    names = ("AlreadyExistsError", "InvalidPathError", "NotSupportedError", "PreconditionError")
    own = errors_of("obstore.exceptions", *names)
    return *paths, *_refused(), *own, NotImplementedError


def may_pass(error: Exception) -> bool:
    """Return whether another attempt may succeed after this error."""
    return isinstance(error, lost()) and not isinstance(error, _final())


def s3_code(error: BaseException | None) -> str:
    """Return the code that S3 gave for an error, which s3fs may have turned into an OSError."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__ or error.__context__
    return ""


def is_remote(url: str) -> bool:
    """Return whether a path is a URL for fsspec. `file://` is not, because local files are written atomically."""
    return "://" in url and not url.startswith("file://")


def options(url: str) -> dict[str, Any]:
    """Return our options for a file system. They contain no secrets."""
    if url.startswith("hf://"):
        # False: take no token, not even what `hf auth login` has stored. None: take that of the environment.
        return {"endpoint": os.environ.get("HF_ENDPOINT"), "token": None if os.environ.get("HF_TOKEN") else False}
    if not url.startswith("s3://"):
        return {}
    region = os.environ.get("AWS_REGION")  # botocore itself reads only AWS_DEFAULT_REGION
    return {
        "use_listings_cache": False,
        "config_kwargs": {"max_pool_connections": CONNECTIONS, **_configured("config_kwargs")},
        **({"client_kwargs": {"region_name": region}} if region else {}),
    }


def _configured(name: str) -> dict[str, Any]:
    """Return a setting of s3fs from fsspec's configuration, which our own would replace as a whole."""
    value = fsspec.config.conf.get("s3", {}).get(name)
    return dict(value) if isinstance(value, dict) else {}


@lru_cache(maxsize=16)
def _known_filesystem(protocol: str, region: str | None) -> Any:
    del region  # only part of the cache key; `options` reads it from the environment
    try:
        return fsspec.filesystem(protocol, **options(f"{protocol}://"))
    except Exception as error:  # file systems raise exceptions of their own
        extra = _EXTRAS.get(protocol)
        if extra is not None and isinstance(error, ImportError):
            raise MissingExtraError(f"{protocol}://: this needs the extra: pip install 'filterdb[{extra}]'") from error
        reason = " ".join(str(error).split())[:100]
        raise UsageError(f"{protocol}://: expected a protocol that fsspec can open here, got {reason}") from error


def filesystem(url: str) -> Any:
    """Return the file system of a URL, which this process creates once."""
    return _known_filesystem(url.split("://", 1)[0], os.environ.get("AWS_REGION"))


def one_get(url: str) -> dict[str, Any]:
    """Return the options with which a file system fetches an object with one GET.

    By default, s3fs 2026.9 asks for the size first, and fetches an object of more than 50 MiB in parts.
    """
    return {"max_concurrency": 1} if url.startswith("s3://") else {}


def read(url: str) -> bytes:
    """Return an object, with one GET."""
    return bytes(call(url, "cat_file", url, **one_get(url)))


def call(url: str, method: str, *args: Any, seconds: float | None = None, **kwargs: Any) -> Any:
    """Call `method` of the file system behind `url`. Raises TimeoutError after `seconds` (default READ_SECONDS)."""
    files = filesystem(url)
    if not getattr(files, "async_impl", False):
        return getattr(files, method)(*args, **kwargs)
    return run(files.loop, lambda: getattr(files, f"_{method}")(*args, **kwargs), seconds)


def run[T](loop: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[T]], seconds: float | None = None) -> T:
    """Run a coroutine in the event loop of another thread. Raises TimeoutError after `seconds` (READ_SECONDS)."""
    limit = READ_SECONDS if seconds is None else seconds

    async def bounded() -> T:
        return await asyncio.wait_for(work(), limit)

    try:
        result: T = sync(loop, bounded)
        return result
    except TimeoutError as error:  # fsspec's own, which has no text
        raise TimeoutError(str(error.__cause__ or "") or f"no answer within {limit:.0f} s") from error


def writing_seconds(size: int) -> float:
    """Return the time limit of a request that writes `size` bytes."""
    return SECONDS + size / SLOWEST


def retried[T](attempt: Callable[[], T]) -> T:
    """Run `attempt` up to TRIES times, unless its error is final or RETRY_SECONDS have passed."""
    began = time.monotonic()
    for number in range(1, TRIES):
        try:
            return attempt()
        except Exception as error:
            if not may_pass(error):
                raise
            if time.monotonic() - began > RETRY_SECONDS:
                raise
            metrics.count(metrics.RETRIES)
            pause(number)
    return attempt()


def pause(number: int) -> None:
    """Wait before the next attempt, for a random time, so that many workers do not retry at once."""
    time.sleep(random.uniform(0.5, 1) * PAUSE * 2 ** (number - 1))


@contextmanager
def store_errors(action: str, url: str) -> Iterator[None]:
    """Turn what store clients raise inside the block into a StoreError, or StoreMissingError if an object is missing.

    A StoreError is not changed, because an error raised from itself would be its own cause.
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
    except Exception as error:
        if not isinstance(error, lost()):
            raise
        raise store_error(action, url, error) from redacted_error(error, url)


def store_error(action: str, url: str, error: BaseException) -> StoreError:
    """Return an error with a message of one line that names the object, the store's reason and a remedy."""
    reason = " ".join(redact(str(error), url).split())[:200] or type(error).__name__
    url = redact_url(url)
    if isinstance(error, tuple(errors_of("botocore.exceptions", "FlexibleChecksumError"))):
        return DamageError(
            f"{action} {url}: expected the bytes that were put, got others ({reason}); restore it from a copy"
        )
    remedy = "check the credentials and rights" if isinstance(error, _refused()) else "check the store, run again"
    return StoreError(f"{action} {url}: the store refused or failed ({reason}); {remedy}")
