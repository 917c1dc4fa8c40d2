"""Start the workers of a command as forks of one process that has imported what they need.

A worker that is started as a process of its own spends 2 to 3 s of CPU time on imports; a fork takes 0.1 s. The *fork
server* is Python's (`multiprocessing`, start method "forkserver"): it starts with the first worker and ends with this
process. Forks have its environment, not this process's: in Python a user may set credentials between two clusters, so
that only commands use it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile

import dask
from distributed.utils import get_mp_context

PRELOADED = (
    "distributed.nanny",
    "filterdb.preload",
    "filterdb.ingestion.run",
    "filterdb.reduce.passes",
    "filterdb.reduce.joint_densities",
    "numba",
)
"""Modules that the fork server imports: Dask's worker, the tasks of an ingest and of every pass, Numba."""

SETTING = "distributed.worker.multiprocessing-method"
"""Dask's setting of how a local worker starts."""


LONGEST_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
"""Most bytes in the name of the folder for temporary files, where the server listens: a socket's name has 107."""


def use() -> None:
    """Start local workers of this process as forks, unless Dask's configuration says how they start.

    Only on Linux, since elsewhere system libraries may not be used after a fork, and only where the name of its socket
    is short enough.
    """
    if sys.platform != "linux" or len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        return
    if dask.config.get(SETTING, config=dask.config.collect(), default=None) is not None:
        return
    dask.config.set({SETTING: "forkserver"})
    get_mp_context()  # sets Dask's own list of modules, once in a process
    multiprocessing.set_forkserver_preload(list(PRELOADED))
