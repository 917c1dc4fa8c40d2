"""Each command has its file, and each file of a command has one command, one answer and one table."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click

from filterdb import commands as package
from filterdb.commands import check_answer
from filterdb.commands.group import commands

SHARED = {
    "answer", "check_answer", "figure", "group", "help", "junit", "layout", "numbers", "one_of", "options", "sarif",
    "snapshot_change", "stopping", "streams", "table",
}  # fmt: skip
"""Modules that several commands use, or the command line as a whole, and what `check` writes."""


def names() -> list[str]:
    return commands.list_commands(click.Context(commands))


def defined_in(module: str) -> list[str]:
    """Return the functions of a module that are decorated as commands, as Python names them."""
    tree = ast.parse((Path(package.__path__[0]) / f"{module}.py").read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator).startswith("commands.command(") for decorator in node.decorator_list)
    ]


def test_each_command_has_its_file_and_each_file_one_command() -> None:
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert modules >= SHARED
    assert {module: defined_in(module) for module in modules - SHARED} == {
        name.replace("-", "_"): [name.replace("-", "_")] for name in names()
    }
    assert not any(defined_in(module) for module in SHARED)


def test_a_command_is_found_under_its_name_and_has_a_table() -> None:
    for name in names():
        command = commands.get_command(click.Context(commands), name)
        module = import_module(f"filterdb.commands.{name.replace('-', '_')}")
        assert command is not None and command.name == name
        assert getattr(module, name.replace("-", "_")) is command
        assert callable((check_answer if name == "check" else module).show)


def test_the_version_needs_no_heavy_imports() -> None:
    """The package of the command line imports none of what the analyses need seconds for."""
    script = (
        "import sys; from filterdb.commands import main; sys.argv = ['filterdb', '--version']\n"
        "try: main()\n"
        "except SystemExit: print(*(m for m in ('dask', 'xarray', 'pandas', 'zarr', 'bokeh') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
