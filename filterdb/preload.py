"""Import filterdb and set up its log in schedulers and workers, before anything else (`preload` in dask.yaml)."""

from __future__ import annotations

import logging

from distributed import Scheduler, Worker

from filterdb import logs


def dask_setup(server: Scheduler | Worker) -> None:
    """Set up the log. Dask calls this when a scheduler or worker starts."""
    del server
    logs.setup()
    if any(handler.level >= logging.CRITICAL for handler in logging.getLogger("distributed").handlers):
        # The command has silenced Dask (`silence_logs`). Also silence what a worker's end cuts off (heartbeats).
        for name in ("asyncio", "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
