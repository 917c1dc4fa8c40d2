"""A database whose page has everything to see, among it names that would like to be more than names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

import filterdb as fdb
from tests.browser import chromium
from tests.models import chain

HOSTILE = (
    "<script>window.hit=1;alert(1)</script>",
    "\"><img src=x onerror='window.hit=1'>&amp;${window.hit=1}`",
    "</script><svg onload=window.hit=1>$x^2_ {{7*7}} \u202egnp.exe",
)
"""Names of three models; the first is a task's as well, the last a family's."""

SIDE = 24
"""Channels in and out of a layer."""

SMOOTH = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, one for all tests of a module."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def page_db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Fifteen models of three tasks, two of which are drawn from one population, and three with hostile names.

    Layers that are dead and collapsed; checkpoints of one training.
    """
    folder = tmp_path_factory.mktemp("page")
    rows = []
    for number in range(15):
        rng = np.random.default_rng(number)
        task = ("detection", "segmentation", "classification")[number % 3]
        layers: list[np.ndarray] = [rng.standard_normal((SIDE, SIDE, 3, 3)).astype(np.float32) for _ in range(3)]
        if task == "classification":
            layers = [one + SMOOTH * rng.standard_normal((SIDE, SIDE, 1, 1)).astype(np.float32) * 2 for one in layers]
        if number == 4:
            layers[1][:] = 0.0
        if number == 7:
            layers[2][:] = SMOOTH * rng.uniform(0.5, 1.0, (SIDE, SIDE, 1, 1))
        chain(folder / f"{number}.onnx", *layers)
        rows.append(
            {
                "path": f"{number}.onnx",
                "name": f"model {number}",
                "task": task,
                "training_dataset": ("photos", "scans")[number % 2],
                "family": ("ResNet", "VGG")[number // 3 % 2],
                "architecture": "net" if number % 6 == 0 else f"net {number}",
                "epoch": number if number % 6 == 0 else "",
            }
        )
    for number, name in enumerate(HOSTILE):
        rng = np.random.default_rng(100 + number)
        chain(folder / f"h{number}.onnx", rng.standard_normal((8, 8, 3, 3)).astype(np.float32), prefix=name)
        labels = {"task": HOSTILE[0], "training_dataset": "photos", "family": HOSTILE[2]}
        rows.append({"path": f"h{number}.onnx", "name": name, **labels})
    pd.DataFrame(rows).to_csv(folder / "catalog.csv", index=False)
    with dask.config.set(scheduler="threads"):
        return fdb.ingest(folder / "db", catalog=folder / "catalog.csv").database


@pytest.fixture(scope="session")
def made(page_db: fdb.Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page."""
    with dask.config.set(scheduler="threads"):
        return Path(fdb.report(page_db, tmp_path_factory.mktemp("made") / "report"))


def violations(page: Page, rules: list[str] | None = None) -> list[tuple[str, list[str]]]:
    """Return the rules of axe-core that a page violates, with the elements."""
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    response = Axe().run(page, options=options).response
    assert len(response["passes"]) >= (1 if rules else 20)
    return [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in response["violations"]]


def wait_until(page: Page, expression: str, arg: object = None) -> None:
    """Wait until a JavaScript expression, or a function of `arg`, is true.

    The page's policy forbids Playwright's `wait_for_function` to evaluate a string more than once.
    """
    end = time.monotonic() + 20
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


@dataclass
class Opened:
    """A page in the browser, with all that it said and asked for."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Before the page is loaded."""
        self.page.on("request", self._requested)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        self.complaints.append(f"{message.type}: {message.text}")

    def draw_all(self) -> None:
        """Every figure, also those that are far below."""
        self.page.evaluate("filterdb.everything()")
        self.page.wait_for_selector("html[data-drawing='0']", state="attached")


@pytest.fixture(scope="module")
def drawn_once(browser: Browser, made: Path) -> Iterator[Opened]:
    """The page with every figure, for tests that leave no trace."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Opened(context.new_page())
    opened.page.set_default_timeout(20_000)
    opened.watch()
    opened.page.goto(f"file://{made}")
    opened.draw_all()
    yield opened
    context.close()


@pytest.fixture
def drawn(drawn_once: Opened) -> Iterator[Opened]:
    """The page with every figure, in its first state; it does not complain."""
    page = drawn_once.page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(media="screen", color_scheme="light")
    page.evaluate("location.hash = location.hash === '#summary' ? '#contents' : '#summary'")
    page.wait_for_selector("[data-figure=heatmap] .heat[aria-label*='by task']")
    drawn_once.complaints.clear()
    yield drawn_once
    assert drawn_once.complaints == []


@pytest.fixture
def show(browser: Browser, made: Path) -> Iterator[Callable[..., Opened]]:
    """Opens the page; arguments as of a browser's context."""
    contexts: list[BrowserContext] = []

    def open_page(width: int = 1280, height: int = 900, where: Path = made, **options: object) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.set_default_timeout(20_000)
        opened.watch()
        opened.page.goto(f"file://{where}")
        return opened

    yield open_page
    for context in contexts:
        context.close()
