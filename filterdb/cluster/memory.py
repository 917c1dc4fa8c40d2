"""Memory of the processes that work: what they need, what they may have, what they took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from distributed import Client

from filterdb.cluster.session import current_client
from filterdb.errors import UsageError

PROCESS_BYTES = 384 * 2**20
"""What a worker holds before it has anything to do: Python, Dask, Zarr, Numba's compiled loops."""


class Memory(NamedTuple):
    """Bytes that work takes of a worker: of each thread, and once for the whole."""

    per_thread: int = 0
    once: int = 0

    @classmethod
    def most(cls, needs: Iterable[Memory]) -> Memory:
        """The largest of several pieces of work that follow one another."""
        every = [cls(), *needs]
        return cls(max(need.per_thread for need in every), max(need.once for need in every))


def check_memory(client: Client, memory: Memory) -> None:
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
        line = next(line for line in status.read_text("utf-8", "replace").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
