"""Faults 7, 8, 14, 6 (full disk): nothing that is damaged, foreign or of another format gives a number."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest

import filterdb as fdb
from filterdb import schema
from filterdb.errors import DamageError, FilterDBError, StoreMissingError, UsageError
from filterdb.store import summary
from filterdb.store.canonical import canonical, digest
from tests.models import chain, weights

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(autouse=True)
def synchronous() -> object:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments, every kind of object: five snapshots, a basis, labels, summaries."""
    folder = tmp_path_factory.mktemp("whole")
    chain(folder / "a.onnx", weights(6, 5, seed=1), weights(7, 6, seed=2))
    chain(folder / "b.onnx", weights(5, 5, seed=3))
    fdb.ingest(folder / "db", [folder / "a.onnx"], chunk_rows=20)
    fdb.drift(fdb.ingest(folder / "db", [folder / "b.onnx"], chunk_rows=20).database, by="layer")
    (folder / "labels.csv").write_text(f"name,task\n{folder}/a.onnx,detection\n")
    fdb.tag(fdb.relabel(fdb.open(folder / "db"), folder / "labels.csv"), "one")
    fdb.drift(fdb.open(folder / "db"), by="layer", mode="paper")
    return folder / "db"


def numbers(db: Path) -> dict[str, np.ndarray]:
    """What an analyst would quote."""
    opened = fdb.open(db)
    return {
        "filters": opened.dataset.filters.values,
        "sound": fdb.drift(opened, by="layer")["drift"].values,
        "paper": fdb.drift(opened, by="layer", mode="paper")["drift"].values,
        "pca": fdb.pca(opened, by="task")["covariance"].values,
        "degeneration": fdb.degeneration(opened)["variance_entropy"].values,
        "lineage": fdb.lineage(opened)["similarity"].values,
    }


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: list[Callable[[Path], None]] = [delete, truncate, zero, flip]


def objects(db: Path) -> list[str]:
    """Every committed object."""
    names = [str(path.relative_to(db)) for path in sorted(db.rglob("*")) if path.is_file()]
    return [name for name in names if not name.endswith(".committed") and not name.startswith("ingests/")]


def quoted(name: str) -> list[str]:
    """How an error may name an object: itself, its variable or its chunk."""
    parts = name.split("/")
    found = [name]
    if parts[0] == "segments" and len(parts) > 2:
        found += [f"{parts[1]}/{parts[2]}", f"{parts[1]}: expected tables"]
        if parts[2] == "filters" and len(parts) > 4:
            found = [f"filters chunk {parts[4]}"]
    return found


def check(
    whole: Path, folder: Path, name: str, damage: Callable[[Path], None], expected: dict[str, np.ndarray]
) -> None:
    """A typed error that names it, or, where an answer does not need it, the right numbers; and verify names it."""
    db = Path(shutil.copytree(whole, folder / "db"))
    damage(db / name)
    needless = name.startswith("summaries/") and damage is delete
    try:
        found = numbers(db)
    except FilterDBError as error:
        assert "\n" not in str(error)
        assert any(text in str(error) for text in quoted(name)), (name, damage, str(error))
        assert isinstance(error, DamageError | StoreMissingError), (name, type(error))
    else:
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values, err_msg=f"{name} {damage.__name__} {key}")
        # Old snapshots, and what only other readers of Zarr look at.
        for_others = ".zarr/" in name and "/filters/c/" not in name
        assert needless or for_others or name.startswith("snapshots/0000000"), (name, damage)
    try:
        problems = fdb.verify(fdb.open(db), deep=True).problems
    except DamageError as error:
        assert name in str(error)
    else:
        told = [f"{p.segment} {p.variable} {p.chunk} {p.what}" for p in problems]
        last = name.split("/", 2)[-1] if ".zarr/" in name else name
        chunk = re.fullmatch(r"filters/c/(\d+)/0", last)
        wanted = f"filters {chunk[1]}" if chunk else last
        assert needless or any(wanted in text for text in told), (name, damage.__name__, told)
    shutil.rmtree(db)


def enumerate_damage(whole: Path, tmp_path: Path, step: int) -> int:
    expected = numbers(whole)
    number = 0
    for position, name in enumerate(objects(whole)):
        depth = name.count("/")
        is_table = name.startswith("segments/") and "filters/c/" not in name and depth > 2
        for kind, damage in enumerate(DAMAGES):
            is_chunk = "/filters/c/" in name
            if is_chunk or (position + kind) % (step if is_table else min(step, 4)) == 0:
                check(whole, tmp_path, name, damage, expected)
                number += 1
    return number


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_damage_to_any_object(whole: Path, tmp_path: Path) -> None:
    """Chunks in four ways, all else in some; of the many small tables a part. The soak has every one in every way."""
    assert enumerate_damage(whole, tmp_path, 16) > 40


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_damage_to_every_object_in_every_way(whole: Path, tmp_path: Path) -> None:
    assert enumerate_damage(whole, tmp_path, 1) == len(DAMAGES) * len(objects(whole)) > 100


def test_chunks_exchanged(whole: Path, tmp_path: Path) -> None:
    """Both are whole: only the layers' hashes, and the pass's peaks, tell."""
    db = Path(shutil.copytree(whole, tmp_path / "db"))
    segment = next(path for path in (db / "segments").iterdir() if (path / "filters/c/2").exists())
    one, other = segment / "filters/c/0/0", segment / "filters/c/1/0"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert fdb.verify(fdb.open(db)).problems == []
    problems = fdb.verify(fdb.open(db), deep=True).problems
    assert problems and all("expected filters with SHA-256" in problem.what for problem in problems)


def test_the_newest_snapshot_lost(whole: Path, tmp_path: Path) -> None:
    """Without its mark the database would look like an older one that is whole."""
    db = Path(shutil.copytree(whole, tmp_path / "db"))
    newest = max((db / "snapshots").glob("*.json"))
    newest.unlink()
    with pytest.raises(DamageError, match=rf"{newest.name}: the committed snapshot \d+ is missing"):
        fdb.open(db)
    with pytest.raises(DamageError, match=newest.name):
        fdb.open(db, int(newest.stem))
    with pytest.raises(DamageError, match=newest.name):
        fdb.gc(db, delete=True, grace=-1)
    with pytest.raises(DamageError, match=newest.name):
        fdb.ingest(
            db, [db.parent / "x.onnx"] if (db.parent / "x.onnx").exists() else [chain(tmp_path / "x.onnx", weights())]
        )
    assert fdb.open(db, int(newest.stem) - 1).counts["models"] == 2


@pytest.mark.parametrize("change", ["version", "made_from", "segment", "part"])
def test_a_foreign_summary_under_the_right_name(whole: Path, tmp_path: Path, change: str) -> None:
    """Of another code version, basis or segment: not used, computed again, replaced."""
    db = Path(shutil.copytree(whole, tmp_path / "db"))
    expected = numbers(whole)
    for path in (db / "summaries").rglob("*.npz"):
        data = path.read_bytes()
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes())
        key = summary.Key(about["kind"], about["version"], about["made_from"], about["part"])
        segment = about["segment"]
        arrays = {name: array + 1 for name, array in arrays.items()}
        other = {
            "version": summary.Key(key.kind, key.version + 1, key.made_from),
            "made_from": summary.Key(key.kind, key.version, key.made_from + " "),
            "part": summary.Key(key.kind, key.version, key.made_from, "00000000-00000001"),
        }.get(change, key)
        path.write_bytes(summary.pack(arrays, "x" * 20 if change == "segment" else segment, other))
        assert path.read_bytes() != data
    found = numbers(db)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    for path in (whole / "summaries").rglob("*.npz"):
        assert (db / path.relative_to(whole)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("format_", [1, 2, 3, 4])
def test_databases_of_every_format_open(format_: int, tmp_path: Path) -> None:
    """Written once, by the version of its time; it can be read, analysed, verified and added to."""
    with zipfile.ZipFile(DATA / f"format-{format_}.zip") as archive:
        archive.extractall(tmp_path)
    db = fdb.open(tmp_path / f"format-{format_}")
    assert list(db.models["model"].values) == ["A", "B"]
    assert list(db.models["task"].values) == ["detection", "unknown"]
    expected = np.concatenate([w.reshape(-1, 9) for w in (weights(6, 5, 1), weights(7, 6, 2), weights(4, 4, 3))])
    np.testing.assert_array_equal(db.dataset.filters.values, expected)
    assert fdb.verify(db, deep=True).problems == []
    assert fdb.drift(db, by="model")["drift"].values[0, 1] == pytest.approx(0.35358814, abs=1e-8)
    chain(tmp_path / "c.onnx", weights(3, 3, seed=9))
    grown = fdb.ingest(db.url, [tmp_path / "c.onnx"], kernels="3x3").database
    assert grown.counts["models"] == 3
    left = fdb.remove(grown, ["A"])
    assert fdb.verify(left, deep=True).problems == []
    assert left.state.format == schema.FORMAT
    chain(tmp_path / "d.onnx", weights(3, 3, seed=8, kernel=(5, 5)))
    wider = fdb.ingest(db.url, [tmp_path / "c.onnx", tmp_path / "d.onnx"]).database
    np.testing.assert_array_equal(wider.bank("5x5").dataset.filters.values, weights(3, 3, 8, (5, 5)).reshape(-1, 25))
    assert fdb.verify(wider, deep=True).problems == []
    assert fdb.open(db.url).state.format == schema.FORMAT_OF_BANKS


def test_a_database_of_an_unknown_format(tmp_path: Path) -> None:
    with zipfile.ZipFile(DATA / "format-1.zip") as archive:
        archive.extractall(tmp_path)
    for path in (tmp_path / "format-1/snapshots").iterdir():
        content = json.loads(path.read_text()) | {"format": 7, "something": "new"}
        del content["sha256"]
        path.write_bytes(canonical({**content, "sha256": digest(canonical(content))}))
    done = subprocess.run(
        [sys.executable, "-m", "filterdb", "info", str(tmp_path / "format-1")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        "expected store format 1 or 2 or 3 or 4 or 5 or 6, got 7; install a newer filterdb: pip install --upgrade"
        in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(UsageError):
        fdb.open(tmp_path / "format-1")


FULL = "mount -t tmpfs -o size=400k tmpfs {place} && exec {python} -m filterdb ingest {place}/db {models} --threads 1"


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    """A file system of 400 kB: one line, exit 74, no snapshot; where it has room again the re-run finishes."""
    chain(tmp_path / "m.onnx", weights(200, 100))
    place = tmp_path / "small"
    place.mkdir()
    script = FULL.format(place=place, python=sys.executable, models=tmp_path / "m.onnx")
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        # No file systems of one's own here: a file that may not grow fails in the same place.
        script = f"ulimit -f 300; exec {sys.executable} -m filterdb ingest {place}/db {tmp_path}/m.onnx --threads 1"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 74, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "No space left" in line or "File too large" in line
    assert not (place / "db/snapshots").exists()
    assert fdb.ingest(place / "db", [tmp_path / "m.onnx"]).database.counts["filters"] == 20_000


@pytest.mark.slow
def test_a_read_only_folder(tmp_path: Path) -> None:
    """Refused before any model is read: one line, exit 74."""
    chain(tmp_path / "m.onnx", weights())
    place = tmp_path / "fixed"
    place.mkdir()
    run = f"exec {sys.executable} -m filterdb ingest {place}/db {tmp_path}/m.onnx --threads 1"
    script = f"mount --bind {place} {place} && mount -o remount,bind,ro {place} && {run}"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        place.chmod(0o500)  # no mounts of one's own here; for root, who may write there, the folder is a file
        if os.geteuid() == 0:
            place.rmdir()
            place.touch()
        done = subprocess.run(["sh", "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == 74, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"filterdb: writing {place}/db/"), line
