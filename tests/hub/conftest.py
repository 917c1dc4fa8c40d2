"""A stand-in hub for each test, and no waiting between attempts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from filterdb.store import http
from tests.hub.server import Hub, serving


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, short_pauses: None) -> Iterator[Hub]:
    """Serve an empty hub, without a token in the environment."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FILTERDB_CACHE", str(tmp_path / "cache"))
    http._resume_at.clear()
    with serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        yield served
