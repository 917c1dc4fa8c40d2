"""verify finds what is missing, cut or flipped, and names it."""

from __future__ import annotations

from pathlib import Path

import pytest

import filterdb as fdb
from filterdb.reduce.integrity import verify
from tests.models import chain, weights


@pytest.fixture
def db(tmp_path: Path) -> Path:
    chain(tmp_path / "m.onnx", weights(10, 10))
    fdb.ingest(tmp_path / "db", [tmp_path / "m.onnx"], chunk_rows=30)
    return tmp_path / "db"


def chunk(db: Path, number: int) -> Path:
    (segment,) = (db / "segments").glob("*.zarr")
    return segment / f"filters/c/{number}/0"


def test_a_sound_database(db: Path) -> None:
    for deep in (False, True):
        found = verify(fdb.open(db), deep=deep)
        assert (found.chunks, found.problems) == (4, [])


def test_missing_and_cut_chunks_show_in_the_listing(db: Path) -> None:
    chunk(db, 1).unlink()
    chunk(db, 2).write_bytes(chunk(db, 2).read_bytes()[:-1])
    for deep in (False, True):
        found = verify(fdb.open(db), deep=deep)
        assert [(p.chunk, p.what) for p in found.problems] == [(1, "missing"), (2, "expected 1084 bytes, got 1083")]


def test_a_flipped_bit_shows_with_deep(db: Path) -> None:
    data = bytearray(chunk(db, 3).read_bytes())
    data[100] ^= 4
    chunk(db, 3).write_bytes(data)
    assert not verify(fdb.open(db)).problems
    (problem,) = verify(fdb.open(db), deep=True).problems
    assert (problem.variable, problem.chunk) == ("filters", 3)
    assert "checksum" in problem.what


def test_damaged_tables_show(db: Path) -> None:
    (segment,) = (db / "segments").glob("*.zarr")
    (segment / "zarr.json").write_bytes(b"")
    (problem,) = verify(fdb.open(db)).problems
    assert problem.variable == "zarr.json"
