"""A Sphinx extension that writes the generated pages before the sources are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from commands import commands_page
from gallery import gallery_page
from notebook import notebook_page
from python_names import python_page
from sphinx.application import Sphinx


def write_pages(app: Sphinx) -> None:
    """Write the pages that are generated, in folders that git ignores."""
    docs = Path(app.srcdir)
    pages = {
        docs / "reference/generated/commands.md": commands_page(),
        docs / "reference/generated/python.rst": python_page(),
        docs / "reference/generated/gallery.md": gallery_page(docs / "reference/generated/gallery"),
        docs / "how-to/generated/notebook.md": notebook_page(docs / "how-to/interactive.ipynb"),
    }
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def escape_markup(app: Sphinx, what: str, name: str, obj: object, options: dict[str, Any], lines: list[str]) -> None:
    """Escape what a docstring means literally and reStructuredText reads as markup: |w| and a trailing underscore."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "..")):
            parts = re.split(r"(`[^`]*`_*)", line)
            parts[::2] = [re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def keep_colons(app: Sphinx, what: str, name: str, obj: object, options: dict[str, Any], lines: list[str]) -> None:
    """Prevent napoleon from reading an attribute's first sentence up to a colon as its type."""
    if what in {"attribute", "property"}:
        lines.insert(0, "")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon, which has 500
    app.connect("autodoc-process-docstring", escape_markup)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
