"""A served view at other snapshots, and which pages stay in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest

import filterdb as fdb
from filterdb.page.model_pages import ModelPages
from filterdb.server.pages import KEPT_PAGES, PAGE_BYTES, KeptPages, Page, Pages, Place
from tests.models import chain

VIEWS: dict[str, Callable[[fdb.Database], fdb.Database]] = {
    "a value": lambda db: db.select(out_channels=24),
    "several values": lambda db: db.select(out_channels=[24, 20]),
    "a number": lambda db: db.select(depth=0),
    "a slice": lambda db: db.select(depth=slice(0, 0)),
    "an open slice": lambda db: db.select(filters=slice(100, None)),
    "a function of a column": lambda db: db.select(depth=lambda depth: depth < 1),
    "a function of the table": lambda db: db.select(lambda layers: layers["out_channels"] > 20),
    "a negated slice": lambda db: db.where("depth", slice(1, None), negate=True),
    "another shape": lambda db: db.bank("5x5"),
    "another shape that has the only such layers": lambda db: db.bank("5x5").select(out_channels=20),
}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Snapshot 0 with a model of 3×3 filters and one of 5×5 filters, and a later one with a third model."""
    folder, rng = tmp_path_factory.mktemp("snapshots"), np.random.default_rng(0)

    def model(name: str, width: int, side: int) -> Path:
        shape = (width, width, side, side)
        return chain(folder / f"{name}.onnx", *(rng.standard_normal(shape, np.float32) for _ in "ab"))

    with dask.config.set(scheduler="threads"):
        first = fdb.ingest(folder / "db", [model("small", 24, 3), model("large", 20, 5)]).database
        fdb.ingest(folder / "db", [model("third", 24, 3)])
        return fdb.open(folder / "db", snapshot=first.snapshot)


@pytest.mark.parametrize("what", VIEWS)
def test_every_view_can_be_shown_at_another_snapshot(db: fdb.Database, what: str) -> None:
    newest = fdb.open(db.url)
    expected = VIEWS[what](newest)
    shown = Pages(VIEWS[what](db), "sound", None, only=False, live={}).database(newest.snapshot)
    assert newest.snapshot > db.snapshot and shown.snapshot == newest.snapshot
    assert (shown.kernel, shown.conditions) == (expected.kernel, expected.conditions)
    assert shown.layers.identical(expected.layers)


def test_the_pages_that_were_seen_last_stay_in_memory() -> None:
    """A page that moved to the snapshot of its basis takes the room of one, and is the same at both places."""

    def page(snapshot: int) -> Page:
        return Page(b"", [], object.__new__(ModelPages), {}, snapshot)

    kept, moved = KeptPages(), page(1)
    kept.put(Place(0, ""), moved)
    for number in range(2, 2 * KEPT_PAGES):
        assert kept.get(Place(0, "")) is moved and kept.get(Place(1, "")) is moved
        kept.put(Place(number, ""), page(number))
    last = [number for number in range(2 * KEPT_PAGES) if kept.get(Place(number, "")) is not None]
    assert last == [0, 1, *range(KEPT_PAGES + 1, 2 * KEPT_PAGES)]
    for number in range(KEPT_PAGES):
        kept.put(Place(number, "5x5/"), page(number))
    assert kept.get(Place(0, "")) is None and kept.get(Place(1, "")) is None and kept._aliases == {}


def test_large_pages_leave_room_for_fewer() -> None:
    """The newest stays even if it alone is too large."""

    def page(snapshot: int, size: int) -> Page:
        return Page(b"", [], object.__new__(ModelPages), {}, snapshot, size)

    kept = KeptPages()
    for number, size in enumerate([PAGE_BYTES // 2, PAGE_BYTES // 2, PAGE_BYTES // 3]):
        kept.put(Place(number, ""), page(number, size))
    assert [kept.get(Place(number, "")) is not None for number in range(3)] == [False, True, True]
    kept.put(Place(3, ""), page(3, 2 * PAGE_BYTES))
    assert [kept.get(Place(number, "")) is not None for number in range(4)] == [False, False, False, True]


def test_the_size_of_a_page_is_that_of_its_results(db: fdb.Database) -> None:
    with dask.config.set(scheduler="threads"):
        page = Pages(db, "sound", None, only=False, live={}).build(Place(db.snapshot, ""))
        drifts = [fdb.drift(fdb.open(db.url, page.snapshot), by) for by in ("depth_decile",)]
    assert page.size > len(page.html) + sum(drift.nbytes for drift in drifts)
