"""What a notebook shows of a database and of results: true, escaped, readable on light and dark pages."""

from __future__ import annotations

from html import escape
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from playwright.sync_api import Browser

import filterdb as fdb
from filterdb.store import html as repr_html
from tests.models import chain, weights

pytestmark = pytest.mark.slow

ATTACK = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>\"&amp;'</td></table>"


class Shown:
    """A database's HTML, read back by an XML parser: it is refused where a tag is left open or a text not escaped."""

    def __init__(self, db: fdb.Database) -> None:
        self.html = db._repr_html_()
        self.root = ElementTree.fromstring(self.html)
        self.title = "".join(self.root.itertext()).split("}")[-1]
        overview = self.root.find("table")
        assert overview is not None
        self.facts = dict(_rows(overview))
        self.sections: dict[str, list[list[str]]] = {}
        for section in self.root.findall("details"):
            title, table = section.find("summary"), section.find("table")
            assert title is not None
            assert table is not None
            self.sections["".join(title.itertext())] = list(_rows(table))

    def section(self, name: str) -> list[list[str]]:
        """Rows, head and all, of the section whose title begins so."""
        (found,) = (rows for title, rows in self.sections.items() if title.startswith(f"{name} ("))
        return found


def _rows(table: ElementTree.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]


@pytest.fixture
def small(tmp_path: Path) -> fdb.Database:
    """Two models in two segments, of tasks with names that would like to be more than names."""
    for number, task in enumerate(["plain", ATTACK]):
        chain(tmp_path / f"{number}.onnx", weights(6, 5, seed=number), weights(7, 6, seed=number + 50))
        row = {"path": f"{number}.onnx", "name": f"model {number}", "task": task, "training_dataset": "A & B"}
        pd.DataFrame([row]).to_csv(tmp_path / "list.csv", index=False)
        db = fdb.ingest(tmp_path / "db <b>bold</b>", catalog=tmp_path / "list.csv", chunk_rows=10).database
    return db


def test_numbers_of_the_real_models(real_db: fdb.Database, demo_catalog: Path) -> None:
    shown = Shown(real_db)
    assert real_db.url in shown.title
    assert shown.facts["snapshot"].startswith(f"{real_db.snapshot}, by ")
    sizes = real_db.dataset.filters.shape
    assert shown.facts["filters"] == f"{sizes[0]:,}"
    catalog = pd.read_csv(demo_catalog)
    assert shown.facts["models"] == str(len(catalog))
    for label in ("task", "visual_category", "training_dataset"):
        columns, *rows = shown.section(label.replace("_", " "))
        assert columns == [label.replace("_", " "), "models", "layers", "filters"]
        assert {row[0]: int(row[1]) for row in rows} == catalog[label].fillna("unknown").value_counts().to_dict()
        filters = [int(row[3].replace(",", "")) for row in rows]
        assert (sum(filters), filters) == (sizes[0], sorted(filters, reverse=True))
    chunks = list(Path(real_db.url).glob("segments/*/filters/c/*/0"))
    assert shown.facts["chunks"] == f"{len(chunks):,}"
    assert shown.facts["stored"] == f"{sum(path.stat().st_size for path in chunks) / 2**20:,.1f} MiB of filters"


def test_segments_tags_and_basis(small: fdb.Database) -> None:
    shown = Shown(small)
    assert shown.facts["basis"].startswith("none yet")
    assert "tags" not in shown.facts
    assert [row[1:] for row in shown.section("segments")[1:]] == [["1", "2", "72", "8", "10"]] * 2
    assert [row[0] for row in shown.section("segments")[1:]] == [segment.id for segment in small.segments]
    fdb.drift(small, by="model")
    tagged = fdb.tag(fdb.open(small.url), "cvpr")
    shown = Shown(tagged)
    assert shown.facts["basis"] == f"{tagged.state.basis}, fitted on the 144 filters of snapshot 1"
    assert shown.facts["tags"] == "cvpr (snapshot 2)"


def test_a_view(small: fdb.Database) -> None:
    shown = Shown(small.select(task="plain", conv_depth=[0]))
    assert shown.facts["view"] == "task = plain and conv_depth = 0"
    assert (shown.facts["filters"], shown.facts["layers"], shown.facts["models"]) == ("30", "1", "1")
    assert shown.section("task") == [["task", "models", "layers", "filters"], ["plain", "1", "1", "30"]]
    assert repr(small).endswith("snapshot 1: 144 filters, 4 layers, 2 models>")


def test_long_lists_are_cut_and_say_so(real_db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Shown(real_db).section("task")
    monkeypatch.setattr(repr_html, "ROWS", 2)
    shown = Shown(real_db)
    assert shown.section("task") == whole[:3]
    assert f"task ({len(whole) - 1})" in shown.sections
    assert f"and {len(whole) - 3} more" in shown.html


def test_a_damaged_basis_hides_nothing_else(small: fdb.Database) -> None:
    fdb.drift(small, by="model")
    (basis,) = Path(small.url).glob("bases/*.json")
    basis.chmod(0o644)
    basis.write_text("{}")
    shown = Shown(fdb.open(small.url))
    assert "expected content with SHA-256" in shown.facts["basis"]
    assert shown.facts["filters"] == "144"


def test_a_label_stays_text(small: fdb.Database, browser: Browser) -> None:
    assert [row[0] for row in Shown(small).section("task")[1:]] == [ATTACK, "plain"]
    page = browser.new_page()
    page.set_content(f"<!doctype html><body>{small._repr_html_()}</body>")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator(".filterdb script, .filterdb img, .filterdb b").count() == 0
    assert page.locator("td", has_text="onerror").text_content() == ATTACK
    page.close()


LIGHT, DARK = ("rgb(0, 0, 0)", "rgb(255, 255, 255)"), ("rgb(225, 225, 225)", "rgb(17, 17, 17)")


@pytest.mark.parametrize(("ink", "paper"), [LIGHT, DARK], ids=["light", "dark"])
def test_light_and_dark_pages(real_db: fdb.Database, browser: Browser, ink: str, paper: str) -> None:
    """Every text has the page's own ink on the page's own paper; sections open on a click."""
    page = browser.new_page()
    page.set_content(f'<!doctype html><body style="color: {ink}; background: {paper}">{real_db._repr_html_()}</body>')
    seen = page.evaluate(
        "[...document.querySelectorAll('.filterdb, .filterdb *:not(style)')].map(e => [getComputedStyle(e).color, "
        "getComputedStyle(e).backgroundColor])"
    )
    assert len(seen) > 50
    assert {tuple(pair) for pair in seen} == {(ink, "rgba(0, 0, 0, 0)")}
    cell = page.get_by_role("cell", name="face detection")
    assert not cell.is_visible()
    page.locator("summary", has_text="task (").click()
    assert cell.is_visible()
    page.close()


def test_results_show_names_and_provenance(real_db: fdb.Database) -> None:
    """xarray's own HTML."""
    results = {
        "components": fdb.pca(real_db, by="task"),
        "per_component": fdb.drift(real_db, by="task"),
        "variance_entropy": fdb.degeneration(real_db),
    }
    for variable, result in results.items():
        shown = result._repr_html_()
        assert variable in shown
        for name in ("snapshot", "database", "selection", "filterdb_version", "formula", "filters"):
            assert f"<dt><span>{name} :</span></dt>" in shown, (variable, name)
        assert fdb.__version__ in shown
        assert real_db.url in shown
    entropy = results["variance_entropy"]
    assert escape(entropy["variance_entropy"].attrs["long_name"]) in entropy._repr_html_()
