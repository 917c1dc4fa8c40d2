"""Every way to make a segment sketches its layers, and every other operation of the store keeps the sketches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.engine.run import stored, summaries
from filterdb.engine.sketches import SketchReduction
from filterdb.store.segment import Segment
from tests.models import chain, weights
from tests.models.published import published


def signs(count: int) -> np.ndarray:
    """The sketch of each weight of the first filters of a layer being 1 and all others 0, (filters, 9, 128)."""
    number, mask = np.arange(2 * count, dtype=object), 2**64 - 1
    state = ((number + 1) * 0x9E3779B97F4A7C15 + 0x66696C7465726462) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    mixed = (state ^ (state >> 31)).reshape(count, 2)
    matrix = np.zeros((count, 9, 128))
    for i, (buckets, sign) in enumerate(mixed.tolist()):
        for j in range(9):
            matrix[i, j, (buckets >> 7 * j) % 128] = -1 if sign >> j & 1 else 1
    return matrix


def check(db: fdb.Database) -> None:
    """Every layer's sketch is stored, and it is that of the layer's filters."""
    db = fdb.open(db.url, db.snapshot)
    has, sizes = stored(db, SketchReduction()), db.layers["row_size"].values
    assert has.shape == sizes.shape and has.all()
    (arrays,) = summaries(db, SketchReduction())
    np.testing.assert_array_equal(arrays["count"], sizes)
    matrix = signs(int(sizes.max()))
    for sketch, filters in zip(arrays["sketch"], np.split(db.dataset.filters.values, sizes.cumsum()[:-1]), strict=True):
        np.testing.assert_allclose(sketch, np.einsum("fj,fjb->b", filters, matrix[: len(filters)]), rtol=0, atol=1e-9)


def test_every_operation_of_the_store_keeps_sketches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ingest, append, relabel, drift's basis, refit, remove, compact, restore, tag, gc, verify, import; no pass."""
    for i in range(3):
        chain(tmp_path / f"{i}.onnx", weights(6 + i, 5, seed=i), weights(7, 6 + i, seed=10 + i))
    (tmp_path / "list.csv").write_text("path,name,task\n0.onnx,0,a\n1.onnx,1,b\n", "utf-8")
    db = fdb.ingest(tmp_path / "db", catalog=tmp_path / "list.csv", chunk_rows=20).database
    check(db)
    (tmp_path / "more.csv").write_text("path,name,task\n2.onnx,2,b\n", "utf-8")
    db = fdb.ingest(db.url, catalog=tmp_path / "more.csv", chunk_rows=20).database
    assert len(db.segments) == 2
    check(db)
    (tmp_path / "labels.csv").write_text("path,name,task\n2.onnx,2,c\n", "utf-8")
    check(fdb.relabel(db, tmp_path / "labels.csv"))
    fdb.drift(fdb.open(db.url), "task")  # commits a basis
    check(fdb.refit(db.url))
    check(fdb.remove(db.url, ["1"]))
    compacted = fdb.compact(db.url)
    assert len(compacted.segments) == 1 and compacted.counts["models"] == 2
    check(compacted)
    restored = fdb.restore(db.url, db.snapshot)
    assert restored.counts["models"] == 3
    check(restored)
    fdb.tag(db.url, "kept")
    fdb.gc(db.url, delete=True, grace=0)
    assert fdb.verify(db.url, deep=True).problems == []
    for number in range(fdb.open(db.url).snapshot + 1):
        check(fdb.open(db.url, number))
    published.write_frame(tmp_path / "published.h5", published.frame(levels=4, ids="list"))
    published.add_filters(tmp_path / "published.h5")
    imported = fdb.import_hdf5(tmp_path / "imported", tmp_path / "published.h5", chunk_rows=5).database
    check(imported)

    def refuse(*_: object) -> None:
        raise AssertionError("a chunk was read")

    monkeypatch.setattr(Segment, "read_columns", refuse)
    fdb.lineage(fdb.open(db.url))
    fdb.lineage(fdb.open(imported.url))


def test_an_interrupted_ingest_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain(tmp_path / "a.onnx", weights(9, 8, seed=1), weights(8, 9, seed=2))

    def ingested(name: str) -> dict[str, bytes]:
        db = fdb.ingest(tmp_path / name, [tmp_path / "a.onnx"], chunk_rows=20).database
        return {name: db.files.read(name) for name in db.files.list("summaries")}

    expected = ingested("undisturbed")
    written: list[int] = []
    real = Segment.write_chunk

    def dying(segment: Segment, chunk: int, rows: np.ndarray) -> None:
        if len(written) == 3:
            raise OSError("no space left")
        written.append(chunk)
        real(segment, chunk, rows)

    monkeypatch.setattr(Segment, "write_chunk", dying)
    with pytest.raises(OSError, match="no space left"):
        ingested("db")
    monkeypatch.setattr(Segment, "write_chunk", real)
    assert ingested("db") == expected
    assert any("sketch-v1" in name for name in expected)
    shutil.rmtree(tmp_path / "db/summaries")
    fdb.lineage(tmp_path / "db")
    assert {name: (tmp_path / "db" / name).read_bytes() for name in expected} == expected
