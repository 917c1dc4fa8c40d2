"""Make single HTTP requests: with time limits, retries that obey Retry-After, and redirects that leak no credentials.

The session is that of fsspec's HTTP file system, so that its configuration holds here too. A token, and what fsspec's
configuration sends, goes only to the host that the request was made to, never to one that it redirects to.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from filterdb import metrics
from filterdb.errors import StoreError, StoreMissingError
from filterdb.redaction import redact_url
from filterdb.store import remote

MAX_REDIRECTS = 10
"""Most redirects of a request."""

TRIES = 5
"""Number of attempts for a request that fails in another way than by 429 or 503 with Retry-After."""

MAX_WAIT = 300.0
"""Most seconds that a server may ask to wait. If it asks for more, the request fails."""

TOTAL_SECONDS = 900.0
"""Seconds after which a request is not made again."""

PAUSE = 0.5
"""Seconds before the second attempt, which double with every further one."""

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which a request is made again."""

_WAIT = frozenset({429, 503})
"""Statuses whose Retry-After is obeyed."""

_resume_at: dict[str, float] = {}
"""When a host that asked to wait may be asked again, by origin, in seconds of `time.monotonic`."""


class StatusError(OSError):
    """A server answered with an error."""

    def __init__(self, status: int, url: str, detail: str = "") -> None:
        super().__init__(f"HTTP {status}{detail}")
        self.status = status
        self.url = url
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what it was made of, so that it comes whole from another process."""
        return type(self), (self.status, self.url, self.detail), self.__dict__


class _RetryError(Exception):
    """A request is to be made again after `wait` seconds (None: after a pause that grows)."""

    def __init__(self, error: Exception, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, headers, body, where the last redirect led, and the headers of the redirects on the way."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    redirects: tuple[Mapping[str, str], ...] = ()


Headers = Callable[[str], Mapping[str, str]]
"""Returns the headers with credentials for a URL; none for a URL that must not get them."""


def no_headers(url: str) -> Mapping[str, str]:
    """Return no headers."""
    del url
    return {}


def origin(url: str) -> str:
    """Return scheme, host and port of a URL. Credentials are sent to one origin only."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or default}"


async def get(
    url: str, headers: Mapping[str, str], *, credentials: Headers = no_headers, limit: int, method: str = "GET"
) -> Reply:
    """Return the answer to a GET or HEAD request, made again after passing errors. The body has at most `limit` bytes.

    A longer body is not read: `body` is empty then. Raises StatusError for a status from 400 on, StoreError if the
    server redirects in circles or away from https, and what aiohttp raises.
    """

    async def attempt() -> Reply:
        return await _get_once(url, headers, credentials, limit, method)

    return await _again(attempt, url)


async def _again(attempt: Callable[[], Awaitable[Reply]], url: str) -> Reply:
    """Run `attempt` until it returns, its error is final, or tries or time have run out."""
    began, failures, host = time.monotonic(), 0, origin(url)
    while True:
        await asyncio.sleep(max(0.0, _resume_at.get(host, 0.0) - time.monotonic()))
        try:
            return await attempt()
        except _RetryError as error:
            wait = error.wait
            if wait is None:
                failures += 1
                wait = PAUSE * 2 ** (failures - 1) * random.uniform(0.5, 1)
            else:
                _resume_at[host] = max(_resume_at.get(host, 0.0), time.monotonic() + wait)
                wait *= random.uniform(1, 1.05)
            if failures >= TRIES or time.monotonic() + wait - began > TOTAL_SECONDS:
                raise error.error from None
        metrics.count(metrics.RETRIES)
        await asyncio.sleep(wait)


async def _get_once(url: str, headers: Mapping[str, str], credentials: Headers, limit: int, method: str) -> Reply:
    import aiohttp

    files = remote.filesystem(url)
    session = await files.set_session()
    first, passed = origin(url), []
    own = {**files.kwargs}
    common = {"Accept-Encoding": "identity", **headers}
    seconds = remote.READ_SECONDS + limit / remote.SLOWEST
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=30, sock_read=60)
    for _ in range(MAX_REDIRECTS + 1):
        is_first = origin(url) == first
        sent = {**(own.get("headers") or {} if is_first else {}), **common, **credentials(url)}
        options = {name: value for name, value in own.items() if name != "headers"} if is_first else {}
        options |= {"headers": sent, "allow_redirects": False, "timeout": timeout}
        try:
            async with session.request(method, _url(url), **options) as response:
                target = response.headers.get("Location")
                if response.status in {301, 302, 303, 307, 308} and target:
                    passed.append(response.headers.copy())
                    url = _redirected(url, target)
                    continue
                _check(response.status, response.headers, url)
                body = await _body(response, limit) if method == "GET" else b""
                return Reply(response.status, response.headers.copy(), body, url, tuple(passed))
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientConnectorCertificateError):
                raise
            raise _RetryError(error if str(error) else TimeoutError("no answer in time")) from error
    raise StoreError(f"{redact_url(url)}: expected an answer, got more than {MAX_REDIRECTS} redirects; check the URL")


async def _body(response: Any, limit: int) -> bytes:
    """Return the body of an answer; nothing if it is longer than `limit` bytes, without reading all of it."""
    if response.content_length is not None and response.content_length <= limit:
        return bytes(await response.read())
    body = bytearray()
    if response.content_length is None:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    response.close()
    return b""


def _url(url: str) -> Any:
    """Return the URL for aiohttp: as it is if it is encoded, because a signature may cover every letter of it."""
    from yarl import URL

    return URL(url, encoded="%" in url and url.isascii() and url.isprintable() and " " not in url)


def _redirected(url: str, target: str) -> str:
    """Return where a redirect leads. Raises StoreError if it leads from https to another protocol."""
    following = urljoin(url, target)
    scheme = urlsplit(following).scheme
    if scheme not in {"http", "https"} or (url.startswith("https://") and scheme != "https"):
        raise StoreError(
            f"{redact_url(url)}: expected a redirect to https, got one to {redact_url(following)}; use its final URL"
        )
    return following


def _check(status: int, headers: Mapping[str, str], url: str) -> None:
    """Raise for a status that is an error: _RetryError if another attempt may change it, else StatusError."""
    if status < 400:
        return
    if status not in _AGAIN:
        raise StatusError(status, url)
    wait = retry_after(headers) if status in _WAIT else None
    if wait is not None and wait > MAX_WAIT:
        raise StatusError(status, url, f", it asks to wait {wait:,.0f} s")
    raise _RetryError(StatusError(status, url), wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait; None if it does not say so, or not in a valid way."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def status_error(action: str, url: str, error: StatusError) -> StoreError:
    """Return the error to raise for an answer, with a message of one line that has no credentials."""
    shown = redact_url(url)
    if error.status in {404, 410}:
        return StoreMissingError(f"{action} {shown}: expected an object there, found none")
    remedy = "check the store, run again"
    if error.status in {401, 403, 407}:
        remedy = "check the credentials and rights"
    return StoreError(f"{action} {shown}: the store refused or failed ({error}); {remedy}")
