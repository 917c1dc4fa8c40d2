"""A database without 3×3 filters: no command answers about nothing, and each names the shapes that are there."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

import filterdb as fdb
from tests.commands.running import answer, run
from tests.commands.test_options import all_commands, options
from tests.models import chain, weights

ARGUMENTS = {
    "drift": ["--by", "model"],
    "reference": ["-o", "r.json"],
    "series": [],
    "explain": ["a", "b", "--by", "model"],
}

WITHOUT_FILTERS = {"layers", "models", "nearest", "reduce", "report", "check", "randomness-threshold", "serve"}
"""Commands that list what is there, or look at all shapes."""


def about_filters() -> list[str]:
    """The commands that take --kernel and a database, and answer about its filters."""
    found = []
    for name, command in all_commands().items():
        takes_db = any(isinstance(param, click.Argument) and param.name == "db" for param in command.params)
        if takes_db and "--kernel" in options(command) and name not in WITHOUT_FILTERS:
            found.append(name)
    return found


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    for seed, name in enumerate("ab"):
        layers = [weights(40, into, 10 * seed + into, (5, 5)) for into in (3, 40)]
        chain(folder / f"{name}.onnx", *layers, weights(8, 40, seed, (1, 7)))
    fdb.ingest(folder / "db", [str(folder / "a.onnx"), str(folder / "b.onnx")])
    return folder / "db"


def test_there_are_such_commands() -> None:
    assert {"pca", "drift", "degeneration", "lineage", "codebook", "refit", "statistics"} <= set(about_filters())


@pytest.mark.parametrize("name", about_filters())
def test_a_command_names_the_shapes_that_are_there(db: Path, name: str) -> None:
    done = run(name, db, *ARGUMENTS.get(name, []), code=65)
    line = (
        "expected at least one layer with 3×3 filters, got none; "
        "the database has 1×7, 5×5: choose one, as with --kernel 1x7"
    )
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_what_looks_at_all_shapes(db: Path, tmp_path: Path) -> None:
    assert set(answer("reduce", db)["bases"]) == {"1x7", "5x5"}
    rows = answer("nearest", db, db.parent / "a.onnx")["rows"]
    assert Path(rows[0]["model"]).name == "a.onnx" and rows[0]["same_content"]
    said = run("ingest", db, db.parent / "a.onnx").stdout
    assert "now 0 3×3 filters" in said and "also 1×7, 5×5 filters" in said
    assert "3,440 5×5 filters" in run("pca", db, "--kernel", "5x5").stdout
    page = run("report", db, "-o", tmp_path / "page", "--no-densities").stdout
    assert "<span>5×5 filters</span>" in (tmp_path / "page/index.html").read_text(), page
