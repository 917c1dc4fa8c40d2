"""Where the work runs: Dask's own scheduler of the moment, a local cluster, an address, Kubernetes, a batch queue.

From Python nothing is started: the current `distributed.Client` is used when there is one, else Dask's threads (or
whatever `dask.config` says); `connect` gives such a client. The command line opens a `session`, whose cluster starts
when the first work comes.
"""

from filterdb.cluster.memory import PROCESS_BYTES, Memory, peak_memory
from filterdb.cluster.places import connect
from filterdb.cluster.session import Session, current_client, session
from filterdb.cluster.tasks import raise_resumable, run, task

__all__ = [
    "PROCESS_BYTES",
    "Memory",
    "Session",
    "connect",
    "current_client",
    "peak_memory",
    "raise_resumable",
    "run",
    "session",
    "task",
]
