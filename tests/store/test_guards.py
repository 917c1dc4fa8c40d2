"""Guards that protect data raise errors, also under `python -O`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import ConflictError, InputError, StoreMissingError
from filterdb.ingestion.write import FromModels
from filterdb.models.sandbox import Limits
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from tests.models import chain, weights


@pytest.fixture
def db(tmp_path: Path) -> fdb.Database:
    chain(tmp_path / "a.onnx", weights(8, 8))
    return fdb.ingest(tmp_path / "db", tmp_path / "a.onnx").database


def test_a_buffer_that_is_not_full_is_not_written() -> None:
    with pytest.raises(InputError, match="expected 4 filters from the models of the plan, got 0; nothing was written"):
        FromModels((), Limits())(np.empty((4, 9), np.float32), 0)


def test_a_chunk_of_another_shape_is_not_written(db: fdb.Database) -> None:
    (segment,) = db.segments
    before = segment.read_chunk(0).copy()
    with pytest.raises(ValueError, match=r"expected filters of shape \(64, 9\), got \(63, 9\); nothing was written"):
        segment.write_chunk(0, np.zeros((63, 9), np.float32))
    np.testing.assert_array_equal(segment.read_chunk(0), before)


def test_layers_of_another_snapshot_are_not_taken(db: fdb.Database, tmp_path: Path) -> None:
    chain(tmp_path / "b.onnx", weights(8, 4))
    newest = fdb.ingest(tmp_path / "db", tmp_path / "b.onnx").database
    with pytest.raises(ConflictError, match="expected snapshot 1 to have the layers of snapshot 0"):
        db.at(newest.state)
    same = replace(db.state, number=7)
    assert db.at(same).snapshot == 7


def test_no_snapshot_to_build_on(tmp_path: Path) -> None:
    with pytest.raises(StoreMissingError, match="expected a filterdb database, found no snapshot"):
        snapshots.commit(Files.at(str(tmp_path)), None, lambda head: None)
