"""The page shows families of related models, or says that there are none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import dask
import pandas as pd
import pytest
from playwright.sync_api import Browser

import filterdb as fdb
from filterdb.page import results
from filterdb.page.sections.lineage import Lineage
from tests.filters import moved, network
from tests.page.conftest import HOSTILE, Opened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a model, a fine-tuned copy with a hostile name, a copy of that, and a stranger."""
    folder = tmp_path_factory.mktemp("lineage")
    network(folder / "base.onnx", 0)
    moved(folder / "base.onnx", folder / "tuned.onnx", share=0.1)
    moved(folder / "tuned.onnx", folder / "again.onnx", share=0.05, seed=1)
    network(folder / "stranger.onnx", 3)
    rows = [
        {"path": "base.onnx", "name": "base", "training_dataset": "A"},
        {"path": "tuned.onnx", "name": HOSTILE[0], "training_dataset": "B", "pretraining_dataset": "A"},
        {"path": "again.onnx", "name": "again", "training_dataset": "C", "pretraining_dataset": "B"},
        {"path": "stranger.onnx", "name": "stranger", "training_dataset": "A"},
    ]
    pd.DataFrame(rows).to_csv(folder / "catalog.csv", index=False)
    with dask.config.set(scheduler="threads"):
        db = fdb.ingest(folder / "db", catalog=folder / "catalog.csv").database
        return Path(fdb.report(db, folder / "page", densities=False))


def test_only_a_small_database_is_sketched_for_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an earlier version has no sketches, and a page does not read all filters of a large one unasked."""
    network(tmp_path / "base.onnx", 0)
    moved(tmp_path / "base.onnx", tmp_path / "tuned.onnx", share=0.1)
    url = fdb.ingest(tmp_path / "db", [tmp_path / "base.onnx", tmp_path / "tuned.onnx"]).database.url
    (sketch,) = Path(url).glob("summaries/*/sketch-*")
    sketch.unlink()
    monkeypatch.setattr(results, "SKETCH_LIMIT", 1_000)
    section = Lineage(results.gather(fdb.open(url), "sound", densities=False))
    assert not section.has_families and "Run `filterdb lineage DB` once" in dict(section.missing())["lineage"]
    assert section.core() is None and not sketch.exists()
    monkeypatch.undo()
    assert Lineage(results.gather(fdb.open(url), "sound", densities=False)).has_families
    assert sketch.exists()


def test_core_and_table(page: Path) -> None:
    core = re.search(r'id="core">(.*?)</script>', page.read_text("utf-8"))
    assert core is not None
    family = json.loads(core[1])["sections"]["lineage"]
    assert family["models"] == ["base", HOSTILE[0], "again"]
    assert family["parents"] == [None, 0, 1]
    assert family["evidence"] == ["", "pretraining_dataset", "pretraining_dataset"]
    table = pd.read_csv(page.parent / "tables/lineage.csv")
    assert table["parent"].fillna("").tolist() == ["", "base", HOSTILE[0]]


def test_tree_in_the_browser(page: Path, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Opened(context.new_page())
    opened.watch()
    opened.page.goto(page.as_uri())
    opened.draw_all()
    items = opened.page.locator("[data-figure=lineage] li")
    assert items.count() == 3
    assert items.nth(2).inner_text().startswith("again")
    assert opened.page.locator("[data-figure=lineage] li li li").count() == 1
    assert opened.page.evaluate("window.hit") is None
    assert not opened.complaints
    context.close()


def test_without_families(made: Path) -> None:
    assert "No two models share an ancestor" in made.read_text("utf-8")
