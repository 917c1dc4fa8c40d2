"""Summaries of pages: those of the segments one after the other, whatever is missing or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest

import filterdb as fdb
from filterdb.engine import joined
from filterdb.engine.moments import MomentsReduction
from filterdb.engine.run import stored, summaries
from filterdb.engine.sketches import SketchReduction
from filterdb.store import pages, summary
from filterdb.store.files import Files
from tests.models import chain, weights

KEY = MomentsReduction().key


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Six segments: a page of two pages, a page, none alone."""
    monkeypatch.setattr(pages, "FAN", 2)
    pages.paginate.cache_clear()
    pages.forget()
    with dask.config.set(scheduler="synchronous"):
        for number in range(6):
            path = chain(tmp_path / f"{number}.onnx", weights(3, 2 + number, seed=number), weights(2, 3, seed=number))
            fdb.ingest(tmp_path / "db", [path], compact=False)
    yield str(tmp_path / "db")
    pages.paginate.cache_clear()


def moments(url: str) -> dict[str, np.ndarray]:
    (arrays,) = summaries(fdb.open(url), MomentsReduction())
    return arrays


def own(url: str) -> dict[str, np.ndarray]:
    """From each segment's object."""
    db = fdb.open(url)
    parts = [summary.load(db.files, segment.id, KEY) or {} for segment in db.segments]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def objects(url: str) -> list[str]:
    return [name for name in Files.at(url).list("tables") if name.endswith(f"{KEY.label}.npz")]


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)


def test_pages_are_joined_and_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = own(url)
    assert_same(moments(url), expected)
    names = [summary.joined_name(page.id, KEY) for page in fdb.open(url).state.pages]
    assert len(names) == 2 and objects(url) == sorted(names)
    with monkeypatch.context() as patch:  # no segment's own summary is read any more
        patch.setattr(summary, "load", lambda *_: pytest.fail("read a segment's summary"))
        assert_same(moments(url), expected)
    fdb.drift(url, by="model")
    assert fdb.verify(url, deep=True).problems == []
    assert fdb.gc(url, grace=-1) == []


@pytest.mark.parametrize("bytes_", [b"", b"PK nonsense", None])
def test_a_damaged_page_is_named_and_made_again(url: str, bytes_: bytes | None) -> None:
    expected = moments(url)
    files, (name, other) = Files.at(url), objects(url)
    files.put({name: files.read(other) if bytes_ is None else bytes_})  # None: that of another page
    if bytes_ is not None:
        assert [problem.variable for problem in fdb.verify(url).problems] == [name]
    assert_same(moments(url), expected)
    assert fdb.verify(url).problems == []
    assert files.read(name) != files.read(other)


def test_parts_of_a_page(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with too many layers are left to those below; a page is made from what is below it."""
    expected = own(url)
    with monkeypatch.context() as patch:
        patch.setattr(joined, "MOST_LAYERS", 4)
        assert_same(moments(url), expected)
    assert len(objects(url)) == 3
    for segment in fdb.open(url).segments:
        Files.at(url).remove([summary.name_of(segment.id, KEY)])
    assert_same(moments(url), expected)
    assert len(objects(url)) == 4


def test_missing_summaries_are_not_joined(url: str) -> None:
    """Of what is not computed when it is missing, only whole pages are joined."""
    db = fdb.open(url)
    Files.at(url).remove([summary.name_of(db.segments[0].id, SketchReduction().key)])
    assert stored(db, SketchReduction()).tolist() == [False] * 2 + [True] * 10
    label = SketchReduction().key.label
    assert [name for name in Files.at(url).list("tables") if label in name] == [
        summary.joined_name(db.state.pages[1].id, SketchReduction().key)
    ]
