"""The page of each model of a database: its data against the analyses, and what a browser shows of it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import filterdb as fdb
from filterdb.analysis.findings import REMEDIES, WARNING, Finding
from filterdb.page import model_data
from filterdb.page.model_pages import ModelPages
from filterdb.page.results import Results, gather
from filterdb.verdicts import VERDICTS
from tests.page.conftest import HOSTILE, Opened, violations, wait_until

pytestmark = pytest.mark.slow

Show = Callable[..., Opened]


def data_of(path: Path) -> Any:
    """The value that a data file passes to `filterdb.put`."""
    match = re.fullmatch(r'filterdb\.put\("([^"]+)",(.*)\);\n', path.read_text("utf-8"), re.DOTALL)
    assert match is not None
    value = json.loads(match[2])
    layers = value["layers"]
    for key, column in layers.items():
        layers[key] = column if isinstance(column, list) else [column] * len(layers["name"])
    return value


@pytest.fixture(scope="module")
def results(page_db: fdb.Database) -> Results:
    with dask.config.set(scheduler="threads"):
        return gather(page_db, "sound", False)


def page_of(made: Path, name: str, page_db: fdb.Database) -> Any:
    place = page_db.models["model"].values.tolist().index(name)
    return data_of(made.parent / f"data/models/{place}.js")


def test_each_model_has_a_page_with_its_layers(made: Path, page_db: fdb.Database) -> None:
    judged, layers = fdb.degeneration(page_db), page_db.layers
    pages = sorted((made.parent / "data/models").iterdir(), key=lambda path: int(path.stem))
    assert [int(path.stem) for path in pages] == list(range(page_db.counts["models"]))
    for number, path in enumerate(pages):
        page, rows = data_of(path), layers["model_index"].values == number
        assert len(page["layers"]["name"]) == rows.sum() > 0
        for key, name in (("entropy", "variance_entropy"), ("sparsity", "sparsity"), ("p", "p_value")):
            shown = np.array([np.nan if value is None else value for value in page["layers"][key]], float)
            np.testing.assert_allclose(shown, judged[name].values[rows], rtol=6e-3, atol=1e-12)
        assert page["layers"]["filters"] == layers["row_size"].values[rows].tolist()
        flags = [judged["rule"].values[hits].tolist() for hits in judged["verdict"].values[rows]]
        assert page["layers"]["flags"] == flags
        assert {card["rule"] for card in page["findings"]} - {"untrained"} == {
            rule for row in flags for rule in (["dead"] if "dead" in row else row)
        }


def test_the_pictures_are_the_first_filters_of_the_file(made: Path, page_db: fdb.Database) -> None:
    page = page_of(made, "model 1", page_db)
    folder = Path(page_db.url).parent
    tensors = onnx.load(folder / "1.onnx").graph.initializer
    weights = np.frombuffer(base64.b64decode(page["tiles"]["weights"]["d"]), np.int8).reshape(3, -1, 9)
    assert page["tiles"]["at"] == [0, 1, 2] and set(page["tiles"]["number"]) == {model_data.FIRST_FILTERS}
    for tensor, shown in zip(tensors, weights, strict=True):
        filters = numpy_helper.to_array(tensor).reshape(-1, 9)[: model_data.FIRST_FILTERS]
        np.testing.assert_allclose(shown / 127, filters / np.abs(filters).max(), atol=0.5 / 127 + 1e-6)


def test_flagged_layers_say_what_to_do(made: Path, page_db: fdb.Database) -> None:
    page = page_of(made, "model 4", page_db)
    (dead,) = [card for card in page["findings"] if card["rule"] == "dead"]
    assert dead["tone"] == "bad" and dead["remedy"] == REMEDIES["dead"]
    assert dead["hits"] == [[1, "all 576 filters are zero"]]
    assert page["status"]["tone"] == "bad"
    assert page_of(made, "model 2", page_db)["status"]["tone"] == "good"


def test_nearest_models_are_those_of_the_drift(results: Results, page_db: fdb.Database) -> None:
    """By excess as `nearest` ranks them, models with few filters last; itself not among them."""
    drift = results.drifts["model"]
    names = drift["group"].values.tolist()
    pages = ModelPages(results)
    for name in ("model 2", "model 7", HOSTILE[0]):
        model = page_db.models["model"].values.tolist().index(name)
        here = names.index(name)
        keys = [
            (bool(drift["few"].values[i]), drift["drift"].values[here, i] - drift["floor"].values[here, i], i)
            for i in range(len(names))
            if i != here
        ]
        expected = [i for *_, i in sorted(keys)[:5]]
        rows = pages.page(model)["nearest"]["rows"]
        places = page_db.models["model"].values.tolist()
        assert [row["id"] for row in rows] == [f"#{places.index(names[i])}" for i in expected]
        assert [row["drift"] for row in rows] == drift["drift"].values[here, expected].tolist()
        codes = drift["verdict"].values[here, expected].tolist()
        assert [VERDICTS[row["verdict"][0]].code for row in rows] == codes


def test_the_page_of_one_model_needs_no_files(results: Results, made: Path) -> None:
    page = ModelPages(results).page(7)
    written = data_of(made.parent / "data/models/7.js")
    assert written["layers"]["flags"] == page["layers"]["flags"] and written["tiles"] == page["tiles"]
    assert page["layers"]["kernel"] == "3×3" and written["layers"]["kernel"] == ["3×3"] * 3


def test_bands_are_quantiles_of_the_layers_at_that_depth(results: Results) -> None:
    judged = results.degeneration
    band = ModelPages(results).core()["bands"]["3×3"]["entropy"]
    depth, entropy = judged["conv_depth_norm"].values, judged["variance_entropy"].values
    inside = entropy[(depth > 0.9) & np.isfinite(entropy)]
    assert len(inside) >= 5
    assert band[9] == np.quantile(inside, model_data.QUANTILES).tolist()
    assert band[4] == np.quantile(entropy[(depth > 0.3) & (depth <= 0.6)], model_data.QUANTILES).tolist()
    empty = model_data.band(np.array([0, 0, 9, 9, 9, 9, 9]), np.arange(7.0))
    assert (
        empty[:8] == [None] * 8 and empty[8] == empty[9] == np.quantile(np.arange(2, 7), model_data.QUANTILES).tolist()
    )


def test_few_chunks_are_read_for_pictures(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filterdb.page.model_pages.CHUNKS", 0)
    pages = ModelPages(results)
    assert pages.page(0, read=False)["tiles"] is None and "too many chunks" in pages.core()["untiled"]


def test_pictures_of_many_layers_are_short(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filterdb.page.model_pages.MANY_LAYERS", 10)
    pages = ModelPages(results)
    assert set(pages.page(0, read=False)["tiles"]["number"]) == {3}
    assert set(pages.page(0)["tiles"]["number"]) == {model_data.FIRST_FILTERS}


def test_many_hits_are_counted_and_not_cut_silently() -> None:
    listed = [Finding("m", f"layer {i}", "sparse", WARNING, "most") for i in range(100)]
    (card,) = model_data.finding_cards(listed, {f"layer {i}": i for i in range(100)})
    assert card["layers"] == 100 and len(card["hits"]) == model_data.MOST_HITS


def test_a_model_is_reached_from_the_page_and_leads_on(show: Show, made: Path, page_db: fdb.Database) -> None:
    opened = show()
    opened.draw_all()
    page = opened.page
    for figure in ("models", "layers"):
        link = page.locator(f"[data-figure={figure}] [role=cell] a").first
        assert re.fullmatch(r"model\.html#\d+", link.get_attribute("href") or "")
    page.locator("[data-figure=models] [role=cell] a", has_text="model 4").first.click()
    page.wait_for_selector("h1:text-is('model 4')")
    assert page.title() == "model 4 · filterdb"
    page.wait_for_selector("#layers [role=row] canvas")
    assert violations(page) == []
    page.locator(".rule.bad .hits button").click()
    table = page.locator("[role=table]")
    assert table.get_attribute("aria-rowcount") == "2" and "dead" in table.inner_text()
    assert page.locator("#layers [role=row] canvas").count() == 1
    nearest = page.locator("#nearest tbody a").first
    name = nearest.inner_text()
    nearest.click()
    page.wait_for_selector(f"h1:text-is('{name}')")
    page.go_back()
    page.wait_for_selector("h1:text-is('model 4')")
    page.get_by_role("link", name="next →").click()
    page.wait_for_selector("h1:text-is('model 5')")
    page.get_by_role("link", name="All models").click()
    page.wait_for_selector("h1:has-text('Models of')")
    assert page.locator(".overview tbody tr").count() == page_db.counts["models"]
    page.get_by_role("link", name="All figures").click()
    page.wait_for_selector("html[data-ready] #summary")
    assert opened.complaints == []
    assert {url.split(":")[0] for url in opened.requests} <= {"file", "data"}


HOLD = """
  // Keep back the data of model 3 until `release()`.
  const append = Element.prototype.append, held = [];
  Element.prototype.append = function (...nodes) {
    if (nodes[0]?.src?.endsWith("data/models/3.js")) held.push(() => append.apply(this, nodes));
    else append.apply(this, nodes);
  };
  window.release = () => held.forEach((go) => go());
"""


@pytest.mark.parametrize("later", ["5", "", "%"])
def test_late_data_do_not_replace_what_was_chosen_since(
    show: Show, made: Path, page_db: fdb.Database, later: str
) -> None:
    """Model 3 comes late: it is shown neither in place of a model, nor of the list, whatever the address is."""
    opened = show(where=made.with_name("model.html"))
    page = opened.page
    page.wait_for_selector("html[data-ready] .overview")
    page.evaluate(HOLD)
    for place in (*(["5"] if later == "5" else []), "3", later):
        page.evaluate("id => new Promise((go) => { addEventListener('hashchange', go); location.hash = id; })", place)
    title = page_db.models["model"].values[5] if later == "5" else f"Models of {page_db.url}"
    page.wait_for_selector(f"h1:text-is('{title}')")
    page.evaluate("""() => new Promise((go) => {
      const { put } = filterdb;
      filterdb.put = (...parts) => { put(...parts); setTimeout(go); };
      release();
    })""")
    assert page.locator("h1").inner_text() == title
    assert opened.complaints == []


def test_an_address_without_meaning_shows_the_list(show: Show, made: Path) -> None:
    opened = show(where=made.with_name("model.html#%"))
    opened.page.wait_for_selector("html[data-ready] .overview tbody tr")
    assert opened.complaints == []


def test_what_is_gone_is_not_printed(show: Show, made: Path) -> None:
    """Visit three models and the list twice: one table, and nothing of the others, reacts to printing."""
    opened = show(where=made.with_name("model.html"))
    page = opened.page
    page.wait_for_selector("html[data-ready] .overview")
    for place in ("1", "", "2", "", "4"):
        page.evaluate("id => { location.hash = id; }", place)
        page.wait_for_selector("#layers" if place else ".overview")
    page.evaluate("""() => {
      window.drawn = [];
      const replace = Element.prototype.replaceChildren;
      Element.prototype.replaceChildren = function (...nodes) {
        drawn.push(this.isConnected);
        return replace.apply(this, nodes);
      };
      dispatchEvent(new Event("beforeprint"));
      dispatchEvent(new Event("afterprint"));
    }""")
    assert page.evaluate("drawn") == [True, True]
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_hostile_model_is_shown_as_text(
    show: Show, made: Path, page_db: fdb.Database, width: int, scheme: str
) -> None:
    places = page_db.models["model"].values.tolist()
    opened = show(width, where=made.with_name("model.html"), color_scheme=scheme)
    opened.page.wait_for_selector(".overview tbody tr")
    for name in HOSTILE:
        opened.page.evaluate("id => { location.hash = id; }", str(places.index(name)))
        shown = name.replace("\u202e", "\ufffd")
        wait_until(opened.page, "name => document.querySelector('h1')?.textContent === name", shown)
        assert "window.hit" in opened.page.locator("#layers").inner_text()
        inner, whole = opened.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert whole <= inner == width
    assert opened.page.evaluate("window.hit") is None
    assert opened.complaints == []


def test_the_shell_is_locked(made: Path) -> None:
    text = made.with_name("model.html").read_text("utf-8")
    for name in HOSTILE:
        assert name not in text
    assert text.count("<script") == text.count("</script>") == 2
    for path in (made.parent / "data/models").iterdir():
        assert "<" not in path.read_text("utf-8")
