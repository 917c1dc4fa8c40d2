"""Requests to an object store that fail, once or for ever: the same numbers and bytes, or one typed error.

A real S3 server (SeaweedFS) behind a proxy that breaks what a test asks for.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import filterdb as fdb
from filterdb.errors import DamageError, StoreError
from filterdb.store import remote
from tests.faults.place import (
    BOUND,
    FAULTS,
    KINDS,
    TOGETHER,
    Match,
    Outcome,
    Place,
    asks,
    ingest,
    is_one_line,
    outcome,
    put_chunks,
    snapshots,
)
from tests.faults.proxy import DROP_REPLY, FOREVER, NO_CONTINUE, RESET, RESET_IN_BODY, STALL, Action, Request, status

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]

# What passes


@pytest.mark.parametrize("kinds", TOGETHER)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_as_undisturbed(
    kinds: str, fault: str, place: Place, models: list[Path], undisturbed: Outcome
) -> None:
    rules = {kind: place.fault(KINDS[kind], *FAULTS[fault]) for kind in TOGETHER[kinds]}
    ingest(place.url, models)
    assert outcome(place.url) == undisturbed
    assert {kind: rule.left for kind, rule in rules.items()} == dict.fromkeys(TOGETHER[kinds], 0)


@pytest.mark.parametrize(
    ("action", "times"),
    [(DROP_REPLY, 1), (RESET, 1), (DROP_REPLY, FOREVER), (RESET_IN_BODY, FOREVER)],
    ids=["reply lost", "request lost", "reply lost on every try", "reply cut on every try"],
)
def test_the_committing_put(
    action: Action,
    times: int,
    place: Place,
    models: list[Path],
    undisturbed: Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody is told that another was first, where the other was the writer itself."""
    if times == FOREVER:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    rule = place.fault(asks("PUT", r"/snapshots/00000000\.json$"), action, times)
    done = fdb.ingest(place.url, models, chunk_rows=10)
    assert rule.applied >= 1
    assert done.added == [str(model) for model in models]
    assert done.database.snapshot == 0
    assert [entry.id for entry in fdb.open(place.url).state.segments] == [done.segment]
    assert snapshots(place) == ["snapshots/00000000.json"]
    assert {name.split("/")[1].split(".")[0] for name in place.names("segments")} == {done.segment}
    place.proxy.clear()
    assert fdb.ingest(place.url, models, chunk_rows=10).segment is None
    assert outcome(place.url) == undisturbed


# What does not pass


def after_chunks(number: int, match: Match) -> Match:
    """`match` from the moment on at which so many chunks are put; those pass, as often as they are asked for."""
    begun: set[str] = set()

    def counted(request: Request) -> bool:
        if KINDS["PUT chunk"](request) and request.path not in begun and len(begun) < number:
            begun.add(request.path)
            return False
        return len(begun) >= number and match(request) and request.path not in begun

    return counted


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else takes a minute or two; waiting itself is the patient test's."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    for name, seconds in {"SECONDS": 4.0, "READ_SECONDS": 4.0, "RETRY_SECONDS": 2.0}.items():
        monkeypatch.setattr(remote, name, seconds)


@pytest.mark.parametrize(
    ("match", "done", "action", "patient"),
    [
        pytest.param(lambda request: True, 0, status(503), True, marks=pytest.mark.soak),
        (lambda request: True, 0, status(503), False),
        (lambda request: True, 3, status(503), False),
        (KINDS["PUT chunk"], 2, NO_CONTINUE, False),
        (KINDS["PUT chunk"], 2, STALL, False),
        (KINDS["PUT chunk"], 2, RESET, False),
        (KINDS["PUT snapshot"], 6, STALL, False),
    ],
    ids=["503, patiently", "503", "503 meanwhile", "no 100-continue", "stall", "reset", "stalled commit"],
)
def test_for_ever(
    match: Match,
    done: int,
    action: Action,
    patient: bool,
    place: Place,
    models: list[Path],
    undisturbed: Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One error within a bound; when the store is well again, a re-run finishes and keeps what was there."""
    rule = place.fault(after_chunks(done, match), action, FOREVER)
    began = time.monotonic()
    with monkeypatch.context() as patch, pytest.raises(StoreError) as caught:
        if not patient:
            be_impatient(patch)
        ingest(place.url, models)
    assert time.monotonic() - began < BOUND
    assert type(caught.value) is StoreError
    assert is_one_line(caught.value)
    assert place.url in str(caught.value)
    assert rule.applied
    complete = set(put_chunks(place))
    assert len(complete) >= done
    place.proxy.clear()
    ingest(place.url, models)
    assert complete.isdisjoint(put_chunks(place))
    assert snapshots(place) == ["snapshots/00000000.json"]
    assert outcome(place.url) == undisturbed


def test_a_stalled_read(place: Place, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    db = ingest(place.url, models)
    be_impatient(monkeypatch)
    place.fault(asks("GET", r"/filters/c/3/0$"), STALL, FOREVER)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"filters/c(hunk |/)3") as caught:
        fdb.drift(db, by="model")
    assert time.monotonic() - began < BOUND
    assert not isinstance(caught.value, DamageError)
    assert is_one_line(caught.value)
