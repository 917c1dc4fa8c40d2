"""Fault 1: kill −9 of the client at every mutating call, in a folder and on S3.

An ingest first, then `expire`, `remove --purge`, `gc`, `compact`, an ingest that joins small segments, and one that
adds banks of other kernel shapes to a segment.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from filterdb.engine.graph import FAN_IN


def results_of(module: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def enumerate_kills(where: str, folder: Path, first: int, step: int) -> dict[str, Any]:
    result = results_of("killed", where, folder, first, step)
    assert result["problems"] == [], result
    return result


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_in_a_folder(tmp_path: Path) -> None:
    """Every 17th of the operating system's calls; `make faults` tries all."""
    result = enumerate_kills("folder", tmp_path, 4, 17)
    assert int(str(result["total"])) > 80 and int(str(result["points"])) > 5


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_call_in_a_folder(tmp_path: Path) -> None:
    result = enumerate_kills("folder", tmp_path, 0, 1)
    assert result["points"] == result["total"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_on_s3(tmp_path: Path, s3: Callable[[], str]) -> None:
    """Before and after objects that are put or removed."""
    result = enumerate_kills(s3(), tmp_path, 7, 12)
    assert int(str(result["points"])) > 1


EVERYTHING = ("expire", "purge", "gc", "join", "compact", "widen")


def enumeration(where: str, command: str) -> object:
    return pytest.param(where, (command,), 0, id=f"{command}-{where}", marks=pytest.mark.soak)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("where", "commands", "points"),
    [
        pytest.param("folder", ("purge", "gc", "join", "widen"), 1, id="sample"),
        *(enumeration(where, command) for where in ("folder", "s3") for command in EVERYTHING),
    ],
)
def test_commands(
    where: str, commands: tuple[str, ...], points: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """See `killed_commands.rerun` for what holds after each kill, and after the command is run again."""
    root = where if where == "folder" else request.getfixturevalue("s3")()
    for command, result in results_of("killed_commands", root, tmp_path, points, *commands).items():
        assert result["problems"] == [], result
        assert result["points"] == (points or result["total"]) and result["total"] > 5, command


def resumed_codebook(folder: Path, points: int) -> dict[str, Any]:
    result = results_of("killed_codebook", folder, points)
    assert result["problems"] == [], result
    more = (later - earlier for earlier, later in itertools.pairwise(result["reads"]))
    assert max(more) <= FAN_IN, "a later kill leaves less to do, but for a checkpoint that was not complete"
    assert result["reads"][-1] == 0 < result["reads"][0]
    return result


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_codebook_resumes(tmp_path: Path) -> None:
    """The same answer and objects, and what was finished is not computed again."""
    result = resumed_codebook(tmp_path, 6)
    assert result["points"] == 6 and len(set(result["reads"])) >= 5, result


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_codebook_resumes_after_every_call(tmp_path: Path) -> None:
    result = resumed_codebook(tmp_path, 0)
    assert result["points"] == result["total"]
