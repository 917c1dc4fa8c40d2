"""Run several filterdb commands in one process: its start takes longer than most commands.

Each command goes through `python -m filterdb` with arguments, stdout, stderr and an exit code of its own, so that a
test of those needs no process for each. A test of a start, a signal, a limit or an end of a process does.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


def run_several(
    *commands: Sequence[object], run: Run | None = None, **options: Any
) -> list[subprocess.CompletedProcess[str]]:
    """Run these commands one after another. `run` starts the process; default: `subprocess.run` with these options."""
    words = [[str(word) for word in command] for command in commands]
    program = [sys.executable, "-m", "tests.several", json.dumps(words)]
    done = run(*program, **options) if run is not None else _run(program, **options)
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    answers = json.loads(done.stdout)
    return [subprocess.CompletedProcess(command, *answer) for command, answer in zip(words, answers, strict=True)]


def _run(program: list[str], env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    variables = {**(os.environ if env is None else env), "PYTHONPATH": str(ROOT)}
    return subprocess.run(program, capture_output=True, text=True, check=False, env=variables, **options)


def _main(commands: list[list[str]]) -> None:
    """Print the exit code, stdout and stderr of each command as JSON."""
    own = os.dup(1)
    answers = [_answer(words) for words in commands]
    with os.fdopen(own, "w", encoding="utf-8") as out:
        out.write(json.dumps(answers))


def _answer(words: list[str]) -> tuple[int, str, str]:
    """Run a command with files in the place of this process's stdout and stderr."""
    streams = sys.stdout, sys.stderr
    kept = os.dup(1), os.dup(2)
    sys.argv = ["filterdb", *words]
    code: object = 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            runpy.run_module("filterdb", run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sys.stdout, sys.stderr = streams
            for number, handle in enumerate(kept, 1):
                os.dup2(handle, number)
                os.close(handle)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
    return code if isinstance(code, int) else 0, texts[0], texts[1]


if __name__ == "__main__":
    # As Python decodes arguments: where the locale is not UTF-8, other bytes than ASCII are surrogates.
    arguments = json.loads(sys.argv[1])
    _main([[os.fsdecode(word.encode("utf-8", "surrogateescape")) for word in words] for words in arguments])
