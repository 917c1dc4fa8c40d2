"""Where a command's work runs: started when there is work, ended with the command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from filterdb.cluster.threads import cores
from filterdb.errors import MissingExtraError
from filterdb.terminal import complain

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security


LOCAL_BYTES = 2**34
"""Most bytes of local files for which no workers start: threads of this process read them within some ten seconds."""

REMOTE_BYTES = 2**30
"""The same for remote files, which one process fetches more slowly than several do."""


class Work(NamedTuple):
    """How many bytes a run reads, and whether some of them are remote."""

    nbytes: int
    remote: bool = False

    @property
    def is_short(self) -> bool:
        """Return whether starting workers, which takes two to three seconds of CPU time, would not pay."""
        return self.nbytes <= (REMOTE_BYTES if self.remote else LOCAL_BYTES)


@dataclass(slots=True)
class Session:
    """A scheduler that starts when there is work.

    `scheduler` is `where` of `connect`. If `threads`, `workers` and `scheduler` are None, short work runs in threads of
    this process, one for each core, and longer work in a local cluster of the machine's size.
    """

    threads: int | None = None
    workers: int | None = None
    scheduler: str | None = None
    security: Security | None = None
    debug: bool = False
    quiet: bool = False
    """Print no lines about progress, because a program reads the output."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _started: bool = False

    def threads_for(self, work: Work | None) -> int | None:
        """Return the number of threads of this process that do some work; None if Dask does it."""
        if self.threads is not None or self.workers is not None or self.scheduler is not None:
            return self.threads
        is_short = work is not None and work.is_short and not self._started
        return cores() if is_short or not _has_dask() else None

    @property
    def log_level(self) -> int:
        """Return the log level of the cluster: the command already reports a failed task, once."""
        return logging.INFO if self.debug else logging.CRITICAL

    def start(self) -> None:
        """Start the scheduler or connect to it, unless that was done before."""
        if self._started:
            return
        self._started = True
        if self.threads is not None:
            if sys.modules.get("dask") is not None:  # what else computes on Dask
                import dask

                self._stack.enter_context(dask.config.set(scheduler="threads", num_workers=self.threads))
            return
        if not _has_dask():
            raise MissingExtraError("--workers, --scheduler: clusters need the extra: pip install 'filterdb[cluster]'")
        from filterdb.cluster import fork_server, places  # which imports distributed, which sets the levels of its logs

        for name in ("distributed", "distributed.client", "distributed.comm", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(self.log_level)

        if self.scheduler is None:
            fork_server.use()
        client = places.connect(
            self.scheduler, workers=self.workers, security=self.security, silence_logs=self.log_level
        )
        self._stack.enter_context(client)
        if (link := client.dashboard_link) is not None:  # a gateway's cluster may have none
            complain(f"dashboard: {link}")


def _has_dask() -> bool:
    return find_spec("distributed") is not None


_session: ContextVar[Session | None] = ContextVar("filterdb_session", default=None)


@contextmanager
def session(place: Session) -> Iterator[Session]:
    """Run the work inside the block in `place`, and end what it started with the block."""
    token = _session.set(place)
    try:
        with place._stack:
            yield place
    finally:
        _session.reset(token)


def current_session() -> Session | None:
    """Return the session around the caller, or None."""
    return _session.get()


def current_client() -> Client | None:
    """Return the current `distributed.Client`; None if there is none or `dask.config` names another scheduler."""
    if sys.modules.get("distributed") is None:  # then nobody has made a client
        return None
    import dask
    from distributed import Client

    if dask.config.get("scheduler", None) not in {None, "dask.distributed", "distributed"}:
        return None
    try:
        return Client.current()
    except ValueError:
        return None
