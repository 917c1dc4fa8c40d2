"""Shared by the tests on an object store: a place behind a proxy, requests and faults by name, what must come out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s3fs

import filterdb as fdb
from filterdb.reduce.integrity import verify
from filterdb.store import remote
from filterdb.store.files import Files
from tests import seaweed
from tests.faults.proxy import RESET, RESET_IN_BODY, TRUNCATE, Action, Proxy, Request, latency, status

BUCKET = "tests"
BOUND = 180.0
"""Seconds after which a store that never answers must have become an error."""

Match = Callable[[Request], bool]


def asks(method: str, pattern: str) -> Match:
    """Requests for an object whose path matches; listings are none."""
    return lambda request: (
        request.method == method and "list-type=" not in request.path and re.search(pattern, request.path) is not None
    )


CHUNK = r"/filters/c/\d+/0$"
TABLE = r"/segments/[^/]*\.safetensors$"
SUMMARY = r"/summaries/.*\.npz$"
SNAPSHOT = r"/snapshots/\d{8}\.json$"

KINDS: dict[str, Match] = {
    "GET chunk": asks("GET", CHUNK),
    "GET table": asks("GET", TABLE),
    "list": lambda request: "list-type=2" in request.path,
    "PUT chunk": asks("PUT", CHUNK),
    "PUT summary": asks("PUT", SUMMARY),
    "PUT snapshot": asks("PUT", SNAPSHOT),
}

TOGETHER = {
    "reads": ["GET chunk", "GET table", "list"],
    "writes": ["PUT chunk", "PUT summary", "PUT snapshot"],
}
"""Kinds that are broken in one run: no request is of two kinds, and a run takes seconds."""

FAULTS: dict[str, tuple[Action, int]] = {
    "503 twice": (status(503), 2),
    "500 once": (status(500), 1),
    "reset before": (RESET, 1),
    "reset in body": (RESET_IN_BODY, 1),
    "truncated": (TRUNCATE, 1),
    "late": (latency(0.5), 2),
}


@dataclass(frozen=True, slots=True)
class Place:
    """An S3 user's environment, whose requests pass a proxy."""

    proxy: Proxy
    url: str

    def fault(self, match: Match, action: Action, times: int = 1) -> Any:
        return self.proxy.fault(match, action, times)

    def names(self, prefix: str) -> list[str]:
        return list(Files.at(self.url).list(prefix))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What must not depend on what happened on the way."""

    numbers: dict[str, bytes]
    chunks: dict[str, bytes]


def forget_clients() -> None:
    """s3fs keeps a client for each kind of option, filterdb one for each region: none may outlive its endpoint."""
    remote._known_filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


def administrator(endpoint: str) -> s3fs.S3FileSystem:
    """A client of our own, past the proxy and past the environment."""
    return s3fs.S3FileSystem(
        key=seaweed.KEYS["AWS_ACCESS_KEY_ID"],
        secret=seaweed.KEYS["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=endpoint,
        client_kwargs={"region_name": seaweed.KEYS["AWS_REGION"]},
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def make_bucket(endpoint: str) -> None:
    files = administrator(endpoint)
    if not files.exists(BUCKET):
        files.mkdir(BUCKET)


def ingest(url: str, models: list[Path]) -> fdb.Database:
    return fdb.ingest(url, models, chunk_rows=10).database


def numbers(url: str) -> dict[str, bytes]:
    """Every number of a drift."""
    found = fdb.drift(fdb.open(url), by="model")
    return {
        str(name): repr(array.values.tolist()).encode() if array.dtype.kind in "OUT" else array.values.tobytes()
        for name, array in found.variables.items()
    }


def outcome(url: str) -> Outcome:
    """The whole of it, after an ingest: drift, deep verification, chunks."""
    found = numbers(url)
    checked = verify(fdb.open(url), deep=True)
    assert (checked.chunks, checked.problems) == (6, [])
    return Outcome(found, chunks(url))


def chunks(url: str) -> dict[str, bytes]:
    files = Files.at(url)
    return files.read_many([name for name in files.list("segments") if re.search(CHUNK, name)])


def snapshots(place: Place) -> list[str]:
    return [name for name in place.names("snapshots") if name.endswith(".json")]


def put_chunks(place: Place) -> list[str]:
    """Paths of the chunks that the server has taken."""
    return [request.path for request in place.proxy.seen(KINDS["PUT chunk"]) if request.status == 200]


def is_one_line(error: BaseException) -> bool:
    return "\n" not in str(error) and str(error) != ""
