"""Write what the commands print today into the pages: `python -m tests.docs.update [PAGE…]`.

Blocks with a line `…` are left alone; those that no longer match are listed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from filterdb import demo
from tests.docs.pages import ROOT, blocks, pages
from tests.docs.running import PageRun, lines, matches
from tests.docs.workspace import make_workspace, prepare_database


def update(page: str) -> None:
    """Run the blocks of a page and replace the output that it shows."""
    content = (ROOT / page).read_text("utf-8")
    running, replacements = PageRun(), []
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.text, "utf-8")
        if block.language not in {"bash", "python"} or block.not_run:
            continue
        printed = running.run(block)
        if block.output is None or matches(block.output.text, printed):
            continue
        if "…" in block.output.text.replace("…\n", "…") and any(
            line.strip() == "…" or line.endswith("…") for line in lines(block.output.text)
        ):
            sys.stderr.write(f"{block.place} is abbreviated and no longer matches:\n{printed}\n")
            continue
        replacements.append((block.output, "".join(f"{line}\n" for line in lines(printed))))
    for output, text in reversed(replacements):
        content = content[: output.start] + text + content[output.start + len(output.text) :]
    (ROOT / page).write_text(content, "utf-8")


def main() -> None:
    """Update the pages that are named, or all."""
    chosen = list(dict.fromkeys(sys.argv[1:])) or pages()
    os.environ["MPLBACKEND"] = "Agg"
    catalog = demo.fetch(ROOT / ".cache" / "demo")
    with tempfile.TemporaryDirectory() as scratch:
        database = prepare_database(catalog, Path(scratch) / "prepared")
        for page in chosen:
            folder = Path(scratch) / page.replace("/", "-")
            folder.mkdir()
            make_workspace(folder, catalog.parent, database)
            os.chdir(folder)
            update(page)
            os.chdir(scratch)


if __name__ == "__main__":
    main()
