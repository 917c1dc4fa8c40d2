"""Fault 1: an ingest that is killed before and after every mutating call; run as a process of its own.

`python -m tests.faults.killed WHERE FOLDER FIRST STEP`: prints one line of JSON. Every run is a forked child (the
parent starts no thread of Python, so that a fork is safe), killed by SIGKILL at one point, then run again undisturbed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dask

import filterdb as fdb
from filterdb.models.formats import ONNX
from filterdb.models.sandbox import sandbox
from filterdb.store import local
from filterdb.store.files import Files
from tests.models import chain, weights

CHUNK_ROWS = 10


def counting(at: int | None) -> list[int]:
    """Die at the `at`-th mutating call of the operating system, or only count them."""
    count = [0]

    def wrap(act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1
            return act(*args, **kwargs)

        return counted

    local.tempfile.mkstemp = wrap(tempfile.mkstemp)  # type: ignore[attr-defined]
    local.os.fsync = wrap(lambda _: None)  # type: ignore[attr-defined]
    local.os.link = wrap(os.link)  # type: ignore[attr-defined]
    for name in ("replace", "unlink", "mkdir", "rmdir", "chmod"):
        setattr(Path, name, wrap(getattr(Path, name)))
    return count


def counting_requests(at: int | None) -> list[int]:
    """The same for an object store: before and after each object that is put, created or removed."""
    count = [0]

    def one(act: Callable[[], Any]) -> Any:
        step()
        result = act()
        step()
        return result

    def step() -> None:
        if count[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1

    create, put, remove = Files.create, Files.put, Files.remove
    Files.create = lambda files, name, data: one(lambda: create(files, name, data))  # type: ignore[assignment, method-assign]

    def each(files: Files, objects: Mapping[str, bytes | memoryview]) -> None:
        for name, data in objects.items():
            one(partial(put, files, {name: data}))

    Files.put = each  # type: ignore[assignment, method-assign]
    Files.remove = lambda files, names: [one(partial(remove, files, [name])) for name in names] and None  # type: ignore[assignment, method-assign]
    return count


def child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run in a forked process; gives how it ended and what it returned, as JSON."""
    inner, outer = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            for server in sandbox(ONNX.reader)._free:
                server.owner = os.getpid()  # one fork server for all, one after another
            with dask.config.set(scheduler="synchronous"):
                result = work()
            os.write(outer, json.dumps(result).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - the parent tells, from stderr
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(outer)
    with os.fdopen(inner, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said) if said else None


def content(url: str) -> dict[str, str]:
    """Digest of every object; of snapshots what does not depend on the moment."""
    files = Files.at(url)
    found = {}
    for name in files.list(""):
        data = files.read(name)
        if name.startswith("snapshots/") and name.endswith(".json"):
            state = json.loads(data)
            data = json.dumps([state["number"], state["segments"], state["action"]], sort_keys=True).encode()
        if not name.startswith("ingests/") and name != "snapshots/newest":  # a hint may name an earlier snapshot
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def read(url: str) -> list[Any]:
    """What a reader sees: the number of the snapshot, the models, a digest of all filters."""
    db = fdb.open(url)
    data = b"".join(db.bank(kernel).dataset.filters.values.tobytes() for kernel in db.kernels)
    return [db.snapshot, list(db.models["model"].values), hashlib.sha256(data).hexdigest()]


def times(url: str) -> dict[str, float]:
    """When each object was written."""
    return {name: entry.modified for name, entry in Files.at(url).entries("").items()}


def main() -> None:  # noqa: PLR0915
    where, folder, first, step = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    local.os.fsync = lambda _: None  # type: ignore[attr-defined]  # processes die here, machines do not
    for imported_late in (fdb.ingest, fdb.open):  # in the parent, once; a child each would take seconds
        assert callable(imported_late)
    chain(folder / "a.onnx", weights(4, 5, seed=1))
    chain(folder / "b.onnx", weights(6, 5, seed=2), weights(3, 6, seed=3), weights(4, 3, seed=4, kernel=(5, 5)))
    sandbox(ONNX.reader)._free.append(sandbox(ONNX.reader)._take())
    root = f"{where}/" if "://" in where else f"{folder}/"

    def ingest(url: str, name: str) -> None:
        fdb.ingest(url, [folder / f"{name}.onnx"], chunk_rows=CHUNK_ROWS)

    def start(url: str) -> None:
        if "://" in url:
            ingest(url, "a")
        else:
            shutil.copytree(folder / "base", url)

    def undisturbed(url: str) -> tuple[dict[str, str], Any, Any]:
        start(url)
        before = read(url)
        ingest(url, "b")
        return content(url), before, read(url)

    if "://" not in where:
        assert child(lambda: ingest(str(folder / "base"), "a"))[0] == 0
    code, (expected, before, after) = child(lambda: undisturbed(f"{root}whole"))
    assert code == 0
    count_calls = counting_requests if "://" in where else counting

    def counted(url: str) -> int:
        start(url)
        count = count_calls(None)
        ingest(url, "b")
        return count[0]

    code, total = child(lambda: counted(f"{root}counted"))
    assert code == 0

    def killed(url: str, at: int) -> None:
        start(url)
        count_calls(at)
        ingest(url, "b")

    def again(url: str) -> list[str]:
        """Problems of what was left and of the run after it."""
        problems = []
        seen, left, stood = read(url), content(url), times(url)
        if seen not in (before, after):
            problems.append(f"a reader saw {seen}")
        complete = [name for name, digest in left.items() if expected.get(name) == digest]
        ingest(url, "b")
        if read(url) != after:
            problems.append(f"the re-run ended at {read(url)}")
        found = content(url)
        problems += [f"{name} differs" for name in expected if found.get(name) != expected[name]]
        problems += [f"{name} is left" for name in found if name not in expected]
        now = times(url)
        problems += [f"{name} was complete and is written again" for name in complete if now[name] != stood[name]]
        return problems

    problems, points = [], 0
    for at in range(first, total, step):
        url = f"{root}{at}"
        code, _ = child(lambda url=url, at=at: killed(url, at))  # type: ignore[misc]
        if code != -signal.SIGKILL:
            problems.append(f"point {at}: ended with {code}, not killed")
            continue
        code, found = child(lambda url=url: again(url))  # type: ignore[misc]
        problems += [f"point {at}: {what}" for what in (found if code == 0 else [f"the re-run ended with {code}"])]
        points += 1
        if "://" not in url:
            shutil.rmtree(url)
    sandbox(ONNX.reader).close()
    print(json.dumps({"total": total, "points": points, "problems": problems}))  # noqa: T201


if __name__ == "__main__":
    main()
