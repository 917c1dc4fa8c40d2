"""The gallery of the documentation has a picture of every plot, made from the code beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import filterdb as fdb
from tests.docs.pages import ROOT
from tests.docs.test_reference import extension


def test_every_plot_has_an_example() -> None:
    gallery = extension("gallery")
    assert gallery.EXAMPLES.keys() == set(fdb.plot.__all__)
    for name, code in gallery.EXAMPLES.items():
        assert f"fdb.plot.{name}(" in code


def test_pictures_are_made_not_kept() -> None:
    """They are below a folder that git ignores, and the site's index links to the page."""
    assert "docs/*/generated/" in (ROOT / ".gitignore").read_text("utf-8").split()
    assert "(generated/gallery.md)" in (ROOT / "docs/reference/index.md").read_text("utf-8")
    assert "gallery_page(docs / " in (ROOT / "docs/_ext/generated_reference.py").read_text("utf-8")


@pytest.mark.slow
def test_every_example_draws_a_picture(tmp_path: Path) -> None:
    page = extension("gallery").gallery_page(tmp_path / "gallery")
    pictures = re.findall(r"\n!\[What fdb\.plot\.\w+ draws\]\((gallery/(\w+)\.png)\)\n", page)
    assert sorted(name for _, name in pictures) == fdb.plot.__all__
    for path, name in pictures:
        image = Image.open(tmp_path / path).convert("RGB")
        colours = image.getcolors(1 << 20)
        assert colours is None or len(colours) > 20, f"{name}: an empty picture"
        assert f"\n## {name}\n\nDraw " in page
