"""A command that is stopped ends: once in order, twice at once; no process that it has started outlives it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from filterdb.commands import stopping

pytestmark = pytest.mark.slow

WATCHDOG = 150.0
WORKERS, THREADS = ("--workers", "2"), ("--threads", "2")


def _parents() -> dict[int, tuple[int, str]]:
    """Every process's parent and start time; a number that is used again has another time."""
    processes = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                processes[int(folder.name)] = (int(fields[1]), fields[19])
    return processes


def descendants(root: int) -> set[tuple[int, str]]:
    processes = _parents()
    known, grown = {root}, True
    while grown:
        more = {pid for pid, (parent, _) in processes.items() if parent in known} - known
        known, grown = known | more, bool(more)
    return {(pid, processes[pid][1]) for pid in known - {root} if pid in processes}


def alive(processes: set[tuple[int, str]]) -> set[int]:
    now = _parents()
    return {pid for pid, started in processes if pid in now and now[pid][1] == started}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def is_reading(root: int) -> bool:
    """Whether a fork server's child reads a model."""
    return sum("filterdb.models.sandbox" in _command(pid) for pid, _ in descendants(root)) >= 2


def is_starting(root: int) -> bool:
    """Whether the first process of a cluster has begun."""
    return any("multiprocessing" in _command(pid) for pid, _ in descendants(root))


INT, TERM, HUP, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
CASES = {
    "ctrl-c, threads": (THREADS, is_reading, (INT,), 130),
    "ctrl-c twice, threads": (THREADS, is_reading, (INT, INT), 130),
    "terminated, threads": (THREADS, is_reading, (TERM,), 143),
    "ctrl-c twice, workers": (WORKERS, is_reading, (INT, INT), 130),
    "ctrl-c twice, start of the cluster": (WORKERS, is_starting, (INT, INT), 130),
    "terminated, workers": (WORKERS, is_reading, (TERM,), 143),
    "terminal closed, workers": (WORKERS, is_reading, (HUP,), 129),
    "killed, workers": (WORKERS, is_reading, (KILL,), -9),
}


@pytest.fixture
def signals_as_in_a_terminal() -> Iterator[None]:
    """Undo what `nohup make test` hands down, so that the command that is stopped does not inherit it."""
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in (TERM, HUP)}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_in_a_terminal")
@pytest.mark.parametrize("case", CASES)
def test_a_stopped_command_ends_with_all_its_processes(case: str, tmp_path: Path) -> None:
    place, moment, signals, code = CASES[case]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpu.onnx").write_bytes(b"spin")
    with (tmp_path / "stderr").open("wb") as stderr:
        command = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.slow_reader", "ingest", tmp_path / "db", tmp_path / "a",
             tmp_path / "b", "--model-seconds", "900", *place],
            stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            env={**os.environ, "DASK_DISTRIBUTED__WORKER__PRELOAD": "['filterdb.preload', 'tests.faults.slow_reader']"},
        )  # fmt: skip
    try:
        _until(lambda: moment(command.pid))
        family = descendants(command.pid)
        assert family
        for number, sent in enumerate(signals):
            if number:
                time.sleep(0.3)
            # A terminal sends to the whole group, `kill` to the process.
            tell = os.killpg if sent in {INT, HUP} else os.kill
            if command.poll() is None:
                tell(command.pid, sent)
        assert command.wait(WATCHDOG) == code
        _until(lambda: not alive(family))
    finally:
        command.kill()
        command.wait()
        for pid in alive(family):
            os.kill(pid, signal.SIGKILL)
    said = (tmp_path / "stderr").read_text()
    # Python's own processes print a traceback where the terminal's Ctrl-C finds them at their first imports.
    assert not re.search(r"Traceback(?:(?!Traceback).)*/filterdb/commands", said, re.DOTALL), said
    assert "Exception ignored" not in said, said
    assert not (tmp_path / "db" / "snapshots").exists()


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WATCHDOG
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """`nohup filterdb …`"""
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from filterdb.commands import stopping; stopping.install()\n"
        "os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"


DROPS = {
    "__del__": "class Slow:\n    def __del__(self): interrupted()\nSlow()",
    "weak reference": "import weakref\nclass Slow: pass\ns = Slow(); w = weakref.ref(s, interrupted); del s",
    "garbage collector": "import gc\ngc.callbacks.append(interrupted); gc.collect()",
}


@pytest.mark.parametrize("drops", DROPS)
@pytest.mark.parametrize("number", [INT, TERM, HUP])
def test_an_interrupt_that_python_drops_comes_again(drops: str, number: signal.Signals) -> None:
    """Until it does, the command would go on, to be ended without cleaning up."""
    code = (
        "import os, signal, time\nfrom filterdb.commands import stopping\n"
        f"signal.signal({int(number)}, signal.SIG_DFL); stopping.install(); sent = []\n"
        "def interrupted(*_):\n"
        f"    if not sent: sent.append(1); os.kill(os.getpid(), {int(number)})\n"
        "    time.sleep(0.1)\n"
        f"try:\n{_indented(DROPS[drops])}    time.sleep({stopping.GRACE_SECONDS - 5})\n"
        "except KeyboardInterrupt:\n    print('cleaned up'); stopping.leave()\n"
    )
    done = subprocess.run([sys.executable, "-uc", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("cleaned up\n", "", 130 if number == INT else 128 + number)


def _indented(code: str) -> str:
    return "".join(f"    {line}\n" for line in code.splitlines())
