"""Where the work runs: Dask's current scheduler, a local cluster, a running scheduler, Kubernetes, a gateway, a queue.

In Python filterdb starts nothing by itself. It uses the current `distributed.Client` if there is one, otherwise Dask's
threads or what `dask.config` names; `connect` returns such a client. The command line opens a `session`, which starts
its cluster when there is enough work to pay for it.
"""

from typing import TYPE_CHECKING, Any

from filterdb.cluster.memory import PROCESS_BYTES, Memory, peak_memory, total_memory
from filterdb.cluster.progress import Tally
from filterdb.cluster.session import Session, Work, current_client, session
from filterdb.cluster.task_graph import Task, task
from filterdb.cluster.tasks import raise_resumable, run, tally
from filterdb.extras import named_extras

if TYPE_CHECKING:
    from filterdb.cluster.places import connect

__all__ = [
    "PROCESS_BYTES",
    "Memory",
    "Session",
    "Tally",
    "Task",
    "Work",
    "connect",
    "current_client",
    "peak_memory",
    "raise_resumable",
    "run",
    "session",
    "tally",
    "task",
    "total_memory",
]


def __getattr__(name: str) -> Any:
    if name == "connect":
        with named_extras():
            from filterdb.cluster import places  # imports Dask's scheduler, which takes a second

        return places.connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
