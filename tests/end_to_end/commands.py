"""The command as a user calls it: a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(*args: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "filterdb", *map(str, args)], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == code, (args, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def answer(*args: object) -> dict[str, Any]:
    """--json: machine output on stdout and nothing else."""
    found: dict[str, Any] = json.loads(run(*args, "--json").stdout)
    assert {"snapshot", "selection", "filters", "layers", "models"} <= found.keys()
    return found
