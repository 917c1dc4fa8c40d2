"""The generated reference names every command with its options, and every public name of the package."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import click

import filterdb as fdb
from tests.docs.pages import ROOT, blocks, pages


def extension(name: str) -> ModuleType:
    """Import a module of the site's own extensions, which need no Sphinx."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs/_ext" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_is_in_the_reference() -> None:
    commands = extension("commands")
    page, group = commands.commands_page(), commands.command_tree()
    context = click.Context(group)
    for name in group.list_commands(context):
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert all(f"\n{example}\n" in section for example in group.get_command(context, name).examples)
        for parameter in group.get_command(context, name).params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert f"{parameter.opts[0]}" in section, (name, parameter.opts)


def test_every_public_name_is_in_the_reference() -> None:
    page = extension("python_names").python_page()
    missing = [name for name in fdb.__all__ if f"filterdb.{name}" not in page and f"fdb.{name}" not in page]
    assert missing == []
    assert [name for name in fdb.plot.__all__ if f"filterdb.plot.{name}" not in page] == []


EXAMPLES_ELSEWHERE = {"Client", "connect", "catalog", "Server", "serve"}
"""Names of clusters, of a hub, and of a server that runs until it is stopped."""


def test_every_public_name_has_an_example_that_runs() -> None:
    """In a block of the documentation, the notebook, or the doctest of a docstring."""
    code = [
        block.text for page in pages() for block in blocks(page) if block.language == "python" and not block.not_run
    ]
    notebook = json.loads((ROOT / "docs/how-to/interactive.ipynb").read_text("utf-8"))
    code += ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for name in fdb.__all__:
        examples = doctest.DocTestParser().get_examples(getattr(fdb, name).__doc__ or "")
        code += [example.source for example in examples if not example.options.get(doctest.SKIP)]
    used = set(re.findall(r"\bfdb\.(\w+)", "\n".join(code)))
    assert set(fdb.__all__) - used - EXAMPLES_ELSEWHERE == set()


def test_the_notebook_is_a_page() -> None:
    page = extension("notebook").notebook_page(Path(ROOT / "docs/how-to/interactive.ipynb"))
    assert page.startswith("# Filters of trained CNNs") and "](../../reference/catalog.md)" in page
