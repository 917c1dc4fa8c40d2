"""Ten small models on a web server, for tests of crawls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import site as sites
from tests.ingestion.crawling import NAMES
from tests.models import chain, weights
from tests.site import Site


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Ten models by path; each has 12 filters of its own."""
    folder = tmp_path_factory.mktemp("contents")
    return {f"/{n}.onnx": chain(folder / f"{n}.onnx", weights(seed=i)).read_bytes() for i, n in enumerate(NAMES)}


@pytest.fixture
def site(contents: dict[str, bytes], short_pauses: None) -> Iterator[Site]:
    with sites.serving() as served:
        served.files.update(contents)
        yield served


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "db"
