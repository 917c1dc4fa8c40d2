"""Commits: one at a time, on top of others', read back when in doubt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from filterdb.errors import ConflictError
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
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
