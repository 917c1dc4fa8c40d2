"""The page's state in its address: what a copied link restores, what back does, and what a hostile link cannot do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page

from tests.page.conftest import HOSTILE, Opened, wait_until

pytestmark = pytest.mark.slow

Show = Callable[..., Opened]

HEATMAP, LAYERS = "[data-figure=heatmap]", "[data-figure=layers]"


def state(page: Page) -> dict[str, str]:
    """Return the values in the address, read by the browser's own parser."""
    values: dict[str, str] = page.evaluate(
        "Object.fromEntries(new URLSearchParams(location.hash.split('?').slice(1).join('?')))"
    )
    return values


def test_a_copied_link_restores_every_choice(show: Show, drawn: Opened) -> None:
    """Each control writes what it shows; a second window that opens the address shows the same."""
    page = drawn.page
    page.locator(f"{HEATMAP} button[data-value=model]").click()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by model, 18 groups']")
    page.locator(f"{HEATMAP} select").first.select_option("clusters")
    page.get_by_label("Cut").select_option("3")
    page.locator(f"{HEATMAP} input[type=search]").fill("model")
    page.locator(f"{HEATMAP} .heat").focus()
    page.keyboard.press("Enter")
    page.locator("[data-figure=ridges] select").select_option("all")
    page.get_by_label("x axis").select_option("2")
    page.get_by_label("Highlight").select_option("family")
    page.get_by_label("value").select_option("VGG")
    page.locator("[data-figure=tiles] select").select_option("model 4")
    page.locator(f"{LAYERS} input").fill("conv")
    page.locator(f"{LAYERS} button[data-value=random]").click()
    page.locator(f"{LAYERS} .headings button", has_text="filters").click()
    page.locator("[data-figure=models] input").fill("detection")
    page.locator("[data-figure=models] .headings button", has_text="model").click()
    kept = state(page)
    pair = kept.pop("a"), kept.pop("b")
    assert kept == {
        "by": "model", "sort": "clusters", "cut": "3", "only": "model", "ridges": "all", "right": "2", "up": "1",
        "label": "family", "value": "VGG", "tiles": "model 4", "layers": "conv", "layers.rules": "random",
        "layers.sort": "-filters", "models": "detection", "models.sort": "model",
    }  # fmt: skip
    again = show(where=page.url.removeprefix("file://"))
    again.draw_all()
    assert look(again.page) == look(page)
    assert again.page.locator(f"{HEATMAP} h4").inner_text() == " against ".join(pair)
    assert state(again.page) == {**kept, "a": pair[0], "b": pair[1]}
    assert again.complaints == []


def look(page: Page) -> list[str]:
    """Return what each control and table shows."""
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by model, 15 groups']")
    controls: list[str] = page.evaluate(
        "[...document.querySelectorAll('main select, main input, main [aria-pressed=true], main [aria-sort], h4')]"
        ".map((e) => `${e.tagName} ${e.ariaSort ?? ''} ${e.value || e.textContent}`)"
    )
    rows = page.locator(f"{LAYERS} .rows .tr, [data-figure=models] .rows .tr").all_inner_texts()
    return controls + rows


def test_back_and_forward(show: Show) -> None:
    opened = show()
    opened.draw_all()
    page = opened.page
    assert "#" not in page.url
    page.locator(f"{HEATMAP} button[data-value=family]").click()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by family']")
    page.locator(f"{HEATMAP} select").select_option("size")
    page.locator("#toc").get_by_role("link", name="Layers").click()
    page.wait_for_url("**#layers?*")  # the contents keep the state
    assert state(page) == {"by": "family", "sort": "size"}
    page.locator(f"{LAYERS} button[data-value=dead]").click()
    page.locator(f"{LAYERS} input").fill("conv1")  # typing is no step of the history
    assert page.locator(f"{LAYERS} output").inner_text() == "1 of 48 layers"
    page.go_back()
    assert page.locator(f"{LAYERS} output").inner_text() == "48 layers"
    assert page.locator(f"{LAYERS} input").input_value() == ""
    page.go_back()
    assert page.url.endswith("#drift?by=family&sort=size")
    page.go_back()
    assert page.locator(f"{HEATMAP} select").input_value() == "drift"
    page.go_back()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by task']")
    assert "#" not in page.url
    page.go_forward()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by family']")
    page.evaluate("location.hash = '#drift?by=model&a=model+3&b=model+4'")  # a pasted address
    page.wait_for_selector(f"{HEATMAP} h4:has-text('model 3 against model 4')")
    assert opened.complaints == []


def test_a_link_in_the_page_adds_to_the_state(drawn: Opened) -> None:
    page = drawn.page
    page.evaluate("location.hash = '#layers?layers=conv&by=task&a=detection&b=classification'")
    wait_until(page, "history.state?.filterdb")
    assert page.locator(f"{HEATMAP} h4").inner_text() == "detection against classification"
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('afterbegin', '<a id=l href=\"#drift?by=family\">f</a>')"
    )
    page.locator("#l").click()
    page.wait_for_selector(f"{HEATMAP} .heat[aria-label*='by family']")
    assert state(page) == {"layers": "conv", "by": "family"}
    assert page.evaluate("document.activeElement.id") == "drift"


HOSTILE_FRAGMENTS = ("#?", "#nothing", "#%", "#<img src=x onerror=hit=1>?by=model%00", "#drift?%ff=%zz&by")


@pytest.mark.parametrize("drawn_already", [False, True])
def test_a_hostile_link_changes_nothing(show: Show, drawn: Opened, made: Path, drawn_already: bool) -> None:
    """Whether the page is opened with it or it is pasted, any value in any key leaves the page in its first state."""
    keys = ("by", "a", "b", "sort", "cut", "ridges", "right", "up", "label", "value", "tiles", "layers.sort",
            "layers.rules", "models.sort", "__proto__", "innerHTML")  # fmt: skip
    values = [*HOSTILE, "__proto__", "constructor", "-1", "9" * 400, "%", "\x00"] if drawn_already else [HOSTILE[1]]
    fragments = [f"#drift?{urlencode(dict.fromkeys(keys, value))}" for value in values]
    opened = drawn if drawn_already else show(where=f"{made}{fragments[0]}")
    opened.draw_all()
    page = opened.page
    first = page.locator(f"{HEATMAP} h4").inner_text()
    for fragment in [*fragments, *HOSTILE_FRAGMENTS]:
        page.evaluate("(fragment) => { location.hash = fragment; }", fragment)
        wait_until(page, "history.state?.filterdb")
        assert page.locator(f"{HEATMAP} h4").inner_text() == first
        assert page.locator(f"{HEATMAP} .heat").get_attribute("aria-label") == (
            "Drift by task, 4 groups. Arrow keys move, Enter compares two groups."
        )
        assert page.locator("[data-figure] > .none, .busy").count() == 0
        assert page.locator(f"{LAYERS} output").inner_text() == "48 layers"
        assert page.evaluate("[window.hit, Object.prototype.by, ({}).innerHTML]") == [None, None, None]
    assert opened.complaints == []


def test_the_pages_of_other_kernels_keep_the_state(show: Show, made: Path, tmp_path: Path) -> None:
    """A link to the page of another kernel shape carries the state, also after it changes."""
    text = made.read_text("utf-8")
    page = tmp_path / "index.html"
    nav = '<nav class="kernels"><a href="5x5/index.html">5×5</a></nav>'
    page.write_text(text.replace("<main>", f"{nav}<main>", 1), "utf-8")
    (tmp_path / "data").symlink_to(made.parent / "data")
    opened = show(where=f"{page}#drift?by=family")
    opened.draw_all()
    link = opened.page.locator(".kernels a")
    assert link.get_attribute("href") == "5x5/index.html#drift?by=family"
    opened.page.locator(f"{HEATMAP} button[data-value=model]").click()
    assert link.get_attribute("href") == "5x5/index.html#drift?by=model"
