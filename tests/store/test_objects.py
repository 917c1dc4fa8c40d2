"""The requests that each operation on objects makes, counted between a client and a real S3 server."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import zarr

from filterdb.errors import StoreMissingError
from filterdb.store.files import Files
from filterdb.store.objects import IN_FLIGHT
from tests import seaweed
from tests.faults.place import BUCKET, forget_clients, make_bucket
from tests.faults.proxy import FOREVER, Proxy, Request, latency, proxying, status

CONTENTS = {f"a/{number:03}": bytes([number]) * 100 for number in range(40)}
MISSING = [f"a/missing-{number}" for number in range(7)]


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[Proxy]:
    make_bucket(s3_server)
    with proxying(s3_server) as proxy:
        yield proxy


@pytest.fixture
def files(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """40 objects below a fresh prefix, and no request counted so far."""
    forget_clients()
    for name, value in {**seaweed.KEYS, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
        monkeypatch.setenv(name, value)
    files = Files.at(f"s3://{BUCKET}/{uuid.uuid4().hex}/db")
    files.put(CONTENTS)
    proxy.clear()
    yield files
    forget_clients()


def kind(request: Request) -> str:
    return "LIST" if "list-type=" in request.path else request.method


def counted(proxy: Proxy) -> dict[str, int]:
    """Return the number of requests of each kind since the last call."""
    counts = Counter(map(kind, proxy.requests))
    proxy.clear()
    return dict(counts)


def test_requests_of_reads(files: Files, proxy: Proxy) -> None:
    assert files.read("a/001") == CONTENTS["a/001"]
    assert counted(proxy) == {"GET": 1}
    with pytest.raises(StoreMissingError):
        files.read("a/missing")
    assert counted(proxy) == {"GET": 1}
    with files.opened("a/002") as reader:
        assert bytes(reader.whole()) == CONTENTS["a/002"]
    assert counted(proxy) == {"GET": 1}


@pytest.mark.parametrize("missing", [[], MISSING], ids=["all present", "some missing"])
def test_requests_of_many_reads(missing: list[str], files: Files, proxy: Proxy) -> None:
    assert files.read_many([*missing, *CONTENTS]) == CONTENTS
    assert counted(proxy) == {"GET": len(CONTENTS) + len(missing)}


def test_many_reads_of_missing_objects(files: Files, proxy: Proxy) -> None:
    assert files.read_many(MISSING) == {}
    assert counted(proxy) == {"GET": len(MISSING)}
    assert files.read_many([]) == {}
    assert counted(proxy) == {}


def test_many_reads_are_concurrent_up_to_a_bound(files: Files, proxy: Proxy) -> None:
    in_flight: list[int] = []

    def count(request: Request) -> bool:
        in_flight.append(1 + sum(earlier.status is None for earlier in proxy.requests))
        return True

    proxy.fault(count, latency(0.2), FOREVER)
    assert files.read_many(list(CONTENTS)) == CONTENTS
    assert max(in_flight) == IN_FLIGHT < len(CONTENTS)


def test_an_object_that_fails_is_read_again_alone(files: Files, proxy: Proxy) -> None:
    proxy.fault(lambda request: request.path.endswith("/a/003"), status(503), 6)
    assert files.read_many(list(CONTENTS)) == CONTENTS
    counts = Counter(request.path.rsplit("/", 1)[1] for request in proxy.requests)
    assert counts.pop("003") == 7
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


def test_requests_of_listings(files: Files, proxy: Proxy) -> None:
    assert files.list("a") == dict.fromkeys(CONTENTS, 100)
    assert counted(proxy) == {"LIST": 1}
    assert files.list("") == files.list("a")
    assert counted(proxy) == {"LIST": 2}
    assert files.list("a/missing") == {}
    assert files.list("a/00") == {}
    assert counted(proxy) == {"LIST": 2}


def test_requests_of_a_zarr_store(files: Files, proxy: Proxy) -> None:
    array = zarr.create_array(files.zarr("z", read_only=False), shape=(4,), chunks=(2,), dtype="int32")
    array[:] = np.arange(4)
    proxy.clear()
    opened = zarr.open_array(files.zarr("z", read_only=True), mode="r")
    assert "HEAD" not in counted(proxy)
    np.testing.assert_array_equal(opened[:], np.arange(4))
    assert counted(proxy) == {"GET": 2}
