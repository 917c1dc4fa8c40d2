"""The requests that each operation on objects makes, counted between a client and a real S3 server."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import zarr

from filterdb.errors import MissingExtraError, StoreMissingError, UsageError
from filterdb.store import clients
from filterdb.store.files import Files
from filterdb.store.objects import IN_FLIGHT, RANGE_BYTES, ranges
from tests import seaweed
from tests.faults.place import BUCKET, forget_clients, make_bucket
from tests.faults.proxy import (
    FOREVER,
    RESET,
    RESET_IN_BODY,
    TRUNCATE,
    Action,
    Proxy,
    Request,
    latency,
    proxying,
    status,
)

CONTENTS = {f"a/{number:03}": bytes([number]) * 100 for number in range(40)}
MISSING = [f"a/missing-{number}" for number in range(7)]


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[Proxy]:
    """The proxy that every client of this module uses."""
    make_bucket(s3_server)
    forget_clients()
    with proxying(s3_server) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in {**seaweed.KEYS, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
            patch.setenv(name, value)
        yield proxy
    forget_clients()


@pytest.fixture
def files(proxy: Proxy) -> Files:
    """A fresh prefix, and no request counted so far."""
    proxy.clear()
    return Files.at(f"s3://{BUCKET}/{uuid.uuid4().hex}/db")


@pytest.fixture(scope="module")
def stored(proxy: Proxy) -> Files:
    """40 objects, which no test changes."""
    files = Files.at(f"s3://{BUCKET}/{uuid.uuid4().hex}/db")
    files.put(CONTENTS)
    return files


@pytest.fixture
def many(stored: Files, proxy: Proxy) -> Files:
    """The same, and no request counted so far."""
    proxy.clear()
    return stored


def kind(request: Request) -> str:
    return "LIST" if "list-type=" in request.path else request.method


def counted(proxy: Proxy) -> dict[str, int]:
    """Return the number of requests of each kind since the last call."""
    counts = Counter(map(kind, proxy.requests))
    proxy.clear()
    return dict(counts)


def test_requests_of_reads(many: Files, proxy: Proxy) -> None:
    assert many.read("a/001") == CONTENTS["a/001"]
    assert counted(proxy) == {"GET": 1}
    with pytest.raises(StoreMissingError):
        many.read("a/missing")
    assert counted(proxy) == {"GET": 1}
    with many.opened("a/002") as reader:
        assert bytes(reader.whole()) == CONTENTS["a/002"]
    assert counted(proxy) == {"GET": 1}


def test_requests_of_many_reads(many: Files, proxy: Proxy) -> None:
    assert many.read_many(list(CONTENTS)) == CONTENTS
    assert counted(proxy) == {"GET": len(CONTENTS)}
    assert many.read_many([*MISSING, *CONTENTS]) == CONTENTS
    assert counted(proxy) == {"GET": len(CONTENTS) + len(MISSING)}


def test_many_reads_of_missing_objects(many: Files, proxy: Proxy) -> None:
    assert many.read_many(MISSING) == {}
    assert counted(proxy) == {"GET": len(MISSING)}
    assert many.read_many([]) == {}
    assert counted(proxy) == {}


def test_many_reads_are_concurrent_up_to_a_bound(many: Files, proxy: Proxy) -> None:
    in_flight: list[int] = []

    def count(request: Request) -> bool:
        in_flight.append(1 + sum(earlier.status is None for earlier in proxy.requests))
        return True

    proxy.fault(count, latency(0.5), FOREVER)
    assert many.read_many(list(CONTENTS)) == CONTENTS
    assert 10 < max(in_flight) <= IN_FLIGHT < len(CONTENTS)  # 10 is botocore's own limit


def test_an_object_that_fails_is_read_again_alone(many: Files, proxy: Proxy) -> None:
    proxy.fault(lambda request: request.path.endswith("/a/003"), status(403))
    assert many.read_many(list(CONTENTS)) == CONTENTS
    counts = Counter(request.path.rsplit("/", 1)[1] for request in proxy.requests)
    assert counts.pop("003") == 2
    assert set(counts.values()) == {1}


def test_requests_of_writes(files: Files, proxy: Proxy) -> None:
    files.put({"b/1": b"1", "b/2": b"2"})
    assert counted(proxy) == {"PUT": 2}
    assert files.create("b/3", b"3")
    assert counted(proxy) == {"PUT": 1}
    assert not files.create("b/3", b"4")
    assert counted(proxy) == {"PUT": 1, "GET": 1}
    files.remove(["b/1", "b/2"])
    assert counted(proxy) == {"DELETE": 2}
    files.check_writable()
    assert counted(proxy) == {"PUT": 1, "DELETE": 1}


def test_requests_of_listings(many: Files, proxy: Proxy) -> None:
    assert many.list("a") == dict.fromkeys(CONTENTS, 100)
    assert counted(proxy) == {"LIST": 1}
    assert many.list("") == many.list("a")
    assert counted(proxy) == {"LIST": 2}
    assert many.list("a/missing") == {}
    assert many.list("a/00") == {}
    assert counted(proxy) == {"LIST": 2}


def test_requests_of_a_zarr_store(files: Files, proxy: Proxy) -> None:
    array = zarr.create_array(files.zarr("z", read_only=False), shape=(4,), chunks=(2,), dtype="int32")
    array[:] = np.arange(4)
    proxy.clear()
    opened = zarr.open_array(files.zarr("z", read_only=True), mode="r")
    assert "HEAD" not in counted(proxy)
    np.testing.assert_array_equal(opened[:], np.arange(4))
    assert counted(proxy) == {"GET": 2}


SIZE = 1000
"""Bytes of an object that is read in ten parts."""


@pytest.fixture
def large(files: Files, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The bytes of an object named "large", which is read in ranges of 100 bytes."""
    monkeypatch.setenv(RANGE_BYTES, "100")
    data = np.random.default_rng(0).bytes(SIZE)
    files.put({"large": data})
    proxy.clear()
    return data


def read_sized(files: Files, size: int) -> bytes:
    with files.opened("large", size) as reader:
        return bytes(reader.whole())


def test_a_large_object_is_read_in_concurrent_ranges(files: Files, proxy: Proxy, large: bytes) -> None:
    in_flight: list[int] = []

    def count(request: Request) -> bool:
        in_flight.append(1 + sum(earlier.status is None for earlier in proxy.requests))
        return True

    proxy.fault(count, latency(0.5), FOREVER)
    assert read_sized(files, SIZE) == large
    assert 1 < max(in_flight) <= 10
    asked = sorted(request.headers["range"] for request in proxy.requests)
    assert asked == sorted(f"bytes={start}-{start + 99}" for start in range(0, SIZE, 100))
    assert counted(proxy) == {"GET": 10}


@pytest.mark.parametrize("fault", [RESET, RESET_IN_BODY, TRUNCATE, status(503)], ids=str)
def test_only_a_range_that_fails_is_read_again(files: Files, proxy: Proxy, large: bytes, fault: Action) -> None:
    proxy.fault(lambda request: request.headers.get("range") == "bytes=300-399", fault)
    assert read_sized(files, SIZE) == large
    again = [request.headers["range"] for request in proxy.requests if request.headers["range"].endswith("-399")]
    assert len(again) == 2
    assert counted(proxy) == {"GET": 11}


def test_an_object_of_another_size_is_read_whole(files: Files, large: bytes) -> None:
    """So that its reader sees its size."""
    for expected in (1, 99, 101, 999, 1001, 3000):
        assert read_sized(files, expected) == large
    files.put({"large": b""})
    assert read_sized(files, SIZE) == b""


def test_a_missing_large_object(files: Files, large: bytes) -> None:
    files.remove(["large"])
    with pytest.raises(StoreMissingError, match="large"):
        read_sized(files, SIZE)


@pytest.mark.parametrize("text", ["0", "-1", "8 MiB"])
def test_a_setting_that_is_no_number_of_bytes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANGE_BYTES, text)
    with pytest.raises(UsageError, match=f"{RANGE_BYTES}: expected a number of bytes from 1 on, got '{text}'"):
        ranges(SIZE)


@pytest.mark.parametrize(("size", "most"), [(1, 7), (7, 7), (8, 7), (100, 7), (38_748_164, 2**20), (38_748_164, 2**30)])
def test_ranges_cover_an_object_once(size: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANGE_BYTES, str(most))
    parts = ranges(size)
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == size
    assert all(0 < stop - start <= most for start, stop in parts)


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_client_that_is_not_installed(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    for client in ("fsspec", "obstore"):
        monkeypatch.setenv(clients.CLIENT, client)
        with pytest.raises(MissingExtraError, match=r"pip install 'filterdb\[obstore\]'"):
            Files.at(f"{scheme}://bucket/db").read("x")


def test_an_unknown_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clients.CLIENT, "boto")
    with pytest.raises(UsageError, match=f"{clients.CLIENT}: expected fsspec or obstore, got 'boto'"):
        Files.at("s3://bucket/db").read("x")
