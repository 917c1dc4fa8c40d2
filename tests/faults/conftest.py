"""Fixtures of the tests on an object store that fails."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from tests import seaweed
from tests.faults.place import BUCKET, Outcome, Place, forget_clients, ingest, make_bucket, outcome
from tests.faults.proxy import proxying
from tests.models import chain, weights


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models, 56 filters in 6 chunks of 10."""
    folder = tmp_path_factory.mktemp("models")
    return [
        chain(folder / f"{name}.onnx", weights(4, 3, seed), weights(4, 4, seed + 1))
        for seed, name in enumerate(("a", "b"))
    ]


@pytest.fixture
def two_threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture(scope="module")
def undisturbed(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """In a folder of this machine."""
    url = str(tmp_path_factory.mktemp("undisturbed") / "db")
    ingest(url, models)
    return outcome(url)


@pytest.fixture
def place(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    forget_clients()
    with proxying(s3_server) as proxy:
        for name, value in {**seaweed.KEYS, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
            monkeypatch.setenv(name, value)
        make_bucket(s3_server)
        try:
            yield Place(proxy, f"s3://{BUCKET}/{uuid.uuid4().hex}/db")
        finally:
            forget_clients()
