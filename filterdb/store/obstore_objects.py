"""obstore as a client of object stores: S3, Google Cloud Storage and Azure, with conditional puts on each of them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from fsspec.asyn import get_loop

from filterdb.errors import MissingExtraError, UsageError
from filterdb.store import remote
from filterdb.store.local import ObjectInfo
from filterdb.store.objects import OtherSizeError, all_or_error, in_turns, ranges, read_all

if TYPE_CHECKING:
    from zarr.abc.store import Store

_VARIABLES = {"s3": "AWS_", "gs": "GOOGLE_", "gcs": "GOOGLE_", "az": "AZURE_", "abfs": "AZURE_"}
"""Protocol → how the names of the environment variables begin that obstore reads."""

SCHEMES = frozenset(_VARIABLES)
"""The protocols of URLs."""

_PIECE = 2**20
"""Least bytes that are copied from a connection's buffer at a time."""

_CREDENTIAL_SECONDS = 300
"""Seconds after which credentials that expire are looked up again. botocore renews them well before they expire."""


@dataclass(frozen=True, slots=True)
class ObstoreObjects:
    """The objects of a store that obstore knows."""

    def read(self, url: str) -> bytes:
        return _run(lambda: _get(url))

    def read_many(self, urls: Sequence[str]) -> list[bytes | Exception]:
        return read_all(get_loop(), _get, urls)

    def read_sized(self, url: str, size: int) -> memoryview:
        buffer = memoryview(np.empty(size, np.uint8))

        async def fetch() -> None:
            await all_or_error([_fill(url, start, buffer[start:stop], size) for start, stop in ranges(size)])

        try:
            _run(fetch)
        except OtherSizeError:
            return memoryview(self.read(url))
        return buffer.toreadonly()

    def reading_bytes(self, size: int) -> int:
        return size + 2 * _PIECE * len(ranges(size))

    def entries(self, root: str, prefix: str) -> Iterator[tuple[str, ObjectInfo]]:
        store, base = _located(root)
        below = "/".join(filter(None, (base, prefix)))

        async def listed() -> list[Any]:
            return [entry async for batch in _obstore().list(store, prefix=below or None) for entry in batch]

        try:
            entries = _run(listed)
        except remote.lost() as error:
            raise _listing_error(error) from error
        for entry in entries:
            name = entry["path"].removeprefix(base).lstrip("/")
            if name:
                yield name, ObjectInfo(int(entry["size"]), entry["last_modified"].timestamp())

    def create(self, url: str, data: bytes) -> None:
        _run(lambda: _put(url, data, "create"), remote.writing_seconds(len(data)))

    def put(self, objects: Mapping[str, bytes | memoryview]) -> None:
        seconds = remote.writing_seconds(sum(map(len, objects.values())))
        puts = [partial(_put, url, data, "overwrite") for url, data in objects.items()]
        _run(lambda: in_turns(puts), seconds)

    def remove(self, url: str) -> None:
        store, key = _located(url)
        _run(lambda: _obstore().delete_async(store, key), remote.SECONDS)

    def zarr(self, url: str, *, read_only: bool) -> Store:
        from zarr.storage import ObjectStore

        scheme, bucket, key = _parts(url)
        return ObjectStore(_store(scheme, bucket, key, _environment(scheme)), read_only=read_only)


def _listing_error(error: Exception) -> Exception:
    """Return the error of a listing by its kind. obstore 0.12 raises GenericError, whatever the store has answered."""
    for code, kind in {"401": PermissionError, "403": PermissionError, "404": FileNotFoundError}.items():
        if f"non-2xx status code: {code} " in str(error):
            return kind(str(error))
    return error


def _obstore() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise MissingExtraError("obstore: this needs the extra: pip install 'filterdb[obstore]'") from error
    import obstore.exceptions  # where `remote` looks for them

    return obstore


def _run[T](work: Callable[[], Awaitable[T]], seconds: float | None = None) -> T:
    return remote.run(get_loop(), work, seconds)


async def _get(url: str) -> bytes:
    store, key = _located(url)
    reply = await _obstore().get_async(store, key)
    return bytes(await reply.bytes_async())


async def _fill(url: str, start: int, target: memoryview, size: int) -> None:
    """Read a range of an object of `size` bytes into `target`. Raises OtherSizeError if the object has another size."""
    store, key = _located(url)
    try:
        reply = await _obstore().get_async(store, key, options={"range": (start, start + len(target))})
    except remote.lost() as error:
        if "416 Range Not Satisfiable" in str(error):
            raise OtherSizeError from None
        raise
    if reply.meta["size"] != size:
        raise OtherSizeError
    done = 0
    async for piece in reply.stream(min_chunk_size=_PIECE):
        target[done : done + len(piece)] = piece
        done += len(piece)
    if done != len(target):
        raise ConnectionError(f"expected {len(target):,} bytes, got {done:,}")


async def _put(url: str, data: bytes | memoryview, mode: str) -> None:
    store, key = _located(url)
    await _obstore().put_async(store, key, data, mode=mode, use_multipart=False)


def _located(url: str) -> tuple[Any, str]:
    """Return the store of a URL's bucket, and the key."""
    scheme, bucket, key = _parts(url)
    return _store(scheme, bucket, None, _environment(scheme)), key


def _parts(url: str) -> tuple[str, str, str]:
    scheme, rest = url.split("://", 1)
    bucket, _, key = rest.partition("/")
    return scheme, bucket, key


def _environment(scheme: str) -> tuple[tuple[str, str], ...]:
    """Return the environment variables that obstore takes credentials and endpoints from."""
    start = _VARIABLES[scheme]
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(start)))


@lru_cache(maxsize=16)
def _store(scheme: str, bucket: str, prefix: str | None, environment: tuple[tuple[str, str], ...]) -> Any:
    """Return the store of a bucket, which this process creates once for each environment."""
    _obstore()
    from obstore.store import AzureStore, GCSStore, S3Store

    settings = dict(environment)
    common: dict[str, Any] = {
        "prefix": prefix,
        # An endpoint with http:// was set by the user.
        "client_options": {"allow_http": True, "timeout": timedelta(seconds=remote.READ_SECONDS)},
        "retry_config": {"max_retries": _retries(settings), "retry_timeout": timedelta(seconds=remote.RETRY_SECONDS)},
    }
    try:
        match _VARIABLES[scheme]:
            case "AWS_":
                region = settings.get("AWS_REGION") or settings.get("AWS_DEFAULT_REGION") or "us-east-1"
                return S3Store(bucket, region=region, credential_provider=_botocore_credentials(), **common)
            case "GOOGLE_":
                return GCSStore(bucket, **common)
            case _:
                return AzureStore(bucket, **common)
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise UsageError(f"{scheme}://{bucket}: expected settings that obstore understands, got {reason}") from error


def _retries(settings: Mapping[str, str]) -> int:
    """Return how often a request is made again: as botocore does."""
    text = settings.get("AWS_MAX_ATTEMPTS", "")
    return max(1, int(text)) - 1 if text.isdecimal() else 4


def _botocore_credentials() -> Callable[[], dict[str, Any]]:
    """Return a function that looks up the credentials which s3fs would take: environment, profile, role.

    obstore itself reads no profile and asks for no single sign-on.
    """
    from botocore.exceptions import NoCredentialsError
    from botocore.session import Session

    session = Session()

    def credentials() -> dict[str, Any]:
        known = session.get_credentials()
        if known is None:
            raise NoCredentialsError
        frozen = known.get_frozen_credentials()
        renewed = hasattr(known, "refresh_needed")
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_CREDENTIAL_SECONDS) if renewed else None,
        }

    return credentials
