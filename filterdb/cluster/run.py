"""Where the work runs: Dask's own scheduler of the moment, a local cluster, or an address.

From Python nothing is started: the current `distributed.Client` is used when there is one, else Dask's threads (or
whatever `dask.config` says). The command line opens a `session`, whose cluster starts when the first work comes.
"""

from __future__ import annotations

import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import dask
from dask.callbacks import Callback
from dask.utils import parse_timedelta
from distributed import Client, Future, LocalCluster
from distributed.diagnostics.progressbar import TextProgressBar
from distributed.security import Security
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from filterdb.errors import FilterDBError, InterruptedRunError, StoreError, UsageError

NO_WORKERS_SECONDS = 300.0
"""How long a run waits while there is no worker, unless Dask's `distributed.scheduler.no-workers-timeout` says."""

LOOK_SECONDS = 5.0
"""How often a run is looked after."""

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
        for name in ("distributed", "distributed.client", "distributed.comm", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(self.log_level)
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
    try:
        _wait_for_workers(client)
        if memory is not None:
            _check_memory(client, memory)
        futures = client.compute(list(tasks), optimize_graph=False)
        with _Watch(client, futures) as watch:
            try:
                if show:
                    _Bar(futures, label)
                return list(client.gather(futures))
            except Exception as error:
                if watch.found is not None:
                    raise InterruptedRunError(f"{label}: {watch.found}; run again, it resumes") from error
                raise
    except Exception as error:
        raise_resumable(error, label)
        raise


def _seconds(name: str, default: float) -> float:
    """A duration of Dask's configuration."""
    value = dask.config.get(name, None)
    return default if value is None else float(parse_timedelta(value))


def _wait_for_workers(client: Client) -> None:
    """Raise InterruptedRunError where no worker comes: a client alone would wait for ever."""
    if client.scheduler_info(n_workers=1)["workers"]:
        return
    seconds = _seconds("distributed.scheduler.no-workers-timeout", NO_WORKERS_SECONDS)
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise InterruptedRunError(
            f"{client.scheduler_info(n_workers=0)['address']}: expected at least one worker within {seconds:.0f} s, "
            "none came; start workers, run again"
        ) from error


class _Watch:
    """Looks after a run from beside: where no worker has been there for long, or no scheduler, the run is ended.

    `found`: why, if so. Without it a client waits for ever for workers that do not come back.
    """

    def __init__(self, client: Client, futures: list[Future]) -> None:
        self.client, self.futures, self.found = client, futures, None
        self.limit = _seconds("distributed.scheduler.no-workers-timeout", NO_WORKERS_SECONDS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="filterdb-watch", daemon=True)

    found: str | None

    def _look(self) -> None:
        alone_since: float | None = None
        while not self._ended.wait(min(LOOK_SECONDS, self.limit / 4)):
            try:
                workers = self.client.scheduler_info(n_workers=1)["workers"]
                what = "the scheduler has had no worker"
            except Exception:  # noqa: BLE001 - whatever a lost connection is called
                workers, what = {}, "no scheduler has answered"
            if workers:
                alone_since = None
                continue
            now = time.monotonic()
            alone_since = alone_since or now
            if now - alone_since >= self.limit:
                self.found = f"{what} for {self.limit:.0f} s"
                with suppress(Exception):
                    self.client.cancel(self.futures, force=True)
                return

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()


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


_LOST = ("KilledWorker", "FutureCancelledError", "CancelledError", "CommClosedError", "FuturesCancelledError")
"""What Dask raises where the cluster has failed, not the work."""


def raise_resumable(error: Exception, label: str) -> None:
    """Raise InterruptedRunError in place of what a cluster's failure looks like; do nothing for other errors."""
    if isinstance(error, FilterDBError):
        return
    name = type(error).__name__
    if name == "KilledWorker":
        # The dying worker blames every task that was queued on it: the name is a hint, no verdict.
        what = f"workers died again and again over it, last with task {error.args[0]!r} (memory? see their logs)"
    elif name in _LOST or isinstance(error, TimeoutError | ConnectionError):
        what = f"the cluster lost the work ({name})"
    elif "NoWorker" in name or "NoValidWorker" in name:
        what = "the scheduler has no worker for it"
    else:
        return
    raise InterruptedRunError(f"{label}: {what}; run again, it resumes") from error


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
