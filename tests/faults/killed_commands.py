"""Commands that forget and rearrange, killed before and after every mutating call; run as a process of its own.

`python -m tests.faults.killed_commands WHERE FOLDER POINTS COMMAND...`: kills at so many points of each command, 0 for
all, and prints one line of JSON. As in `killed`, each run is a forked child. Each begins with the same objects.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np

import filterdb as fdb
from filterdb import errors
from filterdb.ingestion import compact
from filterdb.models.formats import ONNX
from filterdb.models.sandbox import sandbox
from filterdb.store import collected, lease, local, pages
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from tests.faults.crash import CrashError, mutations
from tests.faults.killed import child, counting, counting_requests
from tests.models import chain, weights

MODELS = "abcdefg"
PURGED = "a"

SMALL = 150
"""Rows of a chunk that make all segments small."""


def layers_of(name: str) -> list[np.ndarray]:
    """The weights of a model: 3×3, then 5×5."""
    number = MODELS.index(name)
    return [weights(3 + number, 4, seed=number), weights(2, 3 + number, seed=10 + number, kernel=(5, 5))]


def filters_of(name: str, kernel: tuple[int, int] = (3, 3)) -> np.ndarray:
    """The filters of one shape of a model, (n, weights)."""
    (own,) = (layer for layer in layers_of(name) if layer.shape[2:] == kernel)
    return own.reshape(-1, kernel[0] * kernel[1])


@dataclass(frozen=True)
class Command:
    """A command to kill: what goes before it, itself, and the models of the newest snapshot after it."""

    prepare: Callable[[str, Path], Any]
    run: Callable[[str, Path], Any]
    after: str


def ingest(
    url: str, folder: Path, names: str, *, chunk_rows: int = 7, join: bool = False, kernels: str = "all"
) -> None:
    rows = "".join(f"{name}.onnx,{name},t{name}\n" for name in names)
    (folder / f"{names}.csv").write_text(f"path,name,task\n{rows}")
    fdb.ingest(url, catalog=folder / f"{names}.csv", chunk_rows=chunk_rows, compact=join, kernels=kernels)


def history(url: str, folder: Path) -> None:
    """Six models in four segments, one of them removed; a tag; a basis and summaries; pages."""
    for names in ("ab", "c", "d"):
        ingest(url, folder, names)
    fdb.tag(fdb.open(url, 0), "first")
    fdb.drift(url, by="task")
    ingest(url, folder, "ef")
    fdb.remove(url, ["c"])


def interrupted(url: str, folder: Path) -> None:
    """The same, and what a compaction left that died while it wrote, with all models."""
    history(url, folder)
    with contextlib.suppress(CrashError), mutations(22):  # after its chunks
        fdb.compact(url, chunk_rows=SMALL)
    if "://" not in url:  # what a process leaves that dies before it renames a file
        unlisted = set(ids_of(url)) - {entry.id for s in snapshots.history(Files.at(url)) for entry in s.segments}
        (id_,) = unlisted
        chunk = next(Path(url).glob(f"segments/{id_}.zarr/filters/c/*/0"))
        chunk.with_name(".0.dead").write_bytes(chunk.read_bytes())


def garbage(url: str, folder: Path) -> None:
    interrupted(url, folder)
    fdb.expire(url, keep=1, tags=True)


def almost_joined(url: str, folder: Path) -> None:
    for name in "abc":
        ingest(url, folder, name, chunk_rows=SMALL)


def of_one_shape(url: str, folder: Path) -> None:
    ingest(url, folder, "abc", kernels="3x3")


COMMANDS = {
    "expire": Command(history, lambda url, _: fdb.expire(url, keep=2, tags=True), "abdef"),
    "purge": Command(interrupted, lambda url, _: fdb.purge(url, PURGED), "bdef"),
    "gc": Command(garbage, lambda url, _: fdb.gc(url, delete=True, grace=-1), "abdef"),
    "join": Command(almost_joined, lambda url, folder: ingest(url, folder, "d", chunk_rows=SMALL, join=True), "abcd"),
    "widen": Command(of_one_shape, lambda url, folder: ingest(url, folder, "abc"), "abc"),
    "compact": Command(history, lambda url, _: fdb.compact(url, chunk_rows=SMALL), "abdef"),
}


def ids_of(url: str) -> list[str]:
    """Ids of the segments that have objects."""
    return sorted({name.split("/")[1].split(".")[0] for name in Files.at(url).list("segments")})


def objects(url: str) -> dict[str, bytes]:
    """Every object; in a folder every file, also those of writers that died."""
    if "://" in url:
        files = Files.at(url)
        return files.read_many(list(files.list("")))
    return {path.relative_to(url).as_posix(): path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}


def holding(url: str, model: str) -> list[str]:
    """Names of the objects with two filters in a row of a model, in the order of chunks or of arrays."""
    needles = []
    for kernel in ((3, 3), (5, 5)):
        filters = filters_of(model, kernel)
        rows, weights_of_row = range(len(filters) - 1), range(filters.shape[1])
        needles += [filters[row : row + 2, column].tobytes() for row in rows for column in weights_of_row]
        needles += [row.tobytes() for row in filters]
    return [name for name, data in objects(url).items() if any(needle in data for needle in needles)]


def content(db: fdb.Database) -> str:
    """The models of a snapshot. Raises AssertionError if its filters are not those that were ingested."""
    models = "".join(map(str, db.models["model"].values))
    for kernel in db.kernels:
        expected = [filters_of(name, kernel) for name in models]
        np.testing.assert_array_equal(db.bank(kernel).dataset.filters.values, np.concatenate(expected))
    return models


def problems_of(url: str, was: dict[int, str], after: str) -> list[str]:
    """What is wrong with a database, given the models of the snapshots before the command, and those after it."""
    pages.forget()
    db, problems = fdb.open(url), []
    if content(db) not in {was[max(was)], after}:
        problems.append(f"the newest snapshot has {content(db)}")
    listed = {state.number for state in snapshots.history(Files.at(url))}
    for number in range(db.snapshot + 1):
        try:
            models = content(fdb.open(url, number))
        except errors.ExpiredSnapshotError:
            if number in listed:
                problems.append(f"snapshot {number} is listed and has expired")
            continue
        if models != was.get(number, models):
            problems.append(f"snapshot {number} has {models}")
    damage = fdb.verify(url, deep=True).problems
    return [*problems, *(f"verify: {problem}" for problem in damage)]


def rerun(url: str, folder: Path, name: str, was: dict[int, str], *, collect: bool) -> list[str]:
    """Problems after a kill, after `gc` if it is to `collect`, and after the same command is run again."""
    command = COMMANDS[name]
    problems = [f"after the kill: {what}" for what in problems_of(url, was, command.after)]
    if collect:
        problems += [f"before the second run: {what}" for what in after_gc(url, was, command.after)]
    try:
        command.run(url, folder)
    except errors.UsageError as error:
        if name != "purge" or holding(url, PURGED):
            problems.append(f"the second run ended with {error}")
    problems += complete(url, name)
    problems += [f"after the second run: {what}" for what in problems_of(url, was, command.after)]
    return problems + after_gc(url, was, command.after)


def after_gc(url: str, was: dict[int, str], after: str) -> list[str]:
    """Problems after `gc`, such as what it leaves that no snapshot lists."""
    fdb.gc(url, delete=True, grace=-1)
    problems = [f"gc leaves {garbage}" for garbage in fdb.gc(url, grace=-1)]
    problems += [f"after gc: {what}" for what in problems_of(url, was, after)]
    listed = {id_ for state in snapshots.history(Files.at(url)) for entry in state.segments for id_ in entry.ids}
    return problems + [f"gc leaves {id_}" for id_ in set(ids_of(url)) - listed]


def complete(url: str, name: str) -> list[str]:
    """What a complete run would have done besides."""
    db = fdb.open(url)
    if content(db) != COMMANDS[name].after:
        return [f"the second run ended at {content(db)}"]
    if name == "purge":
        return [f"{left} holds filters of the purged model" for left in holding(url, PURGED)]
    if name in {"join", "compact"} and len(db.segments) > 1:
        return [f"expected one segment, got {len(db.segments)}"]
    if name == "expire" and (len(snapshots.history(db.files)) > 3 or db.state.tags):
        return [f"expected 3 snapshots and no tag, got {[s.number for s in snapshots.history(db.files)]}"]
    if name == "widen" and db.kernels != ((3, 3), (5, 5)):
        return [f"expected two shapes, got {db.kernels}"]
    if name == "gc" and fdb.gc(url, grace=-1):
        return [f"expected no garbage, got {fdb.gc(url, grace=-1)}"]
    return []


def set_up() -> None:
    """As in the state machine: few segments make pages and joins; who has died owns nothing."""
    local.os.fsync = lambda _: None  # type: ignore[attr-defined]
    lease.LEASE_SECONDS = -1.0
    pages.FAN, collected.MOST_INLINE, compact.COMPACT_FROM = 2, 1, 4


def warm_up(url: str, folder: Path) -> None:
    """Do once what children do: imports and loading of compiled loops would take seconds in each."""
    interrupted(url, folder)
    fdb.purge(url, PURGED)
    assert problems_of(url, {0: "bdef"}, "bdef") == []


class Base:
    """The database before a command, made once."""

    def __init__(self, root: str, folder: Path, name: str) -> None:
        self.root, self.folder, self.command, self.name = root, folder, COMMANDS[name], name
        self.url = f"{root}{name}-base"
        code, found = child(self._prepare)
        assert code == 0
        self.was = {int(number): models for number, models in found.items()}

    def _prepare(self) -> dict[int, str]:
        self.command.prepare(self.url, self.folder)
        numbers = [state.number for state in snapshots.history(Files.at(self.url))]
        return {number: content(fdb.open(self.url, number)) for number in numbers}

    def copy(self, label: str) -> str:
        """Copy all objects."""
        url = f"{self.root}{self.name}-{label}"
        if "://" in url:
            Files.at(url).put(dict(objects(self.url)))
        else:
            shutil.copytree(self.url, url)
        return url


def enumerate_kills(base: Base, number: int) -> dict[str, Any]:
    """Kill a command at so many of its calls, 0 for every call."""
    count_calls = counting_requests if "://" in base.root else counting

    def counted() -> int:
        url = base.copy("counted")
        count = count_calls(None)
        base.command.run(url, base.folder)
        return count[0]

    def killed(label: str, at: int) -> None:
        url = base.copy(label)
        count_calls(at)
        base.command.run(url, base.folder)

    code, total = child(counted)
    assert code == 0
    problems, points = [], 0
    for at in range(total) if not number else [total * (2 * i + 1) // (2 * number) for i in range(number)]:
        url = f"{base.root}{base.name}-{at}"
        code, _ = child(lambda at=at: killed(str(at), at))  # type: ignore[misc]
        if code != -signal.SIGKILL:
            problems.append(f"{base.name}, point {at}: ended with {code}, not killed")
            continue
        collect = at % 2 == 0  # what a kill leaves is removed, or the second run meets it
        code, remarks = child(
            lambda url=url, collect=collect: rerun(url, base.folder, base.name, base.was, collect=collect)  # type: ignore[misc]
        )
        remarks = remarks if code == 0 else [f"the second run ended with {code}"]
        problems += [f"{base.name}, point {at}: {what}" for what in remarks]
        points += 1
        if "://" not in url:
            shutil.rmtree(url)
    return {"total": total, "points": points, "problems": problems}


def main() -> None:
    where, folder, points, *names = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
    set_up()
    for name in MODELS:
        chain(folder / f"{name}.onnx", *layers_of(name))
    sandbox(ONNX.reader)._free.append(sandbox(ONNX.reader)._take())
    with dask.config.set(
        scheduler="synchronous"
    ):  # imports and compiled loops in the parent, once, and no thread stays
        warm_up(str(folder / "warm"), folder)
    root = f"{where}/" if "://" in where else f"{folder}{os.sep}"
    results = {name: enumerate_kills(Base(root, folder, name), points) for name in names}
    sandbox(ONNX.reader).close()
    print(json.dumps(results))  # noqa: T201


if __name__ == "__main__":
    main()
