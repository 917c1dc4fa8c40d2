"""What is committed is on the disk: each file is fsynced before it gets its name, each folder after."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import filterdb as fdb
from tests.models import chain, weights


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Return what is fsynced from now on: the inode, and whether a snapshot has its name at that moment."""
    calls: list[tuple[int, bool]] = []

    def fsync(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").readlink()
        root = next((folder for folder in (place, *place.parents) if folder.name == "db"), None)
        committed = root is not None and any((root / "snapshots").glob("*.json"))
        calls.append((os.fstat(handle).st_ino, committed))

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are looked up in Linux's /proc")
def test_what_a_snapshot_lists_is_on_the_disk_before_it(tmp_path: Path, synced: list[tuple[int, bool]]) -> None:
    fdb.ingest(tmp_path / "db", [chain(tmp_path / "m.onnx", weights(6, 5, 1))], chunk_rows=10)
    (snapshot,) = (tmp_path / "db" / "snapshots").glob("*.json")
    before = {inode for inode, committed in synced if not committed}
    segment = [path for path in (tmp_path / "db" / "segments").rglob("*") if path.is_file()]
    assert len(segment) > 5
    for path in [*segment, *(folder for file in segment for folder in file.relative_to(tmp_path / "db").parents)]:
        assert (tmp_path / "db" / path).stat().st_ino in before, path
    assert snapshot.stat().st_ino in before
    assert snapshot.parent.stat().st_ino in {inode for inode, committed in synced if committed}
