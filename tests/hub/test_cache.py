"""Parts of remote files are kept: they are not fetched again, survive a kill, and others cannot replace them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import filterdb as fdb
from filterdb.errors import StoreError, UsageError
from filterdb.store import part_cache, ranged
from tests.hub.nets import filter_bytes, resnet50, safetensors
from tests.hub.server import Fault, Hub, Repository
from tests.hub.test_ranged import DIVISOR, FILE, TENSORS, assert_stored

pytestmark = pytest.mark.slow


def entries() -> list[Path]:
    return sorted(folder for folder in part_cache.root().iterdir() if (folder / "files").is_dir())


def test_parts_are_fetched_once(hub: Hub, tmp_path: Path) -> None:
    hub.static["net.safetensors"] = FILE
    hub.add(Repository("org/net", {"model.safetensors": FILE}))
    for url, further in ((f"{hub.web}/net.safetensors", ranged.HEAD_BYTES), ("hf://org/net", 0)):
        fdb.check(url, kernel="3x3")
        before, asked = hub.sent("cdn", "web"), len(hub.asked)
        fdb.check(url, kernel="3x3")
        assert hub.sent("cdn", "web") - before == further
        assert len(hub.asked) - asked == 1  # which version is there, or which commit
    before = hub.sent("cdn", "web")
    done = fdb.ingest(tmp_path / "db", "hf://org/net", kernels="3x3")
    assert_stored(done.database, TENSORS)
    assert hub.sent("cdn", "web") == before
    assert filter_bytes(DIVISOR) <= sum(map(part_cache._bytes_of, entries())) / 2 < 0.7 * len(FILE)


def test_a_killed_run_resumes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(Repository("org/net", {"model.safetensors": FILE}))
    hub.faults.append(Fault("cdn", delay=3600, times=99, skip=9))
    command = [sys.executable, "-m", "filterdb", "check", "hf://org/net", "--kernel", "3x3"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while hub.count("^cdn") < 9 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    got = hub.sent("cdn")
    assert hub.count("^cdn") == 9
    hub.faults.clear()
    fdb.check("hf://org/net", kernel="3x3")
    resumed = hub.sent("cdn") - got
    hub.asked.clear()
    monkeypatch.setenv("FILTERDB_CACHE", str(part_cache.root().parent / "another"))
    fdb.check("hf://org/net", kernel="3x3")
    whole = hub.sent("cdn")
    # What the killed process had fetched is not fetched again, but for the gaps between parts that are now ends.
    assert got > 0.2 * whole
    assert whole <= got + resumed <= whole + ranged.GAP


def test_a_damaged_part_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.add(Repository("org/net", {"model.safetensors": FILE}))
    fdb.check("hf://org/net", kernel="3x3")
    (path,) = part_cache.root().glob("*/files/*")
    with path.open("r+b") as file:
        file.seek(len(FILE) // 2)
        for offset in range(0, len(FILE), 4096):
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 1]))
    assert_stored(fdb.ingest(tmp_path / "db", "hf://org/net", kernels="3x3").database, TENSORS)
    (journal,) = part_cache.root().glob("*/parts/*")
    journal.write_bytes(journal.read_bytes()[:-7])  # the line that was being written at a kill
    assert_stored(fdb.ingest(tmp_path / "db2", "hf://org/net", kernels="3x3").database, TENSORS)
    journal.write_bytes(b"\xff\n0 99999999999 5\n-1 3 0\nx\n")
    assert_stored(fdb.ingest(tmp_path / "db3", "hf://org/net", kernels="3x3").database, TENSORS)


def test_least_recently_used_entries_leave(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        hub.static[f"{name}.safetensors"] = safetensors(resnet50(DIVISOR, seed=ord(name)))
    fdb.check(f"{hub.web}/a.safetensors", kernel="3x3")
    size = part_cache._bytes_of(entries()[0])
    monkeypatch.setenv("FILTERDB_CACHE_BYTES", str(int(2.5 * size)))
    for name in "bacba":
        fdb.check(f"{hub.web}/{name}.safetensors", kernel="3x3")
        assert sum(map(part_cache._bytes_of, entries())) <= 2.5 * size
    hub.asked.clear()
    fdb.check(f"{hub.web}/b.safetensors", kernel="3x3")
    fdb.check(f"{hub.web}/a.safetensors", kernel="3x3")
    assert len(hub.asked) == 2
    monkeypatch.setenv("FILTERDB_CACHE_BYTES", "0")
    fdb.check(f"{hub.web}/a.safetensors", kernel="3x3")
    assert entries() == []
    monkeypatch.setenv("FILTERDB_CACHE_BYTES", "4 GB")
    with pytest.raises(UsageError, match="FILTERDB_CACHE_BYTES: expected a number of bytes, got '4 GB'"):
        fdb.check(f"{hub.web}/a.safetensors", kernel="3x3")


def test_an_entry_in_use_is_not_removed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILTERDB_CACHE_BYTES", "0")
    with part_cache.entry("a") as folder:
        (folder / "files" / "x").write_bytes(bytes(10_000))
        part_cache.make_room(0)
        assert (folder / "files" / "x").exists()
    assert not folder.exists()


def test_several_readers_of_one_file(hub: Hub, tmp_path: Path) -> None:
    hub.static["net.safetensors"] = FILE
    hub.latency = 0.01
    with ThreadPoolExecutor(4) as pool:
        urls = [f"{hub.web}/net.safetensors"] * 4
        dbs = list(
            pool.map(
                lambda item: fdb.ingest(tmp_path / f"db{item[0]}", item[1], kernels="3x3").database, enumerate(urls)
            )
        )
    for db in dbs:
        assert_stored(db, TENSORS)
    assert len(entries()) == 1


def test_a_new_version_is_another_entry(hub: Hub, tmp_path: Path) -> None:
    other = resnet50(DIVISOR, seed=1)
    hub.static["net.safetensors"] = FILE
    fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")
    hub.static["net.safetensors"] = safetensors(other)
    assert_stored(fdb.ingest(tmp_path / "db", f"{hub.web}/net.safetensors", kernels="3x3").database, other)
    assert len(entries()) == 2


def test_others_cannot_write_the_cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.static["net.safetensors"] = FILE
    old = os.umask(0)
    try:
        fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")
    finally:
        os.umask(old)
    for path in (part_cache.root(), *part_cache.root().rglob("*")):
        inside_private = any(not parent.stat().st_mode & 0o077 for parent in path.parents if tmp_path in parent.parents)
        assert inside_private or not path.stat().st_mode & 0o022, path
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("FILTERDB_CACHE", str(shared))
    with pytest.raises(StoreError, match=r"expected a folder that only you can write, .* can be written by others"):
        fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")
    monkeypatch.setenv("FILTERDB_CACHE", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be made"):
        fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")


def test_without_a_home_a_private_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FILTERDB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert part_cache.root() == tmp_path / "xdg" / "filterdb"
    assert not part_cache.root().stat().st_mode & 0o077
    (tmp_path / "xdg" / "filterdb").chmod(0o777)
    folder = part_cache.root()
    assert folder.name == "cache" and not folder.parent.stat().st_mode & 0o077
