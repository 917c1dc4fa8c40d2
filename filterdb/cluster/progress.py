"""Progress bars on stderr, drawn by rich; stdout is for the answer."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from filterdb import logs
from filterdb.terminal import width_of

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

RECENT = 10
"""Updates from which the rate of a tally is computed: files that are skipped take less time than those before."""

LINE_SECONDS = 10.0
"""Shortest time between two lines about a tally, where stderr is no terminal."""

NUMBERS_WIDTH = 44
"""Columns of a terminal for the label of a bar, two numbers of six digits, and the time."""

NOTE_WIDTH = 36
"""Columns for a rate and the remaining time."""

NARROWEST_BAR, WIDEST_BAR = 8, 40
"""Columns of a bar."""

log = logging.getLogger(__name__)

_outer: ContextVar[Progress | None] = ContextVar("filterdb_progress", default=None)
"""The bars of the tally around the caller, to which those of its passes are added."""


@contextmanager
def bar(label: str) -> Iterator[tuple[Progress, TaskID]]:
    """Show a bar inside the block: below that of a tally, if there is one."""
    outer = _outer.get()
    if outer is not None:
        task = outer.add_task(f"{label:12}", total=None, note="")
        try:
            yield outer, task
        finally:
            outer.remove_task(task)
        return
    with _bars() as progress:
        yield progress, progress.add_task(f"{label:12}", total=None, note="")


def _bars() -> Progress:
    from rich.console import Console  # takes a while, which commands save that show no bar
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True, width=width_of(sys.stderr))
    # Numbers are never cut: in a narrow terminal the bar is shorter, and the rate is left out.
    room = console.width - NUMBERS_WIDTH
    has_note = room >= NOTE_WIDTH + NARROWEST_BAR
    bar = BarColumn(max(min(room - NOTE_WIDTH * has_note, WIDEST_BAR), NARROWEST_BAR))
    columns: list[ProgressColumn] = [TextColumn("{task.description}"), bar, MofNCompleteColumn(), TimeElapsedColumn()]
    return Progress(*columns, *([TextColumn("{task.fields[note]}")] if has_note else []), console=console)


@dataclass(slots=True)
class Tally:
    """How many of `total` things are done, how fast, and when all will be."""

    label: str
    total: int
    lines: bool
    """Print lines on stderr, because no bar is shown."""
    bar: tuple[Progress, TaskID] | None = None
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT))
    _printed: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock."""
        self._printed = time.monotonic()
        self._recent.append((self._printed, 0))

    def done(self, count: int) -> None:
        """Show that `count` things are done."""
        now = time.monotonic()
        self._recent.append((now, count))
        note = self.note()
        if self.bar is not None:
            progress, bar = self.bar
            progress.update(bar, completed=count, note=note)
        logs.event(log, "progress", label=self.label, done=count, total=self.total, rate=self.rate)
        if self.lines and 0 < count < self.total and now - self._printed >= LINE_SECONDS:
            self._printed = now
            print(f"{self.label}: {count:,} of {self.total:,}, {note}", file=sys.stderr)  # noqa: T201

    @property
    def rate(self) -> float:
        """Things per second, of late."""
        (began, first), (now, count) = self._recent[0], self._recent[-1]
        return (count - first) / max(now - began, 1e-6)

    def note(self) -> str:
        """Return the rate and the remaining time as text."""
        rate, left = self.rate, self.total - self._recent[-1][1]
        if not rate:
            return ""
        shown = f"{rate:.1f} per second" if rate >= 1 else f"{60 * rate:.1f} per minute"
        return f"{shown}, {_duration(left / rate)} left" if left else shown


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


@contextmanager
def tally(label: str, total: int, *, bars: bool, lines: bool) -> Iterator[Tally]:
    """Show how many things are done inside the block, as a bar or as lines. Bars of passes are shown below it."""
    if not bars:
        yield Tally(label, total, lines)
        return
    with _bars() as progress:
        bar = progress.add_task(f"{label:12}", total=total, note="")
        token = _outer.set(progress)
        try:
            yield Tally(label, total, lines=False, bar=(progress, bar))
        finally:
            _outer.reset(token)


@contextmanager
def counted(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar of `total` steps inside the block, and yield what advances it by one."""
    with bar(label) as (progress, task):
        progress.update(task, total=total)
        yield lambda: progress.advance(task)
