"""Run tasks on the current client or in threads; tell failures of the cluster from errors of the work."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from filterdb import logs
from filterdb.cluster import progress, threads
from filterdb.cluster.memory import PROCESS_BYTES, Memory, check_memory
from filterdb.cluster.progress import Tally
from filterdb.cluster.session import Work, current_client, current_session
from filterdb.cluster.task_graph import Task
from filterdb.errors import FilterDBError, InterruptedRunError

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK_SECONDS = 5.0
"""Longest time between two checks of a run's cluster."""

NO_WORKERS = "distributed.scheduler.no-workers-timeout"
"""Dask's setting for how long a run waits while there is no worker."""

log = logging.getLogger(__name__)


def run(tasks: Sequence[Task], label: str, memory: Memory | None = None, work: Work | None = None) -> list[Any]:
    """Compute tasks and return their results in order; a session shows progress under `label`.

    `label` is also the name of the tasks' span on the dashboard. `work` is what the tasks read, if that is known: a
    session starts no workers for little work. Raises UsageError, before anything runs, if a worker's memory limit is
    below the need of the tasks (`memory`) or its versions differ.
    """
    if not tasks:
        return []
    began = time.monotonic()
    place = current_session()
    number = None if place is None else place.threads_for(work)
    if place is not None and (number is None or place.threads is not None):
        place.start()
    show = place is not None and sys.stderr.isatty()
    if number is None and find_spec("dask") is None:
        number = threads.cores()
    client = current_client() if number is None else None
    if number is not None:
        with progress.counted(label, threads.number_of_tasks(tasks)) if show else nullcontext() as advance:
            results = threads.compute(tasks, number, advance)
    elif client is None:
        results = _run_on_dask(tasks, label, show=show)
    else:
        results = _run_on(client, tasks, label, memory, show=show)
    logs.event(log, "computed", label=label, tasks=len(tasks), seconds=round(time.monotonic() - began, 3))
    return results


def tally(label: str, total: int) -> AbstractContextManager[Tally]:
    """Show how many of `total` things, done in several runs, are done, how fast, and when all will be.

    In a session this is a bar above those of the runs or, where stderr is no terminal, a line now and then.
    """
    place, on_terminal = current_session(), sys.stderr.isatty()
    lines = place is not None and not place.quiet and not on_terminal
    return progress.tally(label, total, bars=place is not None and on_terminal, lines=lines)


def _run_on_dask(tasks: Sequence[Task], label: str, *, show: bool) -> list[Any]:
    """Compute tasks on Dask's threads, or on what `dask.config` names."""
    import dask

    from filterdb.cluster.dask_progress import thread_progress

    with thread_progress(label) if show else ExitStack():
        return list(dask.compute(*(task.delayed for task in tasks)))


def _run_on(client: Client, tasks: Sequence[Task], label: str, memory: Memory | None, *, show: bool) -> list[Any]:
    from distributed import span

    from filterdb.cluster.dask_progress import FutureProgress
    from filterdb.cluster.versions import check_workers

    try:
        _wait_for_workers(client)
        check_workers(client)
        if memory is not None:
            check_memory(client, memory)
        with span("filterdb", label):
            futures = client.compute([task.delayed for task in tasks], optimize_graph=False)
        with _Watch(client, futures) as watch:
            try:
                if show:
                    FutureProgress(futures, label)
                return list(client.gather(futures))
            except Exception as error:
                if watch.reason is not None:
                    raise InterruptedRunError(f"{label}: {watch.reason}; run again, it resumes") from error
                raise
    except Exception as error:
        raise_resumable(error, label)
        raise


def _wait_for_workers(client: Client) -> None:
    """Wait for a worker and raise InterruptedRunError if none comes: Dask's client would wait forever."""
    if client.scheduler_info(n_workers=1)["workers"]:
        return
    from filterdb.cluster import settings

    seconds = settings.seconds(NO_WORKERS)
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise InterruptedRunError(
            f"{client.scheduler_info(n_workers=0)['address']}: expected at least one worker within {seconds:.0f} s, "
            f"none came; start workers, each with {PROCESS_BYTES / 2**20:.0f} MiB of memory or more, and run again"
        ) from error


class _Watch:
    """A thread that cancels a run whose cluster has had no worker, or no scheduler, for too long.

    Dask's client alone would wait forever for workers that do not come back. `reason` says why the run was cancelled.
    """

    def __init__(self, client: Client, futures: list[Future]) -> None:
        from filterdb.cluster import settings

        self.client, self.futures, self.reason = client, futures, None
        self.limit = settings.seconds(NO_WORKERS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="filterdb-watch", daemon=True)

    reason: str | None

    def _look(self) -> None:
        alone_since: float | None = None
        while not self._ended.wait(min(LOOK_SECONDS, self.limit / 4)):
            try:
                workers = self.client.scheduler_info(n_workers=1)["workers"]
                what = "the scheduler has had no worker"
            except Exception:  # noqa: BLE001 - a lost connection may raise anything
                workers, what = {}, "no scheduler has answered"
            if workers:
                alone_since = None
                continue
            now = time.monotonic()
            alone_since = alone_since or now
            if now - alone_since >= self.limit:
                self.reason = f"{what} for {self.limit:.0f} s"
                with suppress(Exception):
                    self.client.cancel(self.futures, force=True)
                return

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()


_LOST = ("KilledWorker", "FutureCancelledError", "CancelledError", "CommClosedError", "FuturesCancelledError")
"""Exceptions of Dask for a failure of the cluster, not of the work."""


def raise_resumable(error: Exception, label: str) -> None:
    """Raise InterruptedRunError if the error looks like a failure of the cluster; do nothing for other errors."""
    if isinstance(error, FilterDBError):
        return
    name = type(error).__name__
    if name == "KilledWorker":
        # A dying worker blames every task that was queued on it, so the name is only a hint.
        what = f"workers died again and again over it, last with task {error.args[0]!r} (memory? see their logs)"
    elif name in _LOST or isinstance(error, TimeoutError | ConnectionError):
        what = f"the cluster lost the work ({name})"
    elif "NoWorker" in name or "NoValidWorker" in name:
        what = "the scheduler has no worker for it"
    else:
        return
    raise InterruptedRunError(f"{label}: {what}; run again, it resumes") from error
