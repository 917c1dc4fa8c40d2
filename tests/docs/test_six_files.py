"""The six files of the guide for a new analysis are all that it takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.running import matches
from tests.docs.workspace import prepare_database

PAGE = "docs/how-to/add-an-analysis.md"
FILES = {block.file: block.text for block in blocks(PAGE) if block.file}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and the tests, with the files of the guide."""
    root = tmp_path_factory.mktemp("six")
    for name in ("filterdb", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        with (root / name).open("a" if (root / name).exists() else "x", encoding="utf-8") as file:
            file.write(text)
    (root / ".cache").symlink_to(ROOT / ".cache", target_is_directory=True)
    shutil.copyfile(ROOT / "pyproject.toml", root / "pyproject.toml")
    return root


@pytest.fixture(scope="module")
def database(demo_catalog: Path, tree: Path) -> Path:
    """The database of `make demo`."""
    return prepare_database(demo_catalog, tree / "filterdb-demo/db")


def run(tree: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tree, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_are_six() -> None:
    assert len(FILES) == 6


@pytest.mark.slow
def test_the_command_and_the_section_work(tree: Path, database: Path) -> None:
    (shown,) = [block.output for block in blocks(PAGE) if block.language == "bash"]
    assert shown is not None
    assert matches(shown.text, run(tree, "filterdb", "peaks", str(database), "--by", "task"))
    assert "Show percentiles of the layers' largest weights." in run(tree, "filterdb", "--help")
    run(tree, "filterdb", "report", str(database), "-o", "page", "--no-densities", "--kernel", "3x3", "--threads", "2")
    page = (tree / "page/index.html").read_text("utf-8")
    assert (
        '<section id="peaks">' in page and "makers.peaks = " in page and '"peaks":{"models":' in page.replace(" ", "")
    )


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what_is_enumerated_holds_with_them(tree: Path, demo_catalog: Path) -> None:
    """Its own test, and those that enumerate public names, options and commands."""
    run(tree, "ruff", "check", "--isolated", "filterdb/analysis/peaks.py", "filterdb/commands/peaks.py")
    arguments = ("a_path_and_a_database_do_the_same", "a_wrong_database_is_one_line_that_names_the_parameter")
    names = ["tests/analysis/test_peaks.py", "tests/commands", "tests/test_public_names.py",
             "tests/test_formerly_positional.py",
             *(f"tests/test_arguments.py::test_{name}[peaks]" for name in arguments)]  # fmt: skip
    run(tree, "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *names)
    run(tree, "tests.prose")
