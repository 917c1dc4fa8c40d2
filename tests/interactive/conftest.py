"""A browser of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import chromium


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, headless. One per test: while it is open, playwright's event loop runs in this thread."""
    with chromium() as found:
        yield found
