"""What schedulers and workers do before anything else (`preload` in dask.yaml): import filterdb, set up its log."""

from __future__ import annotations

from distributed import Scheduler, Worker

from filterdb import logs


def dask_setup(server: Scheduler | Worker) -> None:
    """Called by Dask when it starts."""
    del server
    logs.setup()
