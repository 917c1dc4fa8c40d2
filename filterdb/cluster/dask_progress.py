"""The progress of what Dask computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask.callbacks import Callback
from distributed.diagnostics.progressbar import TextProgressBar

from filterdb.cluster.progress import bar


@contextmanager
def thread_progress(label: str) -> Iterator[None]:
    """Show the progress of what Dask's threads compute inside the block."""
    with bar(label) as (progress, task):

        def begin(_: Any, state: Any) -> None:
            progress.update(task, total=len(state["ready"]) + len(state["waiting"]))

        def after(*_: Any) -> None:
            progress.advance(task)

        with Callback(start_state=begin, posttask=after):
            yield


class FutureProgress(TextProgressBar):
    """The progress of futures on a cluster and of all tasks that they depend on. Creating it blocks until the end."""

    def __init__(self, futures: list[Any], label: str) -> None:
        with bar(label) as (self.progress, self.task):
            super().__init__(futures)

    def _draw_bar(self, remaining: int, all: int, **kwargs: Any) -> None:
        self.progress.update(self.task, completed=all - remaining, total=all)

    def _draw_stop(self, **kwargs: Any) -> None:
        pass
