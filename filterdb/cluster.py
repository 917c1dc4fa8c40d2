"""Where the work runs: Dask's own scheduler of the moment, a local cluster, or an address.

From Python nothing is started: the current `distributed.Client` is used when there is one, else Dask's threads (or
whatever `dask.config` says). The command line opens a `session`, whose cluster starts when the first work comes.
"""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import dask
from dask.callbacks import Callback
from distributed import Client, LocalCluster
from distributed.diagnostics.progressbar import TextProgressBar
from distributed.security import Security
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from filterdb.errors import InterruptedRunError, StoreError, UsageError

PROCESS_BYTES = 384 * 2**20
"""What a worker holds before it has anything to do: Python, Dask, Zarr, Numba's compiled loops."""


@dataclass(slots=True)
class Session:
    """A lazily started place to work. `threads` and `workers` None: a local cluster sized to the machine."""

    threads: int | None = None
    workers: int | None = None
    scheduler: str | None = None
    security: Security | None = None
    debug: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)
    _started: bool = False

    @property
    def log_level(self) -> int:
        """Of the cluster: a failed task is told once, by the command."""
        return logging.INFO if self.debug else logging.CRITICAL

    def start(self) -> None:
        """Start or connect, once."""
        if self._started:
            return
        self._started = True
        if self.threads is not None:
            self._stack.enter_context(dask.config.set(scheduler="threads", num_workers=self.threads))
            return
        if self.scheduler is not None:
            client = self._connect(self.scheduler)
        else:
            size = {} if self.workers is None else {"n_workers": self.workers, "threads_per_worker": 1}
            cluster = self._stack.enter_context(
                LocalCluster(dashboard_address="127.0.0.1:0", silence_logs=self.log_level, **size)
            )
            client = self._stack.enter_context(Client(cluster))
        print(f"dashboard: {client.dashboard_link}", file=sys.stderr)  # noqa: T201

    def _connect(self, address: str) -> Client:
        try:
            return self._stack.enter_context(Client(address, security=self.security, timeout="10s"))
        except (OSError, TimeoutError) as error:
            raise StoreError(f"{address}: expected a Dask scheduler, none answered; check the address") from error
        except (ValueError, TypeError) as error:
            raise UsageError(f"{address}: expected tcp://HOST:PORT or tls://HOST:PORT ({error})") from error


class Memory(NamedTuple):
    """Bytes that work takes of a worker: of each thread, and once for the whole."""

    per_thread: int = 0
    once: int = 0

    @classmethod
    def most(cls, needs: Iterable[Memory]) -> Memory:
        """The largest of several pieces of work that follow one another."""
        every = [cls(), *needs]
        return cls(max(need.per_thread for need in every), max(need.once for need in every))


_session: ContextVar[Session | None] = ContextVar("filterdb_session", default=None)


@contextmanager
def session(place: Session) -> Iterator[Session]:
    """Work inside the block runs in `place`; whatever it started ends with the block."""
    token = _session.set(place)
    try:
        with place._stack:
            yield place
    finally:
        _session.reset(token)


def current_client() -> Client | None:
    """The current `distributed.Client`, if there is one and `dask.config` names no other scheduler."""
    if dask.config.get("scheduler", None) not in {None, "dask.distributed", "distributed"}:
        return None
    try:
        return Client.current()
    except ValueError:
        return None


def task(key: str, work: Callable[..., Any], *inputs: Any) -> Any:
    """A Dask task named `key`: `work`, a partial that holds what it needs, called with other tasks' results.

    What a partial holds Dask does not look into; of arguments it would search and rebuild every dataclass, for a
    millisecond each time.
    """
    return dask.delayed(work, name=f"{key}-work", traverse=False)(*inputs, dask_key_name=key)


def run(tasks: Sequence[Any], label: str, memory: Memory | None = None) -> list[Any]:
    """Compute Dask tasks (delayed) and give their results in order; a session shows progress under `label`.

    Raises UsageError before anything runs where a worker's limit is below what the tasks need (`memory`).
    """
    if not tasks:
        return []
    place = _session.get()
    if place is not None:
        place.start()
    client = current_client()
    show = place is not None and sys.stderr.isatty()
    if client is None:
        with _thread_progress(label) if show else ExitStack():
            return list(dask.compute(*tasks))
    if memory is not None:
        _check_memory(client, memory)
    futures = client.compute(list(tasks), optimize_graph=False)
    try:
        if show:
            _Bar(futures, label)
        return list(client.gather(futures))
    except Exception as error:
        raise_resumable(error)
        raise


def _check_memory(client: Client, memory: Memory) -> None:
    """Better told now than killed later: the nanny ends a worker at 95 % of its limit."""
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        limit, threads = worker["memory_limit"], worker["nthreads"]
        need = PROCESS_BYTES + threads * memory.per_thread + memory.once
        if limit and need > limit:
            raise UsageError(
                f"worker {address}: expected a memory limit of {need / 2**20:,.0f} MiB or more for {threads} threads, "
                f"got {limit / 2**20:,.0f} MiB; start it with more memory or fewer threads"
            )


def peak_memory() -> dict[str, int]:
    """The most bytes that each process has held so far (resident): "client", and workers by address."""
    client = current_client()
    found = {"client": _peak()}
    if client is not None:
        found |= client.run(_peak)
    return found


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would begin with what the parent held when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def raise_resumable(error: Exception) -> None:
    """Raise InterruptedRunError in place of what a cluster's failure looks like; do nothing for other errors."""
    if type(error).__name__ in {"KilledWorker", "FutureCancelledError", "CancelledError", "CommClosedError"}:
        raise InterruptedRunError(
            f"the cluster lost the work ({type(error).__name__}); run again, it resumes"
        ) from error


def _progress(label: str) -> Progress:
    columns = (TextColumn(f"{label:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def _thread_progress(label: str) -> Iterator[None]:
    with _progress(label) as progress:
        bar = progress.add_task(label, total=None)

        def begin(_: Any, state: Any) -> None:
            progress.update(bar, total=len(state["ready"]) + len(state["waiting"]))

        def after(*_: Any) -> None:
            progress.advance(bar)

        with Callback(start_state=begin, posttask=after):
            yield


class _Bar(TextProgressBar):
    """Dask's own progress of a graph, drawn by rich on stderr (stdout is the answer's). Blocks until the end."""

    def __init__(self, futures: list[Any], label: str) -> None:
        with _progress(label) as self.progress:
            self.task = self.progress.add_task(label, total=None)
            super().__init__(futures)

    def _draw_bar(self, remaining: int, all: int, **kwargs: Any) -> None:
        self.progress.update(self.task, completed=all - remaining, total=all)

    def _draw_stop(self, **kwargs: Any) -> None:
        pass
