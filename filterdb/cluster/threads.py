"""Run tasks in threads of this process, without Dask, whose import takes longer than a small command's work."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from filterdb.cluster.task_graph import Task


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def number_of_tasks(tasks: Sequence[Task]) -> int:
    """Return the number of tasks, with all that they depend on."""
    return len(_Plan(tasks).order)


def compute(tasks: Sequence[Task], threads: int, advance: Callable[[], None] | None = None) -> list[Any]:
    """Return the results of tasks in order; call `advance` whenever one of them, or one they depend on, is done.

    The first error is raised at once, while tasks that have started end in the background. A result is dropped after
    the last task that needs it.
    """
    plan = _Plan(tasks)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="filterdb")
    running: dict[Future[Any], int] = {}
    try:
        while plan.ready or running:
            while plan.ready and len(running) < threads:
                # The earliest in depth-first order, so that merges come before further reads and parts do not pile up.
                position = heapq.heappop(plan.ready)
                running[pool.submit(plan.order[position].work, *plan.inputs(position))] = position
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                plan.finish(running.pop(future), future.result())
                if advance is not None:
                    advance()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return [plan.results[plan.positions[id(task)]] for task in tasks]


class _Plan:
    """The order of tasks and all that they depend on, which are ready, and the results that are still needed."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.order: list[Task] = []
        self.positions: dict[int, int] = {}
        self.results: dict[int, Any] = {}
        for task in tasks:
            self._add(task)
        self._needed_by: list[list[int]] = [[] for _ in self.order]
        self._missing = [0] * len(self.order)
        for position, task in enumerate(self.order):
            needed = {self.positions[id(other)] for other in _dependencies(task)}
            self._missing[position] = len(needed)
            for other in needed:
                self._needed_by[other].append(position)
        self._users = [len(users) for users in self._needed_by]
        for task in tasks:
            self._users[self.positions[id(task)]] += 1  # the caller
        self.ready = [position for position, missing in enumerate(self._missing) if not missing]

    def _add(self, task: Task) -> None:
        """Add a task after all that it depends on."""
        if id(task) not in self.positions:
            for other in _dependencies(task):
                self._add(other)
            self.positions[id(task)] = len(self.order)
            self.order.append(task)

    def inputs(self, position: int) -> list[Any]:
        """Return the results that a task works on."""
        return [self._filled(value) for value in self.order[position].inputs]

    def _filled(self, value: Any) -> Any:
        if isinstance(value, Task):
            return self.results[self.positions[id(value)]]
        return [self._filled(item) for item in value] if isinstance(value, list) else value

    def finish(self, position: int, result: Any) -> None:
        """Store the result of a task, drop those that only it needed, and note which tasks are ready."""
        self.results[position] = result
        for other in {self.positions[id(task)] for task in _dependencies(self.order[position])}:
            self._users[other] -= 1
            if not self._users[other]:
                del self.results[other]
        for user in self._needed_by[position]:
            self._missing[user] -= 1
            if not self._missing[user]:
                heapq.heappush(self.ready, user)


def _dependencies(task: Task) -> Iterator[Task]:
    """Yield the tasks whose results a task works on."""
    values = list(reversed(task.inputs))
    while values:
        value = values.pop()
        if isinstance(value, Task):
            yield value
        elif isinstance(value, list):
            values.extend(reversed(value))
