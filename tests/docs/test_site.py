"""The documentation site is built without a warning, with a picture of every plot, drawn by the code beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

import filterdb as fdb
from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow


class Links(HTMLParser):
    """The ids of a page, and what it links to or shows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids, self.links = {""}, set[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element's id and address."""
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        self.links |= {values[name] or "" for name in ("href", "src") if values.get(name)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, from a copy, since it writes the generated pages beside the others."""
    command = re.search(
        r"^\t\$\(BIN\)/python (-m sphinx .*) docs docs/_build$", (ROOT / "Makefile").read_text("utf-8"), re.M
    )
    assert command, "expected `make docs` to call Sphinx"
    folder = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("_build", "generated", "__pycache__")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=ignored)
    arguments = [*command[1].split(), str(folder / "docs"), str(folder / "html")]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_example_draws_a_picture(site: Path) -> None:
    gallery = (site / "reference/generated/gallery.html").read_text("utf-8")
    pictures = re.findall(r'<img alt="What fdb\.plot\.(\w+) draws" src="([^"]+\.png)"', gallery)
    assert sorted(name for name, _ in pictures) == sorted(fdb.plot.__all__)
    for name, path in pictures:
        image = Image.open(site / "reference/generated" / path).convert("RGB")
        colours = image.getcolors(1 << 20)
        assert colours is None or len(colours) > 20, f"{name}: an empty picture"
        assert f'>{name}<a class="headerlink"' in gallery


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    pages = {path: Links(path.read_text("utf-8")) for path in site.rglob("*.html") if "_static" not in path.parts}
    assert len(pages) > 25
    for page, parsed in pages.items():
        for link in parsed.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page.relative_to(site)}: {link}"
            if target in pages and target.name not in {"search.html"}:
                assert unquote(parts.fragment) in pages[target].ids, f"{page.relative_to(site)}: {link}"
