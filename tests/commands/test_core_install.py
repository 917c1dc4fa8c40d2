"""An install without extras: `check`, `nearest` and lists work as with all extras, and all else names its extra."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from filterdb.extras import EXTRA_OF_MODULE
from tests.commands.running import run
from tests.filters import trained
from tests.models import chain

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

COMMANDS = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
from tests.commands.running import run
done = [run(*line.split(), code=code) for code, line in json.loads(sys.argv[2])]
print(json.dumps([[one.stdout, one.stderr] for one in done]))
"""

PYTHON = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
import filterdb as fdb
db = fdb.open("db")
calls = [
    lambda: db.models, lambda: db.layers, lambda: db.skipped, lambda: db.select(task="unknown").unread,
    lambda: fdb.nearest(db, "two.onnx"), lambda: fdb.check("two.onnx"), lambda: fdb.drift, lambda: fdb.plot,
    lambda: fdb.ingest("other", "two.onnx"), lambda: db.dataset, lambda: fdb.coefficients,
]
for call in calls:
    try:
        call()
        print("no error")
    except fdb.errors.MissingExtraError as error:
        print(error)
"""


def child(code: str, *arguments: object, missing: list[str], cwd: Path) -> str:
    """Run code in a process in which some modules are not installed, and return what it prints."""
    command = [sys.executable, "-c", code, json.dumps(missing), *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/bin", "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands_without(missing: list[str], lines: list[tuple[int, str]], cwd: Path) -> list[tuple[str, str]]:
    """Run commands, each with its expected exit code, without some modules; return stdout and stderr of each."""
    return [tuple(texts) for texts in json.loads(child(COMMANDS, json.dumps(lines), missing=missing, cwd=cwd))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reduced database `db`, one without summaries, `new`, and a model that neither has."""
    folder = tmp_path_factory.mktemp("core")
    for number, name in enumerate(("one", "two", "three")):
        chain(folder / f"{name}.onnx", *(trained(16, 16, 10 * number + layer) for layer in range(6)))
    (folder / "catalog.csv").write_text("path,name,task,licence\none.onnx,one,detection,MIT\nthree.onnx,three,,\n")
    run("ingest", folder / "new", "--catalog", folder / "catalog.csv")
    shutil.rmtree(folder / "new/summaries")
    shutil.copytree(folder / "new", folder / "db")
    run("reduce", folder / "db")
    return folder


def test_answers_are_those_of_an_install_with_all_extras(place: Path, tmp_path: Path) -> None:
    lines = [
        "check two.onnx one.onnx --db db --json", "check two.onnx", "info db --json", "info db", "models db --json",
        "models db --where task=detection", "layers db --json", "layers db --where model=three --json",
        "snapshots db --json", "nearest db one.onnx -n 1 --by-decile", "nearest new two.onnx --json", "verify db",
    ]  # fmt: skip
    folder = shutil.copytree(place, tmp_path / "core")
    # Without Numba, moments differ in the last digits.
    missing = [name for name in EXTRA_OF_MODULE if name != "numba"]
    done = commands_without(missing, [(0, line) for line in lines], folder)
    answers = dict(zip(lines, (out for out, _ in done), strict=True))
    written = {path: path.read_bytes() for path in folder.rglob("*.npz")}
    shutil.rmtree(folder)
    shutil.copytree(place, folder)
    assert answers == {line: run(*line.split(), cwd=folder).stdout for line in lines}
    assert len(written) == 4 and written == {path: path.read_bytes() for path in folder.rglob("*.npz")}


def test_what_needs_an_extra_names_it(place: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(ROOT / "tests/data/format-4.zip") as archive:
        archive.extractall(tmp_path)
    extras = {
        f"drift {place}/db --by model": "analysis",
        f"lineage {place}/db": "analysis",
        f"models {tmp_path}/format-4": "ingest",
        f"ingest other {place}/two.onnx": "ingest",
        f"remove {place}/db one --purge": "ingest",
        f"report {place}/db -o page.html": "analysis",
        f"layers {place}/db --figure layers.svg": "report",
        f"serve {place}/db": "serve",
        "info s3://bucket/db": "s3",
    }
    lines = [(0, f"nearest {place}/db {place}/two.onnx"), *((2, line) for line in extras)]
    (_, no_error), *failed = commands_without([*EXTRA_OF_MODULE], lines, tmp_path)
    assert no_error == ""
    errors = [error for _, error in failed]
    assert [error.count("\n") for error in errors] == [1] * len(extras), errors
    named = {
        line: f"pip install 'filterdb[{extra}]'" in error
        for (line, extra), error in zip(extras.items(), errors, strict=True)
    }
    assert all(named.values()), errors


def test_python_raises_an_error_that_names_the_extra(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "db", tmp_path / "db")
    shutil.copy(place / "two.onnx", tmp_path)
    lines = child(PYTHON, missing=[*EXTRA_OF_MODULE], cwd=tmp_path).splitlines()
    named = [line.partition("filterdb[")[2].removesuffix("]'") for line in lines]
    assert named == [*["analysis"] * 8, "ingest", "cluster", "analysis"], lines


def test_an_ingest_needs_only_the_extra_of_that_name(place: Path, tmp_path: Path) -> None:
    missing = [name for name, extra in EXTRA_OF_MODULE.items() if extra != "ingest"]
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "one.onnx", tmp_path / "copy.onnx")
    lines = [(0, "ingest db two.onnx --json"), (0, "ingest db copy.onnx --json"), (0, "remove db one --json")]
    added, duplicates, removed = (json.loads(out) for out, _ in commands_without(missing, lines, tmp_path))
    assert added["added"] == ["two.onnx"] and duplicates["duplicates"] == ["copy.onnx"]
    assert removed["models"] == 3
