"""Import filterdb and set up its log in schedulers and workers, before anything else (`preload` in dask.yaml)."""

from __future__ import annotations

import logging

from distributed import Scheduler, Worker

from filterdb import logs


def dask_setup(server: Scheduler | Worker) -> None:
    """Set up the log. Dask calls this when a scheduler or worker starts."""
    del server
    logs.setup()
    if logging.getLogger("distributed").level >= logging.CRITICAL:
        # The command has silenced Dask: silence errors of its callbacks while a worker ends, too.
        logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
