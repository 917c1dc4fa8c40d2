"""Draw the pictures of the documentation anew: `python -m tests.docs.pictures FOLDER`.

FOLDER is what `filterdb demo` wrote, called filterdb-demo.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image
from playwright.sync_api import Browser, Page

import filterdb as fdb
from tests.browser import chromium
from tests.docs.pages import ROOT

IMAGES = ROOT / "docs/images"
SCREEN, PHONE = {"width": 1280, "height": 1060}, {"width": 390, "height": 844}

ANONYMOUS = """(folder) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) if (texts.currentNode.parentElement.tagName !== "SCRIPT") {
    texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "filterdb-demo");
  }
}"""
"""Replaces the folder of this machine in what a page shows."""


def save(name: str, data: bytes, *, width: int | None = None) -> None:
    """Write a picture with 256 colours, which halves its size."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if width is not None:
        image = image.resize((width, round(image.height * width / image.width)))
    image.quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


def opened(browser: Browser, path: Path, folder: Path, **options: Any) -> Page:
    """Open a page and wait until it is drawn."""
    page = browser.new_page(**{"viewport": SCREEN, **options})
    page.goto(path.as_uri())
    page.wait_for_function("document.documentElement.dataset.ready === 'true'")
    page.wait_for_timeout(1_000)
    page.evaluate(ANONYMOUS, str(folder))
    return page


def draw(folder: Path) -> None:
    """Draw all pictures from a folder of the demo."""
    index = folder / "report/index.html"
    model = next(folder.glob("models/opennsfw*/**/*.onnx"))
    file_page = Path(str(fdb.report(model, folder=folder / "page-of-a-file")))
    with chromium() as browser:
        save("page-light", opened(browser, index, folder).screenshot())
        save("page-dark", opened(browser, index, folder, color_scheme="dark").screenshot())
        phone = opened(browser, index, folder, viewport=PHONE, device_scale_factor=1.5)
        save("page-phone", phone.screenshot())
        save("page-file", opened(browser, file_page, folder).screenshot())
        page = opened(browser, index, folder)
        page.locator("[data-figure=heatmap]").scroll_into_view_if_needed()
        page.get_by_role("button", name="depth decile").first.click()
        page.locator("[data-figure=heatmap] section.pair h4").wait_for()
        page.wait_for_timeout(1_000)
        save("page-heatmap", page.locator("figure", has=page.locator("[data-figure=heatmap]")).screenshot())
        page.evaluate(ANONYMOUS, str(folder))
        save("page-print", first_sheet(page.pdf(format="A4")), width=911)
        page.goto(f"{(folder / 'report/model.html').as_uri()}#thin-resnet50")
        page.get_by_role("link", name="thin-resnet50").first.click()
        page.wait_for_timeout(1_000)
        page.evaluate(ANONYMOUS, str(folder))
        save("page-model", page.screenshot())


def first_sheet(pdf: bytes) -> bytes:
    """Return the first page of a PDF as a PNG."""
    data = io.BytesIO()
    pypdfium2.PdfDocument(pdf)[0].render(scale=2).to_pil().save(data, "PNG")
    return data.getvalue()


if __name__ == "__main__":
    draw(Path(sys.argv[1]).resolve())
