"""Run computations one after the other in a thread, while the event loop answers requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any

MOST_WAITING = 64
"""Most computations that run or wait. More requests are told to come again."""


class BusyError(Exception):
    """Too many computations are waiting."""


class Worker:
    """Compute in a thread of its own, in the context of its creator: its session, its Dask client.

    Figures, passes and the children that read models are made one at a time, so memory is bounded and Matplotlib,
    which is not made for threads, has one. Whoever asks for something that is being computed gets the same result.
    """

    def __init__(self) -> None:
        self._context: Context = copy_context()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="filterdb-serve")
        self._pending: dict[Hashable, asyncio.Future[Any]] = {}

    def begin[T](self, key: Hashable, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Return the future result of a call; of the one that runs or waits under this key, if there is one.

        Raises BusyError if too many wait.
        """
        if key in self._pending:
            return self._pending[key]
        if len(self._pending) >= MOST_WAITING:
            raise BusyError
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, self._context.run, function, *arguments)
        self._pending[key] = future
        future.add_done_callback(lambda done: self._forget(key, done))
        return future

    def _forget(self, key: Hashable, future: asyncio.Future[Any]) -> None:
        del self._pending[key]
        if not future.cancelled():
            future.exception()  # it was seen: nobody may be waiting for it any more

    def stop(self) -> None:
        """Start nothing more. What runs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)
