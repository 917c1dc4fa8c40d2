"""Bytes from an object store that are not what was stored: fetched again, or an error that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

import filterdb as fdb
from filterdb.errors import DamageError
from filterdb.reduce.integrity import verify
from filterdb.store.files import Files
from tests.faults.place import SNAPSHOT, Outcome, Place, asks, ingest, is_one_line, numbers
from tests.faults.proxy import FOREVER, flip

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]


@pytest.fixture(params=[pytest.param("client checks", marks=pytest.mark.soak), "client trusts"])
def checking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether botocore checks replies against the checksum that the server kept; not every server keeps one."""
    if request.param == "client trusts":
        monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")


def test_a_bit_of_a_chunk_flips_once(checking: None, place: Place, models: list[Path], undisturbed: Outcome) -> None:
    """First byte, middle and checksum, of three chunks: fetched again."""
    ingest(place.url, models)
    rules = [
        place.fault(asks("GET", rf"/filters/c/{chunk}/0$"), flip(where)) for chunk, where in enumerate((0, 0.5, 1))
    ]
    assert numbers(place.url) == undisturbed.numbers
    assert [rule.applied for rule in rules] == [1, 1, 1]


def test_a_bit_of_a_chunk_flips_for_ever(checking: None, place: Place, models: list[Path]) -> None:
    """Never a number: not of a pass, not of the dataset; verify names the chunk."""
    db = ingest(place.url, models)
    place.fault(asks("GET", r"/filters/c/3/0$"), flip(), FOREVER)
    with pytest.raises(DamageError, match=rf"{db.segments[0].id}.*(chunk |/c/)3") as caught:
        fdb.drift(db, by="model")
    assert is_one_line(caught.value)
    with pytest.raises(DamageError, match=r"(chunk |/c/)3"):
        fdb.open(place.url).dataset["filters"].compute()
    assert [(problem.variable, problem.chunk) for problem in verify(db, deep=True).problems] == [("filters", 3)]


NOT_CHUNKS = {
    "the tables": (r"/segments/[^/]*\.safetensors$", r"\.safetensors"),
    "a snapshot": (SNAPSHOT, r"snapshots/0000000\d\.json"),
    "a summary": (r"/summaries/.*/moments[^/]*\.npz$", r"summaries/.*moments"),
    "a basis": (r"/bases/", "bases/"),
}


def test_a_bit_of_something_else_flips_once(
    checking: None, place: Place, models: list[Path], undisturbed: Outcome
) -> None:
    """Asked for again, the same numbers; each of them in turn, at its first byte, its middle, its last."""
    ingest(place.url, models)
    numbers(place.url)
    for where in (0, 0.5, 1):
        rules = {what: place.fault(asks("GET", pattern), flip(where)) for what, (pattern, _) in NOT_CHUNKS.items()}
        assert numbers(place.url) == undisturbed.numbers
        assert {what for what, rule in rules.items() if rule.left} == set()


@pytest.mark.parametrize("what", NOT_CHUNKS)
def test_a_bit_of_something_else_flips_for_ever(what: str, checking: None, place: Place, models: list[Path]) -> None:
    """DamageError names it, and there is no number."""
    pattern, name = NOT_CHUNKS[what]
    ingest(place.url, models)
    if what == "a basis":
        numbers(place.url)
    place.fault(asks("GET", pattern), flip(), FOREVER)
    with pytest.raises(DamageError, match=name) as caught:
        numbers(place.url)
    assert is_one_line(caught.value)


@pytest.mark.parametrize("word", ['"format":6', '"number":0', '"sha256"', '"segments"'])
def test_a_bit_of_a_snapshot_flips_where_it_is_looked_at_first(
    word: str, place: Place, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the words that are read before the digest is: damage, never something else."""
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    ingest(place.url, models)
    data = Files.at(place.url).read("snapshots/00000000.json")
    begin = data.index(word.encode())
    for position in (begin + 1, begin + len(word) - 1):
        rule = place.fault(asks("GET", SNAPSHOT), flip(position / (len(data) - 1)))
        assert fdb.open(place.url).snapshot == 0
        assert rule.applied == 1
        rule = place.fault(asks("GET", SNAPSHOT), flip(position / (len(data) - 1)), FOREVER)
        with pytest.raises(DamageError, match="00000000"):
            fdb.open(place.url)
        rule.left = 0
