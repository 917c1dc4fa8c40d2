"""The notebook as a Markdown page: its text and its code, without outputs, which are not kept."""

from __future__ import annotations

import json
from pathlib import Path


def notebook_page(path: Path) -> str:
    """Return the cells of a notebook as Markdown."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"]).replace("](../", "](../../")  # the page is one folder below the notebook
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    return "\n\n".join(parts) + "\n"
