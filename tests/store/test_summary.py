"""Summaries read in blocks are those that were stored, with integers as small as they can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from filterdb.errors import DamageError
from filterdb.store import summary
from filterdb.store.files import Files

KEY = summary.Key("histograms", 4, "{}")


@pytest.mark.parametrize(
    ("largest", "dtype"), [(0, "int8"), (127, "int8"), (128, "int16"), (40_000, "int32"), (2**40, "int64")]
)
def test_integers_are_read_as_small_as_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, dtype: str
) -> None:
    monkeypatch.setattr(summary, "_BLOCK", 7)
    files, counts = Files(str(tmp_path)), np.minimum(np.arange(60).reshape(5, 4, 3) % 3, largest)
    counts[3, 2, 1] = largest
    arrays = {"counts": counts, "other": counts, "peak": np.array([0.5, np.nan]), "none": np.zeros((0, 9), np.int64)}
    summary.save(files, "segment", KEY, arrays)
    read = summary.load(files, "segment", KEY, ("counts", "none"))
    assert read is not None and read.keys() == arrays.keys()
    assert read["counts"].dtype == dtype and read["other"].dtype == np.int64
    for name, values in arrays.items():
        np.testing.assert_array_equal(read[name], values)


@pytest.mark.parametrize("size", [0, 10, 63, 64, 100])
def test_a_cut_off_summary_is_damaged(tmp_path: Path, size: int) -> None:
    files = Files(str(tmp_path))
    summary.save(files, "segment", KEY, {"counts": np.arange(9)})
    path = tmp_path / summary.name_of("segment", KEY)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamageError, match="expected a summary with its SHA-256"):
        summary.load(files, "segment", KEY)


def test_rows_read_in_parts_are_those_of_the_whole(tmp_path: Path) -> None:
    files, rng = Files(str(tmp_path)), np.random.default_rng(0)
    arrays = {"m2": rng.random((11, 3, 9, 9)), "count": rng.integers(0, 9, 11), "flat": rng.random((11, 0))}
    summary.save(files, "segment", KEY, arrays)
    parts = summary.load_rows(files, "segment", KEY, 4)
    assert parts is not None
    listed = list(parts)
    assert [len(part["count"]) for part in listed] == [4, 4, 3]
    for name, values in arrays.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in listed]), values)
    assert summary.load_rows(files, "other", KEY, 4) is None
    (tmp_path / "summaries/other").mkdir()
    (tmp_path / summary.name_of("other", KEY)).write_bytes((tmp_path / summary.name_of("segment", KEY)).read_bytes())
    assert summary.load_rows(files, "other", KEY, 4) is None


def test_a_damaged_summary_is_not_read_in_parts(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    summary.save(files, "segment", KEY, {"counts": np.arange(99)})
    path = tmp_path / summary.name_of("segment", KEY)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match="got damage"):
        summary.load_rows(files, "segment", KEY, 10)
