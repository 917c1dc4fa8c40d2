"""Mark every test of this folder as one of deploy/."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.api_server import Api, served

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the marker `deploy`. pytest hands every folder's hook the items of all folders."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.deploy)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Api], dict[str, str]]]:
    """Serve an API of Kubernetes; return the environment that leads kubectl and the scripts there, without pauses."""
    quick = {"PAUSE": "0.05", "RETRY_PAUSE": "0", "ATTEMPTS": "4", "TMPDIR": str(tmp_path)}
    with ExitStack() as stack:
        yield lambda api: stack.enter_context(served(api, tmp_path)) | quick
