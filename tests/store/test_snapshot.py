"""Commits: one at a time, on top of others', read back when in doubt."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from filterdb.errors import ConflictError, DamageError
from filterdb.store import numbering
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from filterdb.store.local import ObjectInfo
from filterdb.store.pages import Entry
from filterdb.store.snapshot import Snapshot

ENTRY = Entry("a", 1, 1, 1, 0, 1, {"metadata": "m", "tables": "t"})


def add(entry: Entry) -> object:
    def build(head: Snapshot | None) -> Snapshot:
        if head is None:
            return snapshots.new("ingest", segments=(entry,))
        return replace(head.next("ingest"), segments=(*head.segments, entry))

    return build


def test_round_trip(tmp_path: Path) -> None:
    files = Files.at(tmp_path)
    assert snapshots.latest(files) is None
    first = snapshots.commit(files, None, add(ENTRY))  # type: ignore[arg-type]
    assert snapshots.latest(files) == first == snapshots.read(files, 0)


def test_every_racer_ends_on_top_of_the_others(tmp_path: Path) -> None:
    files = Files.at(tmp_path)
    entries = [replace(ENTRY, id=f"{i}") for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda entry: snapshots.commit(files, None, add(entry)), entries))  # type: ignore[arg-type]
    latest = snapshots.latest(files)
    assert latest is not None and latest.number == 11
    assert {entry.id for entry in latest.segments} == {f"{i}" for i in range(12)}
    for number in range(12):
        assert len(snapshots.read(files, number).segments) == number + 1


def test_a_change_that_does_not_fit_any_more(tmp_path: Path) -> None:
    files = Files.at(tmp_path)
    snapshots.commit(files, None, add(ENTRY))  # type: ignore[arg-type]

    def build(head: Snapshot | None) -> Snapshot:
        if head is not None:
            raise ConflictError("no")
        return snapshots.new("ingest")

    with pytest.raises(ConflictError):
        snapshots.commit(files, None, build)
    assert snapshots.numbers(files) == ([0], [])


def test_a_lost_reply_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The put succeeds, its answer is lost, the client's retry is refused: it is ours, committed once."""
    files = Files.at(tmp_path)
    import filterdb.store.local as module

    real = module.create

    def lossy(path: Path, data: bytes) -> None:
        real(path, data)
        raise FileExistsError(path)

    monkeypatch.setattr(module, "create", lossy)
    committed = snapshots.commit(files, None, add(ENTRY))  # type: ignore[arg-type]
    assert snapshots.numbers(files) == ([0], [])
    assert snapshots.read(files, 0).nonce == committed.nonce


def test_the_newest_is_found_from_a_hint(s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hint that is behind, wrong or missing; nothing is listed unless it is wrong or missing."""
    files = Files.at(s3())
    head = None
    for number in range(9):
        head = snapshots.commit(files, head, add(replace(ENTRY, id=str(number))))  # type: ignore[arg-type]
    listed: list[str] = []
    entries = Files.entries

    def counted(files: Files, prefix: str) -> dict[str, ObjectInfo]:
        listed.append(prefix)
        return entries(files, prefix)

    monkeypatch.setattr(Files, "entries", counted)
    for hint, lists in ((b"8\n", False), (b"0\n", False), (b"6\n", False), (b"9\n", True), (b"no\n", True)):
        files.put({numbering.HINT: hint})
        assert snapshots.latest(files) == head
        assert bool(listed) == lists, hint
        listed.clear()
    files.remove([numbering.HINT])
    assert snapshots.latest(files) == head
    files.remove([snapshots.name_of(8)])
    for hint in (b"8\n", b"5\n"):  # its mark is there still
        files.put({numbering.HINT: hint})
        with pytest.raises(DamageError, match="snapshot 8 is missing"):
            snapshots.latest(files)


def test_marks_that_killed_writers_have_not_put(tmp_path: Path) -> None:
    files = Files.at(tmp_path)
    head = None
    for number in range(5):
        head = snapshots.commit(files, head, add(replace(ENTRY, id=str(number))))  # type: ignore[arg-type]
    for unmarked in ([4], [3, 4], [2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3, 4]):
        files.remove(map(snapshots.mark_of, unmarked))
        snapshots.mark(files, 4)
        assert all(snapshots.mark_of(number) in files.list("snapshots") for number in range(5))
