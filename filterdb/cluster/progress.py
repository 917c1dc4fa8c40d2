"""Progress bars on stderr, drawn by rich; stdout is for the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask.callbacks import Callback
from distributed.diagnostics.progressbar import TextProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def _progress(label: str) -> Progress:
    columns = (TextColumn(f"{label:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def thread_progress(label: str) -> Iterator[None]:
    """Show the progress of what Dask's threads compute inside the block."""
    with _progress(label) as progress:
        bar = progress.add_task(label, total=None)

        def begin(_: Any, state: Any) -> None:
            progress.update(bar, total=len(state["ready"]) + len(state["waiting"]))

        def after(*_: Any) -> None:
            progress.advance(bar)

        with Callback(start_state=begin, posttask=after):
            yield


class FutureProgress(TextProgressBar):
    """The progress of futures on a cluster and of all tasks that they depend on. Creating it blocks until the end."""

    def __init__(self, futures: list[Any], label: str) -> None:
        with _progress(label) as self.progress:
            self.task = self.progress.add_task(label, total=None)
            super().__init__(futures)

    def _draw_bar(self, remaining: int, all: int, **kwargs: Any) -> None:
        self.progress.update(self.task, completed=all - remaining, total=all)

    def _draw_stop(self, **kwargs: Any) -> None:
        pass
