"""What a command imports: its help nothing heavy, a check neither xarray nor Dask, and what it lists is what it has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from filterdb import choices
from filterdb.analysis.drift_metrics import METRICS
from filterdb.commands.group import commands, listed_helps
from filterdb.numerics.modes import MODES
from filterdb.numerics.threshold import INITS
from tests.commands.running import run
from tests.filters import trained
from tests.models import chain

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

CLUSTER = ("distributed", "bokeh", "tornado", "cryptography")
REMOTE = ("botocore", "s3fs", "aiohttp", "huggingface_hub")
DATASETS = ("xarray", "pandas", "dask")
TABLES = ("xarray", "pandas", "zarr", "dask", "numba", "matplotlib", "pyarrow", "scipy")
HELP = (*CLUSTER, *REMOTE, *TABLES, "numpy", "onnx", "rich", "yaml", "fsspec", "asyncio")

MAIN = """
import runpy, sys
sys.argv[0] = "filterdb"
unwanted = sys.argv.pop(1).split()
try:
    runpy.run_module("filterdb", run_name="__main__")
finally:
    print("imported:", *(name for name in unwanted if name in sys.modules), file=sys.stderr)
"""


def imported(unwanted: tuple[str, ...], *arguments: object) -> list[str]:
    """Run a command in a process of its own and return which of the unwanted modules it has imported."""
    command = [sys.executable, "-c", MAIN, " ".join(unwanted), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "imported:" in done.stderr, done.stderr
    return done.stderr.splitlines()[-1].split()[1:]


def test_help_lists_what_the_commands_say() -> None:
    """The list is read from the sources; here every module is imported."""
    context = click.Context(commands)
    helps = {name: commands.get_command(context, name) for name in listed_helps()}
    assert {name: command and (command.help or "").splitlines()[0] for name, command in helps.items()} == listed_helps()
    for path in (ROOT / "filterdb/commands").glob("*.py"):
        __import__(f"filterdb.commands.{path.stem}")
    assert set(commands.commands) == set(listed_helps())


@pytest.mark.parametrize("arguments", ["--help", "--version", "no-such-command"])
def test_the_program_itself_imports_nothing_heavy(arguments: str) -> None:
    assert imported(HELP, *arguments.split()) == []


def test_no_help_of_a_command_imports_anything_heavy() -> None:
    """All in one process, so that the test is quick: none imports anything, so all together do not."""
    code = (
        "import click, sys; from filterdb.commands.group import commands\n"
        "context = click.Context(commands, info_name='filterdb')\n"
        "for name in commands.list_commands(context):\n"
        "    command = commands.get_command(context, name)\n"
        "    command.get_help(click.Context(command, info_name=name, parent=context))\n"
        "    loaded = [module for module in sys.argv[1:] if module in sys.modules]\n"
        "    if loaded: sys.exit(f'{name}: {loaded}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *HELP], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a second one, a reduced database of the first, and one without summaries."""
    folder = tmp_path_factory.mktemp("startup")
    for name, seed in (("one", 0), ("two", 5)):
        chain(folder / f"{name}.onnx", trained(16, 16, seed), trained(16, 16, seed + 1))
    run("ingest", folder / "db", folder / "one.onnx")
    shutil.copytree(folder / "db", folder / "new")
    shutil.rmtree(folder / "new/summaries")
    run("reduce", folder / "db")
    return folder


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        ("check {place}/one.onnx", (*CLUSTER, *REMOTE, *TABLES)),
        ("check {place}/one.onnx --json", (*CLUSTER, *REMOTE, *TABLES, "rich")),
        ("check {place}/one.onnx --sarif {place}/o.sarif --junit {place}/o.xml", (*CLUSTER, *REMOTE, *TABLES)),
        ("check {place}/one.onnx --db {place}/db", (*CLUSTER, *REMOTE, *DATASETS, "zarr", "matplotlib")),
        ("report {place}/one.onnx -o {place}/page", (*CLUSTER, *REMOTE, *TABLES, "jinja2")),
        ("info {place}/db", (*CLUSTER, *REMOTE, *TABLES, "onnx")),
        ("models {place}/db", (*CLUSTER, *REMOTE, *TABLES, "onnx")),
        ("layers {place}/db --where task=unknown", (*CLUSTER, *REMOTE, *TABLES, "onnx")),
        ("snapshots {place}/db", (*CLUSTER, *REMOTE, *TABLES, "onnx")),
        ("nearest {place}/db {place}/two.onnx --threads 2", (*CLUSTER, *REMOTE, *TABLES)),
        ("nearest {place}/new {place}/two.onnx --threads 2", (*CLUSTER, *REMOTE, *DATASETS, "zarr", "matplotlib")),
        ("drift {place}/db --by model --threads 2", (*CLUSTER, *REMOTE, "matplotlib", "onnx")),
        ("ingest {place}/other {place}/two.onnx --threads 2", (*CLUSTER, *REMOTE, *DATASETS, "matplotlib")),
        ("verify {place}/db --threads 2", (*CLUSTER, *REMOTE, *DATASETS, "zarr", "matplotlib", "onnx")),
    ],
)
def test_commands_import_only_what_they_need(arguments: str, unwanted: tuple[str, ...], place: Path) -> None:
    assert imported(unwanted, *(word.format(place=place) for word in arguments.split())) == []


def test_choices_are_those_of_the_code_behind_them() -> None:
    assert list(choices.MODE_NAMES) == list(MODES)
    assert list(choices.METRIC_NAMES) == list(METRICS)
    assert list(choices.INIT_NAMES) == list(INITS)
