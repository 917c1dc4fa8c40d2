"""Summaries in memory are bounded, and no answer depends on the bound."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.store import summary
from filterdb.store.summary import Key
from filterdb.store.summary_cache import SummaryCache
from tests.models import chain, weights


def place(number: int) -> tuple[str, Key]:
    return f"segment {number}", Key("moments", 1)


def arrays(size: int) -> dict[str, np.ndarray]:
    return {"mean": np.zeros(size // 2, np.uint8), "m2": np.zeros(size - size // 2, np.uint8)}


def test_the_least_recently_used_is_dropped() -> None:
    cache = SummaryCache(100)
    for number in range(3):
        cache[place(number)] = arrays(40)
    assert [place(number) in cache for number in range(3)] == [False, True, True]
    assert cache[place(1)]["mean"].size == 20
    cache[place(3)] = arrays(40)
    assert [place(number) in cache for number in range(4)] == [False, True, False, True]
    cache[place(3)] = arrays(60)
    assert (len(cache), cache.nbytes) == (2, 100)
    with pytest.raises(KeyError):
        cache[place(0)]


def test_a_large_result_is_held_alone() -> None:
    cache = SummaryCache(100, [(place(0), arrays(40)), (place(1), arrays(1_000))])
    assert (len(cache), cache.nbytes) == (1, 1_000)
    assert place(1) in cache
    cache[place(2)] = arrays(10)
    assert (len(cache), cache.nbytes, place(2) in cache) == (1, 10, True)
    copy = pickle.loads(pickle.dumps(cache))
    assert (len(copy), copy.nbytes, copy.limit) == (1, 10, 100)


@pytest.mark.parametrize("can_write", [True, False])
def test_answers_do_not_depend_on_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, can_write: bool
) -> None:
    """Two segments, a cache with room for no two summaries; and a store that takes no summary."""
    for name in "ab":
        chain(tmp_path / f"{name}.onnx", weights(16, 16), weights(16, 16, 1))
        fdb.ingest(tmp_path / "db", tmp_path / f"{name}.onnx")
    if not can_write:

        def refused(*_: object) -> None:
            raise fdb.errors.StoreError("the store is read-only")

        monkeypatch.setattr(summary, "save", refused)
    opened = fdb.open(tmp_path / "db")

    def answers(db: fdb.Database) -> list[xr.Dataset]:
        return [fdb.drift(db, by="model"), fdb.degeneration(db), fdb.density(db, "model"), fdb.pca(db)]

    small = replace(opened, kept=SummaryCache(1))
    first = answers(small)
    assert len(small.kept) == 1
    for other in (answers(small), answers(fdb.open(tmp_path / "db"))):
        for one, same in zip(first, other, strict=True):
            xr.testing.assert_identical(one.drop_attrs(), same.drop_attrs())
