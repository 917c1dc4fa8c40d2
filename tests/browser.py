"""A real browser: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

ARGUMENTS = [
    "--no-sandbox",  # refused to root otherwise, which containers of CI run as
    "--no-proxy-server",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, headless. While it is open, playwright's event loop runs in this thread."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium: expected it on the PATH, found none; install it: apt-get install chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, headless=True, args=ARGUMENTS)
        yield found
        found.close()
