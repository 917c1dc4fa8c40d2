"""Users as they are: without rights, home, memory, files or a stdout; what cannot be read; answers in any encoding."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.commands import LEAST_MEMORY
from tests import other_user
from tests.models import chain, weights
from tests.several import run_several

pytestmark = pytest.mark.slow

FILTERDB = f"{shlex.quote(sys.executable)} -m filterdb"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that every account may enter, with a model and a database that every account may read."""
    folder = Path(tempfile.mkdtemp(prefix="filterdb-users-"))
    folder.chmod(0o755)
    chain(folder / "model.onnx", weights(16, 8, 1), weights(8, 16, 2))
    chain(folder / "naïve ×→😀.onnx", weights(4, 4, 3))
    fdb.pca(fdb.ingest(folder / "db", [folder / "model.onnx"]).database)
    yield folder
    shutil.rmtree(folder)


def shell(script: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script in which `f` is the command."""
    return subprocess.run(
        ["bash", "-c", f'f() {{ {FILTERDB} "$@"; }}\n{script}'], cwd=place, env={**os.environ, **environment},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def is_told(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether stderr is one line, besides the dashboard's address."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("dashboard: ")]
    return len(lines) == 1 and lines[0].startswith("filterdb: ") and "Traceback" not in lines[0]


LIMITS = ["-v 4000000 -n 64 -t 60", "-v 1500000 -n 20 -s 1024", "-d 2000000 -f 0 -c 0"]
"""Several limits at once: a model that is read below all of them is read below each."""


@pytest.mark.parametrize("limit", LIMITS)
def test_a_healthy_model_is_read_below_a_hard_limit(limit: str, place: Path) -> None:
    set_limits = "; ".join(f"ulimit -{option}" for option in limit.removeprefix("-").split(" -"))
    done = shell(f"{set_limits}; f check model.onnx --json", place)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["filters"] == 256 and answer["files"][0]["reason"] is None


def test_too_few_files_for_workers_are_told_in_one_line(place: Path) -> None:
    done = shell("ulimit -n 40; f ingest made model.onnx --workers 2", place)
    assert done.returncode == 2 and is_told(done) and "ulimit -Hn" in done.stderr, done.stderr


@pytest.mark.parametrize("limit", [60_000, 260_000, 500_000, LEAST_MEMORY - 1, LEAST_MEMORY])
def test_too_little_memory_is_told_in_one_line(limit: int, place: Path) -> None:
    """Libraries in C end a process that has little memory in ways of their own, so they must not be imported."""
    done = shell(f"ulimit -v {limit}; f check model.onnx", place)
    if limit < LEAST_MEMORY:
        assert done.returncode == 75, (limit, done.stderr)
        assert is_told(done) and done.stderr.startswith("filterdb: out of memory") and "ulimit -v" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_cpu_time_that_is_used_up_is_told() -> None:
    code = (
        "from filterdb.commands import main\nfrom filterdb.commands.group import commands\n"
        "@commands.command()\ndef spin():\n    while True: pass\n"
        "import sys; sys.argv[1:] = ['spin']; main()"
    )
    done = subprocess.run(
        ["bash", "-c", 'ulimit -t 8; exec "$@"', "bash", sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 75 and "ulimit -t" in done.stderr and "Traceback" not in done.stderr


OUTPUTS = {
    "closed": ("f info db >&-", 74, ""),
    "full": ("f info db >/dev/full", 74, ""),
    "full, JSON": ("f info db --json >/dev/full", 74, ""),
    "full, help": ("f --help >/dev/full", 74, ""),
    "a pipe that is read in part": ("f layers db | head -1; exit ${PIPESTATUS[0]}", 0, "reader"),
    "a pipe that nobody reads": ("f layers db | true; exit ${PIPESTATUS[0]}", 0, "reader"),
    "a pipe, a check that fails": ("f check nothing.onnx | true; exit ${PIPESTATUS[0]}", 65, ""),
    "stderr closed": ("f info db --json 2>&-", 0, "answer"),
    "stderr full": ("f info db --json 2>/dev/full", 0, "answer"),
    "stderr closed, an error": ("f info nowhere 2>&-", 74, "silent"),
    "stderr full, an error": ("f nonsense 2>/dev/full", 2, "silent"),
    "all closed": ("f info db <&- >&- 2>&-", 74, "silent"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_answers_that_cannot_be_written(case: str, place: Path) -> None:
    script, code, expected = OUTPUTS[case]
    done = shell(script, place)
    assert done.returncode == code, done.stderr
    if expected == "answer":
        assert json.loads(done.stdout)["filters"] == 256
    elif expected == "":
        assert is_told(done), done.stderr
    else:
        assert done.stderr == ""


@pytest.mark.parametrize("encoding", ["C locale", "latin-1", "ascii"])
def test_any_encoding_carries_tables_and_json(encoding: str, place: Path) -> None:
    environment = {"PYTHONUTF8": "0", **({"LC_ALL": "C"} if encoding == "C locale" else {"PYTHONIOENCODING": encoding})}
    command = ["check", "naïve ×→😀.onnx"]
    done = run_several(command, [*command, "--json"], cwd=place, env={**os.environ, **environment})
    for result in done:
        assert result.returncode in {0, 1} and result.stderr == "" and result.stdout, result
    answer = json.loads(done[1].stdout)  # UTF-8, as a program expects
    assert answer["filters"] == 16
    if encoding != "C locale":  # there Python takes the name's bytes apart before we see it
        assert answer["rows"][0]["file"] == "naïve ×→😀.onnx"


HOMES = {"unset": None, "missing": "/nonexistent", "forbidden": "/root"}


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    """A folder of the user without rights, the only one that can be written: one, so that loops are compiled once."""
    if why := other_user.missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, other_user.USER, other_user.USER)
        yield folder


@pytest.mark.parametrize("home", HOMES)
def test_a_user_without_home_or_rights(home: str, place: Path, own: str) -> None:
    """Neither root, nor with a home, nor with an installation that can be written."""
    database = f"{own}/{home}"
    commands = (["ingest", database, place / "model.onnx"], ["pca", database, "--json"])
    run = partial(other_user.run, HOME=HOMES[home], TMPDIR=own)
    done = run_several(*([*command, "--threads", "1"] for command in commands), run=run)
    for result in done:
        assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    answer = json.loads(done[1].stdout)["groups"][0]
    here = fdb.pca(fdb.open(place / "db"))
    np.testing.assert_allclose(answer["explained_variance_ratio"], here["explained_variance_ratio"].values[0])


def test_a_user_whom_the_system_does_not_know() -> None:
    """As in a container with a random user: no home, no name, and workers of its own."""
    if why := other_user.missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 54_321, 0)
        code = "import filterdb as fdb\nwith fdb.connect(workers=1) as client: print(client.submit(abs, -7).result())"
        command = [sys.executable, "-c", code]
        done = other_user.run(*command, ids=(54_321, 0), HOME=None, TMPDIR=folder)
        assert done.returncode == 0 and done.stdout == "7\n", done.stderr


def test_what_cannot_be_read_does_not_stop_the_rest(place: Path, own: str) -> None:
    """As a user without rights: root may read everything."""
    odd = Path(own) / "odd"
    odd.mkdir()
    for name in ("good", "secret"):
        shutil.copy(place / "model.onnx", odd / f"{name}.onnx")
    (odd / "secret.onnx").chmod(0)
    (odd / "folder.onnx").mkdir()
    (odd / "locked").mkdir(mode=0)
    os.mkfifo(odd / "pipe.onnx")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(odd / "socket.onnx"))
    (odd / "disk.onnx").symlink_to("/proc/self/mem")  # a regular file whose first byte is an I/O error
    (odd / "lost.onnx").symlink_to("nowhere")
    (odd / "loop.onnx").symlink_to("loop.onnx")
    reasons = {
        "secret": "Permission denied", "folder": "got a folder", "pipe": "got a pipe", "socket": "got a socket",
        "disk": "Input/output error", "lost": "a link that leads nowhere", "loop": "symbolic links",
    }  # fmt: skip
    names = [f"{name}.onnx" for name in ("good", *reasons)]
    catalog = odd / "catalog.csv"
    catalog.write_text("\n".join(["path", *names]))
    listed = [odd / name for name in names]
    ways: dict[str, tuple[list[object], dict[str, str]]] = {
        "named": (list(listed), reasons),
        "folder": ([odd], {**reasons, "locked": "Permission denied"}),
        "glob": ([f"{odd}/*.onnx"], reasons),
        "catalog": (["--catalog", catalog], reasons),
    }
    commands: list[list[object]] = []
    for way, (sources, _) in ways.items():
        commands += [["ingest", f"{own}/{way}", *sources, "--json", "--threads", "1"]]
        commands += [["check", *sources, "--json"]] if way != "catalog" else []
    done = iter(run_several(*commands, run=partial(other_user.run, TMPDIR=own)))
    for way, (_, expected) in ways.items():
        ingested = next(done)
        assert ingested.returncode == 0, ingested.stderr
        answer = json.loads(ingested.stdout)
        assert len(answer["added"]) == 1
        rejected = {Path(row["model"]).stem: row["reason"] for row in answer["rejected"]}
        assert rejected.keys() == expected.keys(), way
        assert all(expected[name] in rejected[name] for name in expected), rejected
        if way == "catalog":
            continue
        checked = next(done)
        assert checked.returncode == 1, checked.stderr
        answer = json.loads(checked.stdout)
        told = {Path(file["file"]).stem: file["reason"] for file in answer["files"] if file["reason"]}
        assert told.keys() == expected.keys() and all(expected[name] in told[name] for name in expected), told
        assert answer["filters"] == 256


@pytest.mark.parametrize("place_of", ["report", "drift", "sarif", "junit"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(place_of: str, place: Path) -> None:
    if why := other_user.missing():
        pytest.skip(why)
    database = place / "db"
    arguments = {
        "report": ["report", database, "-o", place / "page"],
        "drift": ["drift", database, "--by", "layer", "-o", place / "matrix"],
        "sarif": ["check", place / "model.onnx", "--sarif", place / "made.sarif"],
        "junit": ["check", place / "model.onnx", "--junit", place / "made.xml"],
    }[place_of]
    # Nothing may be computed: what computes is taken away.
    code = (
        "import sys; from importlib import import_module as load\n"
        "def computed(*_, **__): sys.exit(99)\n"
        "load('filterdb.page.report').gather = load('filterdb.analysis.question').projection = computed\n"
        "load('filterdb.analysis.check')._read = computed\n"
        "load('filterdb.commands').main()"
    )
    done = other_user.run(sys.executable, "-c", code, *arguments, "--threads" if database in arguments else "--json",
                          *(["1"] if database in arguments else []), TMPDIR="/tmp")  # fmt: skip
    assert done.returncode == (2 if place_of in {"sarif", "junit"} else 74), done.stderr
    assert is_told(done) and "ermission denied" in done.stderr
