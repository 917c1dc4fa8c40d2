"""Fault 1: a codebook that is killed before and after mutating calls; run as a process of its own.

`python -m tests.faults.killed_codebook FOLDER POINTS` prints one line of JSON. Every run is a forked child, killed by
SIGKILL at one point, then run again undisturbed. POINTS 0 tries every call.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import dask

import filterdb as fdb
from filterdb import plan
from filterdb.engine import graph
from filterdb.reduce import codebook as fits
from filterdb.store import local
from filterdb.store.segment import Segment
from tests.faults.killed import child, counting
from tests.models import chain, weights


def answer(url: str) -> dict[str, Any]:
    """What the command computes, the objects that it leaves, and how many chunks it reads."""
    reads = [0]
    read = Segment.read_columns

    def counted(segment: Segment, chunk: int) -> Any:
        reads[0] += 1
        return read(segment, chunk)

    Segment.read_columns = counted  # type: ignore[assignment, method-assign]
    db = fdb.open(url)
    result = fdb.codebook(db, "layer", k=4, passes=2)
    digest = hashlib.sha256(b"".join(array.values.tobytes() for array in result.data_vars.values())).hexdigest()
    return {"result": digest, "objects": summaries(db), "reads": reads[0]}


def summaries(db: fdb.Database) -> dict[str, str]:
    return {name: hashlib.sha256(db.files.read(name)).hexdigest() for name in db.files.list("summaries")}


def collected(url: str) -> dict[str, str]:
    """The summaries after `gc`: what only an unfinished fit needs may stay at its end, but not longer."""
    fdb.gc(url, delete=True, grace=-1)
    return summaries(fdb.open(url))


def main() -> None:
    folder, points = Path(sys.argv[1]), int(sys.argv[2])
    local.os.fsync = lambda _: None  # type: ignore[attr-defined]  # processes die here, machines do not
    plan.TASK_ROWS = 1
    graph.MIN_PARTITIONS_TO_CHECKPOINT = 4  # type: ignore[attr-defined]
    fits.sample_size = lambda k, weights: 300  # type: ignore[attr-defined]
    model = chain(folder / "a.onnx", weights(20, 20, seed=1), weights(20, 20, seed=2))
    with dask.config.set(scheduler="synchronous"):  # imports and compiled loops in the parent, once
        fdb.ingest(folder / "warm", model, chunk_rows=20)
        fdb.codebook(folder / "warm", "layer", k=4, passes=2)
        fdb.ingest(folder / "base", model, chunk_rows=20)
    base = str(folder / "base")

    def copy(label: str) -> str:
        return str(shutil.copytree(base, folder / label))

    def counted() -> int:
        url, count = copy("counted"), counting(None)
        answer(url)
        return count[0]

    def killed(url: str, at: int) -> None:
        counting(at)
        answer(url)

    code, expected = child(lambda: answer(copy("whole")))
    assert code == 0
    code, total = child(counted)
    assert code == 0
    problems, reads = [], []
    chosen = range(total) if not points else [total * (2 * i + 1) // (2 * points) for i in range(points)]
    for at in chosen:
        url = copy(str(at))
        code, _ = child(lambda url=url, at=at: killed(url, at))  # type: ignore[misc]
        if code != -signal.SIGKILL:
            problems.append(f"point {at}: ended with {code}, not killed")
        code, again = child(lambda url=url: answer(url))  # type: ignore[misc]
        if code != 0 or again["result"] != expected["result"]:
            problems.append(f"point {at}: run again, ended with {code} or another answer")
            continue
        code, objects = child(lambda url=url: collected(url))  # type: ignore[misc]
        if code != 0 or objects != expected["objects"]:
            problems.append(f"point {at}: run again and collected, left other objects")
        reads.append(again["reads"])
        shutil.rmtree(url)
    summary = {"total": total, "points": len(chosen), "problems": problems, "reads": [expected["reads"], *reads]}
    print(json.dumps(summary))  # noqa: T201


if __name__ == "__main__":
    main()
