"""The page's layout in Chromium: comparisons that stay in view, clusters, menus, print, accessibility."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
from playwright.sync_api import Page
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

import filterdb as fdb
from tests.page.conftest import Opened, violations, wait_until

pytestmark = pytest.mark.slow

Show = Callable[..., Opened]

HEATMAP, LAYERS = "[data-figure=heatmap]", "[data-figure=layers]"


@pytest.mark.parametrize(
    ("width", "scheme", "rules"),
    [
        (1280, "light", None),
        (390, "dark", None),
        pytest.param(1280, "dark", ["color-contrast"], marks=pytest.mark.soak),
        pytest.param(390, "light", ["color-contrast"], marks=pytest.mark.soak),
    ],
)
def test_axe_finds_no_violation(drawn: Opened, width: int, scheme: str, rules: list[str] | None) -> None:
    """All rules of axe-core, with every figure drawn and a menu open. Of colours, axe tests only the contrast."""
    page = drawn.page
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.locator("details.files summary").nth(5).click()
    assert violations(page, rules) == []


def by_model(opened: Opened, order: str) -> Page:
    """Show the drift of models in this order."""
    page = opened.page
    page.locator(f"{HEATMAP} button[data-value=model]").click()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by model']")
    page.locator(f"{HEATMAP} select").first.select_option(order)
    return page


def test_clusters_are_those_of_scipy(drawn: Opened, page_db: fdb.Database) -> None:
    """Groups of one cluster are neighbours, lines separate the clusters, and the tree stands at its leaves."""
    with dask.config.set(scheduler="threads"):
        result = fdb.drift(page_db, by="model")
    page = by_model(drawn, "clusters")
    names = page.locator(f"{HEATMAP} .over > text.end:not([transform])").all_text_contents()
    labels = [str(name).replace("\u202e", "\ufffd") for name in result["group"].values]
    places = [
        labels.index(name)
        if name in labels
        else next(i for i, label in enumerate(labels) if label.startswith(name[:-1]))
        for name in names
    ]
    assert sorted(places) == list(range(len(labels)))
    tree = linkage(squareform(result["drift"].values, checks=False), "average")
    assert page.locator(f"{HEATMAP} .border").count() == 0
    for number in (2, 3, 6):
        page.get_by_label("Cut").select_option(str(number))
        clusters = fcluster(tree, number, "maxclust")[places]
        edges = 1 + np.flatnonzero(np.diff(clusters))
        assert len(edges) == number - 1
        cell = float(page.locator(f"{HEATMAP} .cursor").get_attribute("width") or "nan")
        lines = page.locator(f"{HEATMAP} .border").all()[::2]
        np.testing.assert_allclose([float(line.get_attribute("y1") or "nan") for line in lines], edges * cell)
        assert page.locator(f"{HEATMAP} .cutline").count() == 1
    path = page.locator(f"{HEATMAP} .branches").get_attribute("d") or ""
    assert path.count("M") == len(labels) - 1
    page.locator(f"{HEATMAP} input[type=search]").fill("model 1")
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by model, 6 groups']")
    assert (page.locator(f"{HEATMAP} .branches").get_attribute("d") or "").count("M") == 5


def test_an_ordered_grouping_has_no_clusters(drawn: Opened) -> None:
    page = drawn.page
    page.locator(f"{HEATMAP} button[data-value=depth_decile]").click()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by depth decile']")
    assert page.locator(f"{HEATMAP} select option").all_inner_texts() == ["depth", "filters"]


def test_the_comparison_stays_in_view(drawn: Opened) -> None:
    """Beside a matrix that is taller than the window, while the matrix scrolls past."""
    page = by_model(drawn, "drift")
    page.set_viewport_size({"width": 1280, "height": 420})
    side, matrix = page.locator(f"{HEATMAP} section.pair"), page.locator(f"{HEATMAP} .heat")
    box, beside = side.bounding_box(), matrix.bounding_box()
    assert box is not None and beside is not None
    assert box["x"] >= beside["x"] + beside["width"]
    for down in (60, 140):
        matrix.evaluate(
            "(node, down) => scrollTo({top: scrollY + node.getBoundingClientRect().top + down, behavior: 'instant'})",
            down,
        )
        head = side.locator("h4").bounding_box()
        assert head is not None
        assert 0 <= head["y"] < 100
    assert side.evaluate("(node) => node.getBoundingClientRect().height <= innerHeight")


def test_names_are_shown_where_they_do_not_fit(drawn: Opened) -> None:
    """On a small phone eighteen names have no room; those of the cell under the cursor are shown, also by keyboard."""
    drawn.page.set_viewport_size({"width": 320, "height": 800})
    page = by_model(drawn, "name")
    assert page.locator(f"{HEATMAP} .over > text.end").count() == 0
    matrix, tags = page.locator(f"{HEATMAP} .heat"), page.locator(f"{HEATMAP} .tag")
    assert not tags.first.is_visible()
    matrix.hover()
    matrix.focus()
    page.keyboard.press("End")
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    first, second = (page.locator("#tip b").inner_text()).split(" × ")
    assert [tag.removesuffix("…") for tag in tags.all_inner_texts()] == [
        first[:39] if len(first) > 40 else first,
        second,
    ]
    page.evaluate("scrollBy(0, -600)")  # away below the resting pointer
    matrix.dispatch_event("pointerleave")
    frame = matrix.bounding_box()
    assert frame is not None
    assert page.locator("#tip").is_visible()
    for tag in tags.all():
        tag.wait_for()
        box = tag.bounding_box()
        assert box is not None
        assert frame["x"] - 1 <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
    page.locator("h1").click()
    assert not tags.first.is_visible()


def test_layers_begin_with_the_most_severe(drawn: Opened) -> None:
    table = drawn.page.locator(LAYERS)
    verdicts = table.locator(".rows .tr > :nth-child(3)").all_inner_texts()
    assert verdicts[0].split() == ["dead", "sparse", "collapsed"]
    assert verdicts[1].strip() == "collapsed"
    assert set(verdicts[2:]) == {verdicts[2]} and verdicts[2].strip() == "random"
    p = table.locator(".rows .tr > :nth-child(9)").all_inner_texts()[2:]
    assert [float(value) for value in p] == sorted((float(value) for value in p), reverse=True)
    assert table.locator("[aria-sort=descending]").inner_text() == "verdict"
    table.get_by_role("button", name="verdict").click()
    assert table.locator(".rows .tr > :nth-child(3)").first.inner_text() == "–"
    table.get_by_role("button", name="sparse").click()
    table.get_by_role("button", name="dead").click()
    assert table.locator("output").inner_text() == "1 of 48 layers"
    table.get_by_role("searchbox").fill("nothing of this name")
    assert table.locator(".none").inner_text() == "No row matches."


def test_a_menu_holds_the_files_of_its_card(drawn: Opened, made: Path) -> None:
    """Opened by keyboard; closed by Escape, which returns the focus, and by a click elsewhere."""
    page = drawn.page
    assert page.locator("main figure").count() == page.locator("main figure > .head > details.files").count()
    assert page.locator("main a[href^='figures/'], main a[href^='tables/']").count() > 60
    assert page.locator("main a[href^='figures/']:visible, main a[href^='tables/']:visible").count() == 0
    menu = page.locator("figure", has=page.locator("[data-figure=basis]")).locator("details.files")
    menu.locator("summary").focus()
    page.keyboard.press("Enter")
    assert "the share and the weights of each component" in menu.inner_text()
    for link in menu.get_by_role("link").all():
        assert (made.parent / (link.get_attribute("href") or "-")).exists()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "SVG"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert not menu.get_by_role("link").first.is_visible()
    menu.locator("summary").click()
    page.locator("h1").click()
    assert not menu.get_by_role("link").first.is_visible()


def test_what_is_not_shown_is_named(drawn: Opened) -> None:
    page = drawn.page
    assert page.locator("#lineage, main > section:not(:has(figure, li))").count() == 0
    missing = page.locator("#toc .missing")
    assert missing.locator("summary").inner_text() == "Not shown: drift by visual category, lineage"
    missing.locator("summary").click()
    assert "Visual category has fewer than two known labels." in missing.inner_text()
    assert "No two models share an ancestor" in missing.inner_text()


def test_paper_has_every_figure_in_its_place(drawn: Opened) -> None:
    """Nothing leaves the paper, points stay on their axes, and a long table says what is left out."""
    page = drawn.page
    page.set_viewport_size({"width": 690, "height": 900})  # A4 within the margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    beyond = page.evaluate(
        "[...document.querySelectorAll('main *')]"
        ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 691)"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []
    hidden = page.evaluate(
        "[...document.querySelectorAll('main svg :not(.cursor)')]"
        ".filter((e) => e.closest('svg').checkVisibility() && getComputedStyle(e).display === 'none')"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert hidden == []  # a class that paper hides elsewhere
    stacks = page.evaluate(
        "[...document.querySelectorAll('.stack')]"
        ".map((e) => [...e.children].map((c) => c.getBoundingClientRect().width))"
    )
    assert stacks and all(abs(points - axes) < 1 for points, axes in stacks)
    assert page.locator(f"{LAYERS} .rows .tr").count() == 48
    assert page.locator(f"{LAYERS} .headings button").first.is_visible()
    assert "Not shown: drift by visual category" in page.locator("footer").inner_text()
    assert page.locator(".cut").all_inner_texts() == ["", ""]
    page.evaluate("dispatchEvent(new Event('afterprint'))")


def test_a_long_table_says_what_is_not_printed(show: Show, made: Path, tmp_path: Path) -> None:
    """51 models are one more than a table prints."""
    shutil.copytree(made.parent / "data", tmp_path / "data")
    for name in ("figures", "tables"):
        (tmp_path / name).symlink_to(made.parent / name)
    rows = {"columns": [{"key": "model", "text": True}], "model": [f"m{i}" for i in range(51)]}
    (tmp_path / "data/models.js").write_text(f"filterdb.put('models', {rows!r});".replace("True", "true"))
    (tmp_path / "index.html").write_bytes(made.read_bytes())
    opened = show(where=tmp_path / "index.html")
    opened.draw_all()
    page = opened.page
    cut = page.locator("[data-figure=models] .cut")
    assert not cut.is_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert cut.inner_text() == "First 50 of 51 rows; the CSV has all."
    assert page.locator("[data-figure=models] .rows .tr").count() == 50
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("[data-figure=models] .rows .tr").count() < 50


def test_the_first_sheet_has_two_rows_of_the_card(show: Show) -> None:
    """On A4 with the page's margins: else half of the sheet would be empty."""
    page = show(round(8.27 * 96 - 2 * 13 / 25.4 * 96)).page
    page.emulate_media(media="print")
    bottoms = page.evaluate(
        "[...document.querySelectorAll('.answer')].map((tile) => tile.getBoundingClientRect().bottom)"
    )
    assert max(bottoms[:4]) < 11.69 * 96 - 2 * 14 / 25.4 * 96


def test_the_button_prints_when_everything_is_drawn(show: Show) -> None:
    page = show().page
    page.evaluate("window.print = () => { window.printed = document.querySelectorAll('[data-figure]:empty').length; }")
    assert page.locator("[data-figure]:empty").count() > 0
    # By keyboard: figures that are drawn on the way down move the button from under a pointer faster than any hand.
    page.get_by_role("button", name=re.compile("^Print")).press("Enter")
    wait_until(page, "window.printed === 0")
