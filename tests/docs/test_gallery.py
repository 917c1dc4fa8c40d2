"""The gallery of the documentation has an example of every plot; `test_site.py` draws them."""

from __future__ import annotations

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
