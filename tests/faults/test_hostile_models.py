"""Hostile models cost their own layer or file and nothing else: in time, in memory, and with nothing read outside."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import filterdb as fdb
from filterdb.models.catalog import ModelSource
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan
from filterdb.schema import WEIGHTS
from tests.hostile import BOMBS, CANARY, CANARY_FLOATS, MIB, Case, W, healthy, write_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured by Linux's /proc"),
]

SECONDS, START_SECONDS = 30, 10
MEMORY, START_MEMORY = 2048 * MIB, 500 * MIB
DISK = 1024 * MIB
"""What one hostile model may take, and what any start of the command takes."""

UNREAD = 1024 * MIB
"""Bytes that a run may read that refuses a file by its size: Python and its modules are some hundred MiB."""

REASON = 2_000
"""Characters that a reason may have, besides the path and the layer's name."""

BATCHES = (
    ("external",),
    ("file", "graph"),
    ("tensor", "dtype", "fold", "constant"),
    ("attribute", "name"),
    ("safetensors",),
    ("checkpoint",),
    ("openvino",),
)
"""Families of cases that are ingested together: a start of the command takes longer than most of them."""

HEAVY = (
    "bomb/3 GB of data for 10 GB",
    "bomb/one data file under 1,000 names",
    "bomb/9 MB shared by 2,000 convolutions",
    "bomb/25 bodies that capture 200,000 names",
    "bomb/300,000 empty bodies",
    "bomb/checkpoint, a view over 3 GB",
)
"""Bombs that end by the limit of time, or with gigabytes to hash, like others that are tried oftener."""


@dataclass(slots=True)
class Run:
    """A command that has ended, and the most that it took, all of its processes together."""

    code: int | None = None
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    peak: int = 0
    read: dict[int, int] = field(default_factory=dict)
    stopped: str = ""


def command(*args: object, seconds: float, memory: int, disk: Path | None = None, module: str = "filterdb") -> Run:
    """Run a module in a session of its own; ended where it takes more than it may, by a little."""
    run = Run()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *(os.fspath(_text(arg)) for arg in args)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        began, turn, known = time.monotonic(), 0, {process.pid}
        while process.poll() is None:
            run.seconds, turn = time.monotonic() - began, turn + 1
            if turn % 5 == 1:  # looking for processes costs more than looking at them
                known |= _family(process.pid, known)
            _measure(known, run)
            if run.seconds > seconds + 5:
                run.stopped = f"after {run.seconds:.0f} s"
            elif run.peak > memory + 256 * MIB:
                run.stopped = f"at {run.peak // MIB} MiB of memory"
            elif disk is not None and turn % 20 == 0 and _size(disk) > DISK + 256 * MIB:
                run.stopped = f"at {_size(disk) // MIB} MiB on the disk"
            if run.stopped:
                break
            time.sleep(0.05)  # each look costs several milliseconds
        if run.stopped:
            for pid in known | _family(process.pid, known):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        run.code = process.wait()
        run.seconds = time.monotonic() - began
        for file, name in ((out, "out"), (err, "err")):
            file.seek(0)
            setattr(run, name, file.read().decode("utf-8", "backslashreplace"))
    return run


def _text(arg: object) -> str | Path:
    return arg if isinstance(arg, Path) else str(arg)


def _family(session: int, known: set[int]) -> set[int]:
    """The living processes of a session, and those that descend from them: some have sessions of their own."""
    parents, found = {}, set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                if int(fields[3]) == session:
                    found.add(int(entry.name))
    found |= known & parents.keys()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _measure(pids: Iterable[int], run: Run) -> None:
    """Add the memory of these processes to the peak: what each has for itself, and its share of the common."""
    total = 0
    for pid in pids:
        with suppress(OSError, ValueError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += 1024 * int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
            run.read[pid] = int(Path(f"/proc/{pid}/io").read_text().split()[1])
    run.peak = max(run.peak, total)


def _size(folder: Path) -> int:
    sizes = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            sizes += file.stat().st_size
    return sizes


@contextmanager
def watched(paths: list[Path]) -> Iterator[dict[Path, int]]:
    """What was done to files inside the block, under whatever name: 1 read, 2 written, 32 opened (inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert handle >= 0, os.strerror(ctypes.get_errno())
    found: dict[Path, int] = {}
    try:
        by_watch = {libc.inotify_add_watch(handle, os.fsencode(path), 1 | 2 | 32): path for path in paths}
        assert -1 not in by_watch, os.strerror(ctypes.get_errno())
        yield found
        with suppress(BlockingIOError):
            while data := os.read(handle, 65_536):
                while data:
                    watch, mask, _, length = struct.unpack_from("iIII", data)
                    data = data[16 + length :]
                    if watch in by_watch:
                        found[by_watch[watch]] = found.get(by_watch[watch], 0) | mask & 35
    finally:
        os.close(handle)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    folder = tmp_path_factory.mktemp("hostile")
    yield write_corpus(folder)
    assert not (folder / "outside" / "unpickled").exists(), "a pickle was executed"
    shutil.rmtree(folder)


Stored = dict[str, list[tuple[str, np.ndarray]]]


def _stored(url: Path) -> Stored:
    """Of every model its layers' names and filters."""
    dataset = fdb.open(url).dataset
    filters, layers = dataset["filters"].values, fdb.open(url).layers
    ends = np.cumsum(layers["row_size"].values)
    found: Stored = {str(model): [] for model in fdb.open(url).models["model"].values}
    for model, name, start, end in zip(
        layers["model"].values, layers["layer_name"].values, [0, *ends[:-1]], ends, strict=True
    ):
        found[str(model)].append((str(name), filters[start:end]))
    return found


def _model_id(path: Path) -> str:
    """How a path is called in the database: as text that UTF-8 can carry."""
    return os.fsencode(path).decode("utf-8", "replace")


def _flat(arrays: Iterable[np.ndarray]) -> list[bytes]:
    """Filters in an order of their own."""
    return sorted(np.ascontiguousarray(array, np.float32).reshape(-1, WEIGHTS).tobytes() for array in arrays)


def _problems(case: Case, rejected: dict[str, str], ledger: list[dict[str, Any]], stored: Stored) -> list[str]:
    """What is not as it should be with a case."""
    model = _model_id(case.path)
    allowed = {case.end, *case.or_else}
    if model in rejected:
        reasons = [rejected[model]]
        end = "rejected"
    elif model not in stored:
        return ["neither rejected nor stored"]
    else:
        reasons = [row["reason"] for row in ledger if row["model"] == model and row["layer"] == case.layer]
        end = "skipped" if any(row["model"] == model for row in ledger) else "stored"
    found = [] if end in allowed else [f"expected {case.end}, got {end} ({' | '.join(reasons)[:300]})"]
    if end == "skipped" and not reasons:
        found.append(f"layer {case.layer!r} is not in the ledger")
    for reason in reasons:
        if not reason.strip() or len(reason.replace(model, "")) > REASON:
            found.append(f"a reason of {len(reason)} characters: {reason[:100]}")
        if end == case.end and not re.search(case.reason, reason.replace(model, ""), re.IGNORECASE):
            found.append(f"expected a reason with {case.reason!r}, got {reason[:300]!r}")
    if end == "rejected":
        return found + ([f"rejected, and stored with {len(stored[model])} layers"] if model in stored else [])
    have = [filters for _, filters in stored[model]]
    if end == "skipped" and _flat(have) != _flat(case.kept):
        found.append(f"expected only the sound layers, got {[(name, len(f)) for name, f in stored[model]][:5]}")
    if end == "stored" and case.odd is not None and _flat(have) != _flat([*case.kept, *case.odd]):
        found.append(f"expected other filters, got {[(name, len(f)) for name, f in stored[model]][:5]}")
    return found


def _control(text: str, *, hidden: bool = False) -> set[str]:
    """Control characters that have no place in output; with `hidden` also those that turn or hide text."""
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"} if hidden else {"Cc", "Cs"}
    return {c for c in set(text) - {"\n"} if unicodedata.category(c) in kinds}


def _leaks(url: Path, texts: Iterable[str]) -> list[str]:
    """Where something of a canary stands: in files of the database, or in output."""
    whole = np.resize(CANARY_FLOATS, W.size).reshape(-1, WEIGHTS)
    words = [CANARY.decode(), hashlib.sha256(whole.tobytes()).hexdigest(), repr(float(CANARY_FLOATS.max()))]
    runs = [CANARY, *(np.repeat(value, 2).tobytes() for value in CANARY_FLOATS)]
    found = [f"{word} in output" for word in words for text in texts if word in text]
    for file in url.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            found += [f"{mark!r} in {file}" for mark in (*runs, *(w.encode() for w in words)) if mark in data]
    return found


def _answers(url: Path, seconds: float, memory: int, *, with_table: bool) -> list[Run]:
    """Run `layers --json`, `verify --deep` and, where there are names to show, the table for people; in one process."""
    commands = [
        ["layers", url, "--json"],
        ["verify", url, "--deep", "--json"],
        *([["layers", url]] if with_table else []),
    ]
    words = json.dumps([[*map(str, command), "--threads", "1"] for command in commands])
    run = command(words, seconds=seconds, memory=memory, module="tests.several")
    if run.code != 0 or run.stopped:
        return [replace(run, code=run.code or 1)] * 3
    runs = [Run(*answer) for answer in json.loads(run.out)]
    return [*runs, *([] if with_table else [Run(code=0)])]


def _judge(cases: dict[str, Case], folder: Path, threads: int, seconds: float, memory: int) -> list[str]:
    """Ingest cases beside two sound models; gives all that is not as it should be."""
    url, problems = folder / "db", []
    sound = {folder / f"healthy{i}.onnx": healthy(folder / f"healthy{i}.onnx", seed=10 * i) for i in range(2)}
    first, last = sound
    # Sound models before and after: what comes later must not suffer either.
    sources = [first, *(case.path for case in cases.values()), last]
    canaries = [case.canary for case in cases.values() if case.canary is not None]
    with watched(canaries) as touched:
        run = command("ingest", url, *sources, "--threads", threads, "--json", seconds=seconds, memory=memory, disk=url)
    by_canary = {case.canary: name for name, case in cases.items()}
    problems += [f"{by_canary[path]}: its canary was read" for path, mask in touched.items() if mask & 3]
    took = f"{run.seconds:.1f} s, {run.peak // MIB} MiB"
    if run.stopped:
        return [*problems, f"ingest was ended {run.stopped} ({took})"]
    if run.code != 0:
        return [*problems, f"ingest: exit code {run.code} ({took}): {run.err[-1000:]}"]
    if run.seconds > seconds or run.peak > memory:
        problems.append(f"ingest took {took}; expected {seconds} s and {memory // MIB} MiB at most")
    if any(case.unread for case in cases.values()) and len(cases) == 1 and sum(run.read.values()) > UNREAD:
        problems.append(f"ingest read {sum(run.read.values()) // MIB} MiB; expected the file to be refused by its size")
    if _size(url) > DISK:
        problems.append(f"the database takes {_size(url) // MIB} MiB")
    done = json.loads(run.out)
    rejected = {row["model"]: row["reason"] for row in done["rejected"]}
    lines = run.err.split("\n")[:-1]
    told = [line for line in lines if line.startswith("filterdb: rejected ")]
    counted = [line for line in lines if re.match(r"filterdb: [\d,]+ convolutions? could not be read, such as ", line)]
    problems += [f"on stderr: {line[:300]!r}" for line in lines if line not in (*told, *counted)][:5]
    if len(told) != len(rejected):
        problems.append(f"expected a line on stderr for each of {len(rejected)} rejected models, got {len(told)}")
    listed, checked, table = _answers(url, max(120, seconds), memory, with_table=len(cases) > 1)
    for other in (listed, checked, table):
        if other.code != 0:
            return [*problems, f"exit code {other.code} {other.stopped}: {other.err[-1000:]}"]
    if not json.loads(checked.out)["ok"]:
        problems.append(f"verify: {checked.out[:1000]}")
    outputs = [run.out, run.err, listed.out, listed.err, table.out, table.err, checked.out, checked.err]
    problems += _leaks(url, outputs)
    if bad := set().union(*map(_control, outputs)):
        problems.append(f"control characters in output: {bad}")
    if bad := _control(table.out, hidden=True) | _control(run.err, hidden=True):
        problems.append(f"hidden characters in output for people: {bad}")
    stored, ledger = _stored(url), json.loads(listed.out)["skipped"]
    for path, layers in sound.items():
        have = dict(stored.get(str(path), []))
        if str(path) not in done["added"] or have.keys() != layers.keys():
            problems.append(f"a sound model is not stored: {have.keys()}")
        elif any(_flat([have[name]]) != _flat([layer]) for name, layer in layers.items()):
            problems.append("a sound model's filters are not its own")
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in ledger:
        by_model.setdefault(row["model"], []).append(row)
    for name, case in cases.items():
        own = by_model.get(_model_id(case.path), [])
        problems += [f"{name}: {problem}" for problem in _problems(case, rejected, own, stored)]
    return problems


def _report(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("families", BATCHES, ids=" ".join)
def test_what_is_harmless_by_design(corpus: dict[str, Case], tmp_path: Path, families: tuple[str, ...]) -> None:
    """In one batch: it must go on."""
    cases = {name: case for name, case in corpus.items() if name.split("/")[0] in families and not case.bomb}
    assert cases
    seconds = START_SECONDS + SECONDS + 0.2 * len(cases)
    _report(_judge(cases, tmp_path, 1, seconds, MEMORY + START_MEMORY))


@contextmanager
def _measured(run: Run) -> Iterator[None]:
    """Watch the processes that this one starts inside the block; the memory of this one does not count."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            _measure(_descendants() - {os.getpid()}, run)

    watcher = threading.Thread(target=look)
    watcher.start()
    began = time.monotonic()
    try:
        yield
    finally:
        run.seconds = time.monotonic() - began
        ended.set()
        watcher.join()


def _descendants() -> set[int]:
    return _family(-1, {os.getpid()})


def _slowness() -> float:
    """How much longer than its CPU time work takes here and now, because of others; 1 on an idle machine."""
    began, cpu = time.monotonic(), time.process_time()
    while time.process_time() - cpu < 0.2:
        pass
    return max(1.0, (time.monotonic() - began) / 0.2)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.soak] if n in HEAVY or i % 4 else []) for i, n in enumerate(BOMBS)]
)
def test_bombs_are_read_within_bounds(corpus: dict[str, Case], name: str) -> None:
    """Each alone, only read: its time, the memory of the process that reads it, and what is said of it."""
    case, run = corpus[name], Run()
    slowness = _slowness()
    with _measured(run):
        found = scan(ModelSource(name, str(case.path)), None, Limits())
    if found.rejected is not None:
        end, reasons = "rejected", [found.rejected]
    else:
        end = "skipped" if found.skipped else "stored"
        reasons = [skip.reason for skip in found.skipped if skip.layer == case.layer]
    told = f"{end} ({' | '.join(reasons)[:300]}) after {run.seconds:.1f} s with {run.peak // MIB} MiB"
    assert end in {case.end, *case.or_else}, told
    assert end == "stored" or reasons, f"nothing said of layer {case.layer!r}: {told}"
    assert all(reason.strip() and len(reason.replace(str(case.path), "")) <= REASON for reason in reasons), told
    assert end != case.end or all(re.search(case.reason, reason, re.IGNORECASE) for reason in reasons), told
    assert run.seconds <= SECONDS * max(slowness, _slowness()), told
    assert run.peak <= MEMORY + START_MEMORY, told


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(corpus: dict[str, Case], tmp_path: Path, name: str) -> None:
    """Each alone, through the command."""
    seconds = (START_SECONDS + SECONDS) * _slowness()
    _report(_judge({name: corpus[name]}, tmp_path, 1, seconds, MEMORY + START_MEMORY))


@pytest.mark.soak
@pytest.mark.timeout(3_000)
def test_everything_at_once(corpus: dict[str, Case], tmp_path: Path) -> None:
    """The whole corpus in one ingest, two models at a time."""
    assert {name.split("/")[0] for name in corpus} == {*sum(BATCHES, ()), "bomb"}
    bombs = sum(case.bomb for case in corpus.values())
    seconds = START_SECONDS + SECONDS * bombs + 0.2 * len(corpus)
    _report(_judge(corpus, tmp_path, 2, seconds * _slowness(), 2 * MEMORY + START_MEMORY))
