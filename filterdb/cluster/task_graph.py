"""A task: work on the results of other tasks. Dask computes it, or threads of this process (see `threads`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from filterdb.errors import portable


class Task:
    """A task named `key` that calls `work` with `inputs`: tasks, whose results it gets, or lists of them.

    It is a Dask collection too, which becomes Dask's own when Dask first looks at it.
    """

    def __init__(self, key: str, work: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.key = key
        self.work = partial(_run_task, work)
        self.inputs = inputs

    @cached_property
    def delayed(self) -> Any:
        """The task as `dask.delayed`."""
        import dask  # takes 0.3 s, which commands save that work in threads

        inputs = [_delayed(value) for value in self.inputs]
        return dask.delayed(self.work, name=f"{self.key}-work", traverse=False)(*inputs, dask_key_name=self.key)

    def __getattr__(self, name: str) -> Any:
        """Return what Dask asks of a collection."""
        if name.startswith(("__dask_", "dask")):
            return getattr(self.delayed, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _delayed(value: Any) -> Any:
    """Return an input of a task as Dask takes it."""
    if isinstance(value, Task):
        return value.delayed
    return [_delayed(item) for item in value] if isinstance(value, list) else value


def task(key: str, work: Callable[..., Any], *inputs: Any) -> Any:
    """Return a task named `key` that calls `work` with the results of the tasks `inputs`.

    `work` should be a partial that holds everything else it needs: Dask does not look into a partial, but it searches
    and rebuilds every dataclass among arguments, which takes a millisecond each time.
    """
    return Task(key, work, inputs)


def _run_task(work: Callable[..., Any], *inputs: Any) -> Any:
    """Run a task's work; make its exceptions fit to be sent to another process."""
    try:
        return work(*inputs)
    except Exception as error:
        portable(error)
        raise
