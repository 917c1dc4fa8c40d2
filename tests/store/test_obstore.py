"""The same operations by obstore, on emulators of S3, Azure and Google Cloud Storage.

SeaweedFS comes with the tests' dependencies. The emulators of the others are installed by `make emulators`.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import StoreError, StoreMissingError
from filterdb.store import clients, remote
from filterdb.store.files import Files
from filterdb.store.objects import RANGE_BYTES
from filterdb.store.obstore_objects import ObstoreObjects
from tests import seaweed
from tests.faults.place import BUCKET, make_bucket
from tests.faults.proxy import (
    DROP_REPLY,
    FOREVER,
    RESET,
    RESET_IN_BODY,
    STALL,
    TRUNCATE,
    Action,
    Proxy,
    proxying,
    status,
)
from tests.models import chain, weights
from tests.store import emulators

pytestmark = pytest.mark.slow

DATA = np.random.default_rng(0).bytes(1000)


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with emulators.azurite(tmp_path_factory.mktemp("azurite")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def fake_gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with emulators.fake_gcs(tmp_path_factory.mktemp("gcs")) as endpoint:
        yield endpoint


@pytest.fixture(params=["s3", pytest.param("az", marks=pytest.mark.soak), pytest.param("gs", marks=pytest.mark.soak)])
def files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Files:
    """A fresh prefix."""
    if request.param == "s3":
        endpoint = request.getfixturevalue("s3_server")
        make_bucket(endpoint)
        environment = {**seaweed.KEYS, "AWS_ENDPOINT_URL": endpoint, clients.CLIENT: "obstore"}
    elif request.param == "gs":
        account = {"gcs_base_url": request.getfixturevalue("fake_gcs"), "disable_oauth": True}
        keys = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps({**account, **keys})}
    else:
        endpoint = request.getfixturevalue("azurite")
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": emulators.ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": emulators.KEY,
            "AZURE_STORAGE_ENDPOINT": endpoint,
        }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    files = Files.at(f"{request.param}://{BUCKET}/{uuid.uuid4().hex} é/db")
    assert isinstance(clients.client(files.root), ObstoreObjects)
    return files


def test_objects(files: Files) -> None:
    files.probe()
    files.check_writable()
    contents = {f"a/{number}": bytes([number]) for number in range(50)}
    files.put(contents)
    assert files.list("a") == dict.fromkeys(sorted(contents), 1)
    assert set(files.list("")) == set(contents)
    assert files.list("none") == files.list("a/1") == {}
    assert all(abs(entry.modified - time.time()) < 600 for entry in files.entries("a").values())
    assert files.read_many([*contents, "missing"]) == contents
    files.remove(["a/1", "missing"])
    with pytest.raises(StoreMissingError, match="a/1: expected an object there, found none"):
        files.read("a/1")


def test_create_never_overwrites(files: Files) -> None:
    assert files.create("x", b"mine")
    assert not files.create("x", b"theirs")
    assert files.create("x", b"mine")
    assert files.read("x") == b"mine"
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: files.create("race", f"{i}".encode()), range(16)))
    assert sum(won) == 1
    assert files.read("race") == str(won.index(True)).encode()


def test_ranges(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANGE_BYTES, "100")
    data = np.random.default_rng(0).bytes(1000)
    files.put({"large": data})
    for size in (1000, 1, 99, 999, 1001, 3000):
        with files.opened("large", size) as reader:
            assert bytes(reader.whole()) == data
    with pytest.raises(StoreMissingError), files.opened("missing", 1000):
        pass


def test_a_database(files: Files, tmp_path: Path) -> None:
    """The numbers are those of a folder, and Zarr opens it."""
    models = [chain(tmp_path / f"{name}.onnx", weights(4, 3, seed)) for seed, name in enumerate("ab")]
    db = fdb.ingest(files.root, models, chunk_rows=10).database
    local = fdb.ingest(tmp_path / "db", models, chunk_rows=10).database
    drift, expected = fdb.drift(db, by="model"), fdb.drift(local, by="model")
    assert drift.identical(expected.assign_attrs(drift.attrs))
    np.testing.assert_array_equal(db.dataset["filters"].compute(), local.dataset["filters"].compute())


@pytest.fixture
def proxied(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Files, Proxy]]:
    """An object of 1,000 bytes, which is read in ranges of 100, behind a proxy."""
    make_bucket(s3_server)
    with proxying(s3_server) as proxy:
        environment = {**seaweed.KEYS, "AWS_ENDPOINT_URL": proxy.endpoint, RANGE_BYTES: "100"}
        for name, value in {**environment, clients.CLIENT: "obstore"}.items():
            monkeypatch.setenv(name, value)
        files = Files.at(f"s3://{BUCKET}/{uuid.uuid4().hex}/db")
        files.put({"large": DATA})
        proxy.clear()
        yield files, proxy


@pytest.mark.parametrize("fault", [status(503), RESET, RESET_IN_BODY, TRUNCATE], ids=str)
def test_a_request_that_fails_is_made_again(proxied: tuple[Files, Proxy], fault: Action) -> None:
    files, proxy = proxied
    rules = [proxy.fault(lambda request, method=method: request.method == method, fault) for method in ("GET", "PUT")]  # type: ignore[misc]
    with files.opened("large", 1000) as reader:
        assert bytes(reader.whole()) == DATA
    files.put({"other": b"1"})
    assert files.read("other") == b"1"
    assert files.create("created", b"1")
    assert [rule.applied for rule in rules] == [1, 1]
    assert {request.method for request in proxy.requests} == {"GET", "PUT"}


def test_a_created_object_whose_reply_is_lost(proxied: tuple[Files, Proxy]) -> None:
    files, proxy = proxied
    proxy.fault(lambda request: request.method == "PUT", DROP_REPLY)
    assert files.create("mine", b"mine")
    assert not files.create("mine", b"theirs")


def test_a_store_that_never_answers(proxied: tuple[Files, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    files, proxy = proxied
    monkeypatch.setattr(remote, "READ_SECONDS", 1.0)
    monkeypatch.setattr(remote, "RETRY_SECONDS", 0.5)
    proxy.fault(lambda request: request.method == "GET", STALL, FOREVER)
    for read in (lambda: files.read("large"), lambda: files.read_many(["large"]), lambda: files.list("")):
        with pytest.raises(StoreError, match="no answer within 1 s") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_requests(proxied: tuple[Files, Proxy]) -> None:
    """One GET for each object or range, and nothing else."""
    files, proxy = proxied
    assert files.read_many(["large", "missing"]) == {"large": DATA}
    with files.opened("large", 1000) as reader:
        assert reader.size == 1000
    assert [request.method for request in proxy.requests] == ["GET"] * 12


def test_a_refusal_is_one_line_without_secrets(proxied: tuple[Files, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = proxied
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrongsecret")
    for work in (lambda: files.read("large"), lambda: files.create("x", b"1"), lambda: files.list("")):
        with pytest.raises(StoreError, match="check the credentials and rights") as caught:
            work()
        assert "\n" not in str(caught.value)
        assert "wrongsecret" not in str(caught.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(StoreError, match="check the credentials and rights"):
        files.read("large")
    with pytest.raises(StoreError, match="no-such-bucket"):
        Files.at("s3://no-such-bucket/db").create("x", b"1")
