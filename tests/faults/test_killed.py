"""Fault 1: kill −9 of the client at every mutating call of an ingest, in a folder and on S3."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def enumerate_kills(where: str, folder: Path, first: int, step: int) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.faults.killed", where, str(folder), str(first), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == [], found
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_in_a_folder(tmp_path: Path) -> None:
    """Every 17th of the operating system's calls; `make faults` tries all."""
    found = enumerate_kills("folder", tmp_path, 4, 17)
    assert int(str(found["total"])) > 80 and int(str(found["points"])) > 5


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_call_in_a_folder(tmp_path: Path) -> None:
    found = enumerate_kills("folder", tmp_path, 0, 1)
    assert found["points"] == found["total"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_on_s3(tmp_path: Path, s3: Callable[[], str]) -> None:
    """Before and after objects that are put or removed."""
    found = enumerate_kills(s3(), tmp_path, 7, 12)
    assert int(str(found["points"])) > 1
