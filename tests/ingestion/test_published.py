"""The published data set as a segment: every layout, chunks across layers, resumed, hostile files, the two tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client

import filterdb as fdb
from filterdb.errors import InputError
from filterdb.ingestion import run
from filterdb.store.segment import Segment
from tests.models.published import published

pytestmark = pytest.mark.slow

ORDERED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 10, 11, *range(14, 24)]
"""Filter ids with the layers of each model by depth, as `published.LAYERS` has them."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "published.h5"
    published.write_frame(path, published.frame(levels=4, ids="list"))
    published.add_filters(path)
    return path


def test_it_becomes_one_segment(file: Path, tmp_path: Path) -> None:
    done = fdb.import_hdf5(tmp_path / "db", file, chunk_rows=5)
    db = done.database
    assert (db.snapshot, len(db.segments), db.segments[0].chunks) == (0, 1, 5)
    np.testing.assert_array_equal(db.dataset.filters.values, published.filters((9,))[ORDERED])
    assert list(db.layers["row_size"].values) == [6, 2, 4, 2, 4, 3, 3]
    assert list(db.layers["conv_depth"].values) == [0, 1, 1, 2, 0, 0, 1]
    assert list(db.models["task"].values) == ["Classification", "Auto-Encoder", "Segmentation (2)"]
    assert len(set(db.models["model"].values)) == 3  # two of them have one name
    assert list(db.models["opset"].values) == [11, 9, 12]
    assert fdb.verify(db, deep=True).problems == []
    paper = fdb.drift(db, by="task", mode="paper")
    assert "Segmentation" in paper["group"].values  # the authors' label fix, in paper mode only
    assert "Segmentation (2)" in fdb.drift(db, by="task")["group"].values
    assert fdb.degeneration(db).sizes["layer"] == 7


@pytest.mark.parametrize("layout", ["frame", "early", "csv"])
@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_every_layout_gives_the_same(layout: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "published.h5"
    table = published.frame(levels=3, early=layout == "early")
    if layout == "csv":
        published.write_csv(path, table)
    else:
        published.write_frame(path, table)
    published.add_filters(path, published.filters((9,), dtype), name="filter" if layout == "early" else "filters")
    db = fdb.import_hdf5(tmp_path / "db", path, chunk_rows=7).database
    np.testing.assert_array_equal(db.dataset.filters.values[:14], published.filters((9,))[:14])
    assert db.counts == {"filters": 24, "layers": 7, "models": 3}


def test_again_writes_nothing_and_another_database_of_it_is_a_conflict(file: Path, tmp_path: Path) -> None:
    first = fdb.import_hdf5(tmp_path / "db", file)
    again = fdb.import_hdf5(tmp_path / "db", file)
    assert (again.segment, len(again.present), again.database.snapshot) == (None, 3, 0)
    other = tmp_path / "other.h5"
    published.write_frame(other, published.frame(levels=4, ids="list"))
    published.add_filters(other, published.filters() * 2)
    with pytest.raises(InputError, match=r"has different content from the model stored under this name"):
        fdb.import_hdf5(tmp_path / "db", other)
    assert fdb.open(tmp_path / "db").state == first.database.state


def test_it_resumes(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Segment.write_chunk
    written: list[int] = []

    def failing(segment: Segment, chunk: int, filters: np.ndarray) -> None:
        if len(written) == 3:
            raise OSError("disk full")
        written.append(chunk)
        real(segment, chunk, filters)

    with dask.config.set(scheduler="synchronous"):
        monkeypatch.setattr(Segment, "write_chunk", failing)
        with pytest.raises(OSError, match="disk full"):
            fdb.import_hdf5(tmp_path / "db", file, chunk_rows=4)
        again: list[int] = []

        def recording(segment: Segment, chunk: int, filters: np.ndarray) -> None:
            again.append(chunk)
            real(segment, chunk, filters)

        monkeypatch.setattr(Segment, "write_chunk", recording)
        db = fdb.import_hdf5(tmp_path / "db", file, chunk_rows=4).database
    assert sorted(written + again) == list(range(6))
    np.testing.assert_array_equal(db.dataset.filters.values, published.filters((9,))[ORDERED])


def test_on_two_processes(file: Path, tmp_path: Path, two_workers: Client) -> None:
    with two_workers.as_current():
        db = fdb.import_hdf5(tmp_path / "db", file, chunk_rows=3).database
    np.testing.assert_array_equal(db.dataset.filters.values, published.filters((9,))[ORDERED])


def test_layers_that_are_no_numbers_are_put_aside(tmp_path: Path) -> None:
    path, values = tmp_path / "published.h5", published.filters()
    values[7, 1, 1] = np.nan
    published.write_frame(path, published.frame(levels=4))
    published.add_filters(path, values)
    db = fdb.import_hdf5(tmp_path / "db", path).database
    assert db.counts["filters"] == 22
    assert list(db.skipped["skipped_code"].values) == ["nonfinite"]


@pytest.mark.parametrize("by", ["system", "eval"])
def test_a_hostile_file_runs_nothing(by: str, file: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    published.put_pickle(file, published.pickled_blocks(file)[0], published.evil(canary, by, hidden=True))
    done = subprocess.run(
        [sys.executable, "-m", "filterdb", "import-hdf5", str(tmp_path / "db"), str(file), "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 65, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"filterdb: {file}")
    assert not canary.exists()
    assert not (tmp_path / "db/snapshots").exists()


def test_a_file_that_changes_meanwhile(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filterdb.ingestion import published as module

    real = run.commit_models

    def changed(*args: object) -> object:
        published.add_filters(file, np.zeros((1, 9), np.float32), name="more")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "commit_models", changed)
    with pytest.raises(InputError, match="it has changed meanwhile; run again"):
        fdb.import_hdf5(tmp_path / "db", file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        fdb.import_hdf5(tmp_path / "db", tmp_path / "none.h5")
