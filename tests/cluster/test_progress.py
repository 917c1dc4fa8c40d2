"""The progress of many models: rate, remaining time, lines where stderr is no terminal, quiet where asked."""

from __future__ import annotations

import pytest

from filterdb import cluster
from filterdb.cluster.session import Session, session


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The present time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr("filterdb.cluster.progress.time.monotonic", lambda: now[0])
    return now


def test_rate_and_remaining_time_are_of_late(clock: list[float]) -> None:
    """A hundred in a second, which were there already, then ten a minute: the last ten updates count."""
    with cluster.tally("models", 1_000) as tally:
        clock[0] += 1
        tally.done(100)
        assert tally.note() == "100.0 per second, 0:00:09 left"
        for update in range(1, 11):
            clock[0] += 60
            tally.done(100 + 10 * update)
        assert tally.note() == "10.0 per minute, 1:20:00 left"
        clock[0] += 60
        tally.done(1_000)
        assert tally.note().endswith("per minute") or tally.note().endswith("per second")


def test_nothing_done_has_no_rate(clock: list[float]) -> None:
    with cluster.tally("models", 10) as tally:
        tally.done(0)
        assert tally.note() == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_where_stderr_is_no_terminal(quiet: bool, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """At most one in ten seconds, none for the end, none where a program reads the output."""
    with session(Session(threads=1, quiet=quiet)), cluster.tally("models", 2_000) as tally:
        for count in (0, 500, 1_000, 1_500, 2_000):
            tally.done(count)
            clock[0] += 6
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines == ([] if quiet else ["models: 1,000 of 2,000, 83.3 per second, 0:00:12 left"])


def test_without_a_session_nothing_is_printed(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with cluster.tally("models", 10) as tally:
        clock[0] += 60
        tally.done(5)
    assert capsys.readouterr().err == ""
