"""The page in Chromium, opened from disk: what it shows, and that it can be read and used by everybody."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from tests.page.conftest import HOSTILE, Opened

pytestmark = pytest.mark.slow

Show = Callable[..., Opened]

HEATMAP, LAYERS = "[data-figure=heatmap]", "[data-figure=layers]"

FIGURES = {
    "contents", "models", "basis", "codebook", "spectrum", "heatmap", "components", "groupings", "ridges", "planes",
    "depth", "deciles", "scale", "series", "tiles", "layers",
}  # fmt: skip


@pytest.fixture(scope="module")
def by_task(page_db: fdb.Database) -> xr.Dataset:
    with dask.config.set(scheduler="threads"):
        return fdb.drift(page_db, by="task")


def cell(opened: Opened, result: xr.Dataset, a: str, b: str) -> tuple[float, float]:
    """The middle of a cell of the heatmap in its first order, in the window."""
    labels = result["group"].values.tolist()
    board = opened.page.locator(f"{HEATMAP} canvas").first
    board.scroll_into_view_if_needed()
    box = board.bounding_box()
    assert box is not None
    side = box["width"] / len(labels)
    return box["x"] + side * (labels.index(b) + 0.5), box["y"] + side * (labels.index(a) + 0.5)


def shown(text: str, before: str) -> float:
    """The number that stands behind these words."""
    found = re.search(rf"{before}\s*([0-9.]+)", text)
    assert found is not None, (before, text)
    return float(found[1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_figure_is_there_and_nothing_is_fetched(show: Show, width: int, scheme: str) -> None:
    opened = show(width, color_scheme=scheme)
    opened.draw_all()
    page = opened.page
    figures = page.evaluate("[...document.querySelectorAll('[data-figure]')].map(e => e.dataset.figure)")
    assert set(figures) == FIGURES
    empty = page.evaluate(
        "[...document.querySelectorAll('[data-figure]')].filter(e => !e.querySelector('canvas, svg, table, [role=row]')"
        " || e.querySelector('.none')).map(e => e.dataset.figure)"
    )
    assert empty == []
    assert opened.complaints == []
    assert len(opened.requests) > 5
    assert {url.split(":")[0] for url in opened.requests} <= {"file", "data"}
    inner, whole = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert whole <= inner == width
    beyond = page.evaluate(
        "[...document.querySelectorAll('main svg.plot text')].filter(e => { const box = e.getBoundingClientRect();"
        " return box.left < 0 || box.right > innerWidth; }).map(e => e.textContent)"
    )
    assert beyond == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(show: Show, scheme: str) -> None:
    """WCAG 2, 1.4.3: 4.5 to 1."""
    opened = show(color_scheme=scheme)
    opened.draw_all()
    seen = opened.page.evaluate(CONTRASTS)
    assert len(seen) > 200
    assert min(one[0] for one in seen) >= 4.5, sorted(seen)[:5]
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 150) == (scheme == "dark")


CONTRASTS = """() => {
    const light = (text) => {
        const parts = text.match(/[0-9.]+/g).slice(0, 3).map(Number).map((v) => v / 255);
        const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!/, 0\\)$/.test(colour) && colour !== "transparent") return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || !node.checkVisibility()) continue;
        if (node.closest(".unseen, .skip, script, .value")) continue;
        const style = getComputedStyle(node), ink = node.closest("svg") ? style.fill : style.color;
        const [one, other] = [light(ink), light(ground(node))].sort((a, b) => b - a);
        found.push([(one + 0.05) / (other + 0.05), walk.currentNode.data.trim().slice(0, 40), ink, ground(node)]);
    }
    return found;
}"""


def test_hover_tells_drift_floor_and_interval(show: Show, by_task: xr.Dataset) -> None:
    opened = show()
    opened.draw_all()
    place = cell(opened, by_task, "detection", "classification")
    for _ in range(20):  # a figure that is drawn late moves the page, which hides the tip
        opened.page.mouse.move(0, 0)
        opened.page.mouse.move(*place)
        if opened.page.locator("#tip").is_visible():
            break
    tip = opened.page.locator("#tip").inner_text()
    here = by_task.sel(group="detection", other="classification")
    assert tip.splitlines()[0] == "detection × classification"
    assert shown(tip, "drift") == pytest.approx(here["drift"].item(), rel=5e-3)
    assert shown(tip, "by chance up to") == pytest.approx(here["model_floor_q95"].item(), rel=5e-3)
    assert np.isnan(here["interval"].values).all() and "no interval: too few effective units" in tip.splitlines()
    assert tip.splitlines()[-1] == "≠ differs: The groups differ by more than chance explains."
    opened.page.mouse.move(*cell(opened, by_task, "detection", "segmentation"))
    tip = opened.page.locator("#tip").inner_text()
    assert tip.splitlines()[-1] == "≈ like noise: Chance alone can explain this drift."
    opened.page.mouse.move(5, 5)
    assert not opened.page.locator("#tip").is_visible()


def test_a_click_compares_two_groups(show: Show, page_db: fdb.Database, by_task: xr.Dataset) -> None:
    opened = show()
    opened.draw_all()
    opened.page.mouse.click(*cell(opened, by_task, "segmentation", "classification"))
    panel = opened.page.locator(f"{HEATMAP} section.pair")
    assert panel.locator("h4").inner_text() == "segmentation against classification"
    drift = by_task["drift"].sel(group="segmentation", other="classification").item()
    assert shown(panel.inner_text(), "D =") == pytest.approx(drift, rel=5e-3)
    panel.locator(".nine svg").nth(8).wait_for()  # drawn once the panel has its width
    assert panel.locator(".nine svg").count() == 9
    p, q = (by_task["probabilities"].sel(group=one).values for one in ("segmentation", "classification"))
    parts = by_task["weights"].values * ((p - q) * np.log(p / q)).sum(axis=1)
    texts = [svg.text_content() or "" for svg in panel.locator(".nine svg").all()]
    assert [shown(text, rf"c{i}") for i, text in enumerate(texts)] == pytest.approx(
        (100 * parts / parts.sum()).tolist(), abs=0.51
    )
    both = panel.locator(".nine svg").first.locator(".fill-a, .line-b").all()
    outlines = [one.get_attribute("d") or "" for one in both]
    assert len(outlines) == 2
    assert min(map(len, outlines)) > 200
    with dask.config.set(scheduler="threads"):
        told = fdb.explain(page_db, "task", "segmentation", "classification")
    without = dict(zip(told["model"].values.tolist(), told["without_model"].values.tolist(), strict=True))
    rows = [row.inner_text().split("\t") for row in panel.locator("table tr").all()]
    assert len(rows) == 4
    assert [float(row[1]) for row in rows] == pytest.approx([without[row[0]] for row in rows], rel=5e-3)
    assert float(rows[0][1]) == pytest.approx(min(without.values()), rel=5e-3)
    panel.locator("summary").click()
    newest = fdb.open(page_db.url).snapshot  # the first analysis committed the basis
    command = f"filterdb explain '{page_db.url}' --by task --snapshot {newest} -- 'segmentation' 'classification'"
    assert command in panel.inner_text()


def test_the_heatmap_is_sorted_and_searched(show: Show, by_task: xr.Dataset) -> None:
    opened = show()
    opened.draw_all()
    page = opened.page

    def names() -> list[str]:
        return page.locator(f"{HEATMAP} .over > text.end:not([transform])").all_text_contents()

    assert len(names()) == 4
    assert names()[1:] != sorted(names()[1:])  # by mean drift, to begin with
    page.locator(f"{HEATMAP} select").select_option("size")
    sizes = dict(zip(by_task["group"].values.tolist(), by_task["count"].values.tolist(), strict=True))
    assert [name[:8] for name in names()] == [name[:8] for name in sorted(sizes, key=lambda one: -sizes[one])]
    page.locator(f"{HEATMAP} button[data-value=model]").click()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by model, 18 groups']")
    page.locator(f"{HEATMAP} select").select_option("name")
    assert [name for name in names() if name.startswith("model")] == [f"model {i}" for i in range(15)]
    page.locator(f"{HEATMAP} input[type=search]").fill("MODEL 1")
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by model, 6 groups']")
    assert names() == ["model 1", *(f"model {i}" for i in range(10, 15))]
    page.locator(f"{HEATMAP} input[type=search]").fill("nobody")
    assert page.locator(f"{HEATMAP} .none").inner_text() == "No group has this text in its name."
    # All figures that show a grouping follow, and so do their files.
    figure = page.locator("figure", has=page.locator("[data-figure=ridges]"))
    figure.locator("summary").click()
    link = figure.get_by_role("link", name="SVG", exact=True)
    assert link.get_attribute("href") == "figures/ridges_model.svg"


def test_the_layers_are_searched_and_sorted(show: Show, page_db: fdb.Database) -> None:
    opened = show()
    opened.draw_all()
    table = opened.page.locator(LAYERS)

    def column(number: int) -> list[str]:
        return table.locator(f".rows .tr > :nth-child({number})").all_inner_texts()

    assert table.locator("output").inner_text() == f"{page_db.counts['layers']} layers"
    table.get_by_role("searchbox").fill("model 7 CONV2")
    assert (column(1), column(2), column(3)) == (["model 7"], ["conv2"], ["collapsed"])
    assert table.locator("output").inner_text() == "1 of 48 layers"
    table.get_by_role("searchbox").fill("")
    table.get_by_role("button", name="dead").click()
    assert (column(1), column(2), column(3)) == (["model 4"], ["conv1"], ["dead sparse collapsed"])
    table.get_by_role("button", name="dead").click()
    heading = table.locator("button[title='3×3 filters']")
    heading.click()
    falling = [int(one) for one in column(4)]
    assert table.locator("[aria-sort=descending]").inner_text() == "filters"
    heading.click()
    rising = [int(one) for one in column(4)]
    assert (falling[0], rising[0]) == (576, 64)
    assert (falling, rising) == (sorted(falling, reverse=True), sorted(rising))


def test_the_summary_leads_to_what_it_speaks_of(show: Show) -> None:
    page = show().page
    page.locator(".findings li", has_text="By model.").get_by_role("link").click()
    page.wait_for_selector(f"{HEATMAP} button[data-value=model][aria-pressed=true]")
    assert page.url.endswith("#drift?by=model")
    page.locator("#toc").get_by_role("link", name="Layers").click()
    page.wait_for_selector(f"{LAYERS} .rows .tr")
    assert page.evaluate("document.getElementById('layers').getBoundingClientRect().top") < 900


def test_by_keyboard(show: Show, by_task: xr.Dataset) -> None:
    """Tab comes to everything, what has the focus is seen, arrows and Enter do what the pointer does."""
    opened = show()
    opened.draw_all()
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the summary"
    box = page.locator(".skip").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    seen = []
    for _ in range(150):
        page.keyboard.press("Tab")
        what, outline = page.evaluate(
            "[document.activeElement.className || document.activeElement.tagName,"
            " parseFloat(getComputedStyle(document.activeElement).outlineWidth)]"
        )
        assert outline >= 2, what
        seen.append(what)
        if what == "heat":
            break
    assert {"A", "INPUT", "BUTTON", "SELECT", "view", "heat"} <= set(seen)
    tip = page.locator("#tip")
    assert tip.is_visible()
    labels = by_task["group"].values.tolist()
    page.keyboard.press("Home")
    for _ in range(labels.index("classification")):
        page.keyboard.press("ArrowRight")
    for _ in range(labels.index("segmentation")):
        page.keyboard.press("ArrowDown")
    assert tip.inner_text().splitlines()[0] == "segmentation × classification"
    assert page.locator(f"{HEATMAP} .cursor").get_attribute("visibility") == "visible"
    assert "segmentation × classification, drift" in (page.locator("#spoken").text_content() or "")
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "segmentation against classification"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.className") == "heat"


def test_hostile_names_stay_text(show: Show, made: Path, page_db: fdb.Database) -> None:
    opened = show()
    opened.draw_all()
    page = opened.page
    for figure in ("models", "layers"):
        for name in HOSTILE:
            page.locator(f"[data-figure={figure}] input").fill(name.split("\u202e")[0])
            cells = page.locator(f"[data-figure={figure}] .rows .tr > :nth-child(1)").all_inner_texts()
            assert name.replace("\u202e", "\ufffd") in cells
    page.locator(f"{HEATMAP} button[data-value=model]").click()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by model']")
    page.locator("[data-figure=tiles] select").select_option(index=3)
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator("main img, main script, body > svg").count() == 0
    assert page.locator("body script").count() == 2  # the page's own
    assert opened.complaints == []
    for picture in ("drift_model", "contents", "ridges_task", "first_filters"):
        page.goto(f"file://{made.parent}/figures/{picture}.svg")
        assert page.evaluate("window.hit") is None
        assert page.evaluate("document.querySelectorAll('script, foreignObject, [onload], [onerror]').length") == 0
    assert opened.complaints == []
    texts = page.evaluate("[...document.querySelectorAll('text')].map(e => e.textContent)")
    assert texts  # written as text, not as paths


def test_on_paper(show: Show) -> None:
    """Dark on white, whatever the screen is; all figures; no controls."""
    opened = show(720, color_scheme="dark")  # the width of A4 within its margins
    page = opened.page
    page.emulate_media(media="print", color_scheme="dark")
    assert len(page.pdf()) > 100_000  # the event before printing draws what was never near the window
    page.wait_for_selector("html[data-drawing='0']", state="attached")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    for hidden in ("#toc", ".bar", ".files"):
        assert not page.locator(hidden).first.is_visible()
    assert page.locator("[data-figure=tiles] canvas").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.querySelectorAll('.view')].every(e => e.scrollWidth <= e.clientWidth)")
    rows = page.locator(f"{LAYERS} .view")
    assert rows.evaluate("e => e.scrollHeight <= e.clientHeight + 1")  # no row behind a scroll bar


def test_without_scripts_there_are_pictures(show: Show) -> None:
    opened = show(java_script_enabled=False)
    pictures = opened.page.locator("noscript img")
    assert pictures.count() >= 8
    assert opened.page.locator("noscript img:visible").count() == pictures.count()
    assert all(url.startswith("file:") for url in opened.requests)
    assert sum(url.endswith(".svg") for url in opened.requests) == pictures.count()
    assert not [one for one in opened.complaints if "Refused" in one or "Failed" in one]


def test_a_missing_file_is_named(show: Show, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made.parent, tmp_path / "copy")
    (tmp_path / "copy/data/layers.js").unlink()
    opened = show(where=tmp_path / "copy/index.html")
    opened.draw_all()
    said = opened.page.locator(LAYERS).inner_text()
    assert said == "Not shown: data/layers.js is missing next to this page."
    assert opened.page.locator("[data-figure=models] .rows .tr").count() == 18
