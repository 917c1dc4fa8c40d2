"""Run a command: in this process, or in one of its own where that is what a test is about."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from filterdb import commands
from filterdb.commands.group import commands as group
from tests import loggers

PLACES = ("--threads", "--workers", "--scheduler")


def run(*args: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, in two threads unless its arguments say where. Check its exit code."""
    words = list(map(str, args))
    if _takes_threads(words) and not set(PLACES) & set(words):
        words += ["--threads", "2"]
    with loggers.restored(), contextlib.chdir(cwd or Path.cwd()), CliRunner().isolation() as (out, err, _):
        returned = commands.run(words)
    done = subprocess.CompletedProcess(words, returned, out.getvalue().decode(), err.getvalue().decode())
    return _checked(done, code)


def run_process(*args: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own. Check its exit code."""
    command = [sys.executable, "-m", "filterdb", *map(str, args)]
    return _checked(subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd), code)


def answer(*args: object) -> dict[str, Any]:
    """Return the answer of a command as JSON, which is all that it prints on stdout."""
    values: dict[str, Any] = json.loads(run(*args, "--json").stdout)
    assert {"snapshot", "selection", "filters", "layers", "models"} <= values.keys()
    return values


def _checked(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, (done.args, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    return done


def _takes_threads(words: list[str]) -> bool:
    if not words or "--help" in words:
        return False
    command = group.get_command(click.Context(group), words[0])
    return command is not None and any("--threads" in option.opts for option in command.params)
