"""What a worker does before its first task (`distributed.worker.preload` in dask.yaml): it sets up its log."""

from __future__ import annotations

from distributed import Worker

from filterdb import logs


def dask_setup(worker: Worker) -> None:
    """Called by Dask when the worker starts."""
    del worker
    logs.setup()
