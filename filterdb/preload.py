"""What schedulers and workers do before anything else (`preload` in dask.yaml): import filterdb, set up its log."""

from __future__ import annotations

import logging

from distributed import Scheduler, Worker

from filterdb import logs


def dask_setup(server: Scheduler | Worker) -> None:
    """Called by Dask when it starts."""
    del server
    logs.setup()
    if logging.getLogger("distributed").level >= logging.CRITICAL:
        # Where the command has silenced Dask, what its callbacks fail with while a worker ends is nobody's news either.
        logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
