"""Dask's dashboard in a real browser, during a pass: it reads like the method.

With FILTERDB_SCREENSHOTS=1 the picture in docs/images is taken anew.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize

import filterdb as fdb

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "dashboard.png"
SIZE: ViewportSize = {"width": 1280, "height": 800}

WAIT = 120_000
"""Milliseconds for what takes a few seconds on a machine that has nothing else to do."""

PASSES = ("moments", "extremes", "histograms")

NAMES = """() => {
    const models = [...Bokeh.documents].flatMap(one => [...one._all_models.values()]);
    const columns = models.filter(one => one.type == "ColumnDataSource").map(one => one.data.name);
    return columns.filter(one => one).flatMap(one => [...one]);
}"""
"""Every name that the page's plots have got from the scheduler: rectangles of the task stream, bars of the progress."""


@pytest.mark.slow
def test_a_pass_is_seen_by_the_names_of_the_method(browser: Browser, demo_catalog: Path, tmp_path: Path) -> None:
    with dask.config.set(scheduler="threads"):
        db = fdb.ingest(tmp_path / "db", catalog=demo_catalog, chunk_rows=1_000).database
    db.files.remove(db.files.list("summaries"))  # the ingest took moments already
    hurry = tmp_path / "hurry"
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
        ThreadPoolExecutor(1) as thread,
        closing(browser.new_page(viewport=SIZE)) as page,
    ):
        client.run(_read_slowly, str(hurry))
        errors = _open(page, client.dashboard_link)
        assert not _found(page, PASSES)
        answer = thread.submit(_paper_drift, client, db.url)
        try:
            for name in PASSES:
                _wait_for(page, name)
                assert not answer.done(), f"{name} was seen only after the pass"
            if os.environ.get("FILTERDB_SCREENSHOTS") == "1":
                page.wait_for_timeout(5_000)  # about half of the last pass
                assert not answer.done()
                PICTURE.parent.mkdir(exist_ok=True)
                page.screenshot(path=PICTURE)
        finally:
            hurry.touch()
        drift = answer.result(timeout=120)
        page.wait_for_timeout(1_000)
        for name in PASSES:
            assert any("merge" in one and name in one for one in page.evaluate(NAMES)), name
    assert errors == []
    assert drift.attrs["filters"] == db.counts["filters"]


def test_the_picture_in_the_docs() -> None:
    assert PICTURE.stat().st_size < 300_000
    with Image.open(PICTURE) as picture:
        assert (picture.format, picture.size) == ("PNG", (SIZE["width"], SIZE["height"]))


def _paper_drift(client: Client, url: str) -> xr.Dataset:
    """Three passes, one after the other."""
    with client.as_current():
        return fdb.drift(fdb.open(url), by="task", mode="paper")


def _read_slowly(hurry: str) -> None:
    """On a worker: every chunk takes as long as from a store far away, until a file says to hurry."""
    from filterdb.store.segment import Segment

    real = Segment.read_columns

    def slow(segment: Segment, chunk: int) -> np.ndarray:
        if not Path(hurry).exists():
            time.sleep(0.05)
        return real(segment, chunk)

    Segment.read_columns = slow  # type: ignore[assignment, method-assign]


def _open(page: Page, link: str) -> list[str]:
    """Go to the status page, wait until its plots stand; gives a list that gets every error of its console."""
    errors: list[str] = []

    def told(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    page.on("console", told)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(WAIT)
    page.goto(link)
    page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    return errors


def _found(page: Page, words: tuple[str, ...]) -> list[str]:
    """Names in the page's plots that begin with one of the words."""
    return [name for name in page.evaluate(NAMES) if name.startswith(words)]


def _wait_for(page: Page, name: str) -> None:
    deadline = time.monotonic() + WAIT / 1000
    while not _found(page, (name,)):
        assert time.monotonic() < deadline, f"{name}: not among {sorted(set(page.evaluate(NAMES)))}"
        page.wait_for_timeout(100)
