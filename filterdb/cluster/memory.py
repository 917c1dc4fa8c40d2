"""Memory of client and workers: what they need, what they may have, what they have used."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filterdb.cluster.session import current_client
from filterdb.errors import UsageError
from filterdb.wording import counted

if TYPE_CHECKING:
    from distributed import Client

PROCESS_BYTES = 384 * 2**20
"""Memory of a worker that has nothing to do: Python, Dask, Zarr, Numba's compiled loops."""

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the limit of a container."""


class Memory(NamedTuple):
    """Bytes that work needs on a worker: for each thread, and once for all of them."""

    per_thread: int = 0
    once: int = 0

    @classmethod
    def most(cls, needs: Iterable[Memory]) -> Memory:
        """Return the largest need of several pieces of work that follow one another."""
        needs = [cls(), *needs]
        return cls(max(need.per_thread for need in needs), max(need.once for need in needs))


def check_memory(client: Client, memory: Memory) -> None:
    """Raise UsageError if a worker's memory limit is too low: Dask's nanny would kill it at 95 % of the limit."""
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        limit, threads = worker["memory_limit"], worker["nthreads"]
        need = PROCESS_BYTES + threads * memory.per_thread + memory.once
        if limit and need > limit:
            raise UsageError(
                f"worker {address}: expected a memory limit of {need / 2**20:,.0f} MiB or more for "
                f"{counted(threads, 'thread')}, got {limit / 2**20:,.0f} MiB; start it with more memory or fewer "
                "threads"
            )


def total_memory() -> int:
    """Return the bytes of memory of this machine or, in a container, of its limit."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _CGROUP_LIMITS):
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            limits.append(int(path.read_text()))
    return min(limits)


def peak_memory() -> dict[str, int]:
    """Return the largest resident size so far of "client" and of each worker, by address, in bytes."""
    client = current_client()
    peaks = {"client": _peak()}
    if client is not None:
        peaks |= client.run(_peak)
    return peaks


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent's size at the fork
        line = next(line for line in status.read_text("utf-8", "replace").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
