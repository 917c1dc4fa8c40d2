"""Tasks in threads of this process: the results of Dask, in order; merges before reads; the first error is raised."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from typing import Any

import dask
import hypothesis.strategies as st
import pytest
from hypothesis import given

from filterdb import cluster
from filterdb.cluster import threads
from filterdb.cluster.session import Session, session

pytestmark = pytest.mark.slow


def joined(name: str, *inputs: Any) -> str:
    """Stand for a task and all before it, in a text that does not grow with them."""
    return hashlib.sha256(repr((name, inputs)).encode()).hexdigest()


@st.composite
def graphs(draw: st.DrawFn) -> list[cluster.Task]:
    """Up to twenty tasks, each of which works on some of those before it, alone or in lists."""
    tasks: list[cluster.Task] = []
    for i in range(draw(st.integers(1, 20))):
        inputs = draw(st.lists(st.sampled_from(tasks) | st.lists(st.sampled_from(tasks)))) if tasks else []
        tasks.append(cluster.task(f"task-{i}", partial(joined, str(i)), *inputs))
    return draw(st.lists(st.sampled_from(tasks), min_size=1))


@given(graphs(), st.integers(1, 3))
def test_results_are_those_of_dask(tasks: list[cluster.Task], number: int) -> None:
    done: list[int] = []
    results = threads.compute(tasks, number, lambda: done.append(1))
    assert results == list(dask.compute(*tasks, scheduler="synchronous"))
    assert len(done) == threads.number_of_tasks(tasks)


def test_parts_are_merged_before_more_are_read() -> None:
    """With one thread, a merge runs as soon as its parts are there."""
    order: list[str] = []

    def work(name: str, *_: Any) -> None:
        order.append(name)

    reads = [cluster.task(f"read-{i}", partial(work, f"read-{i}")) for i in range(4)]
    merges = [cluster.task(f"merge-{i}", partial(work, f"merge-{i}"), reads[2 * i : 2 * i + 2]) for i in range(2)]
    threads.compute([cluster.task("whole", partial(work, "whole"), merges)], 1)
    assert order == ["read-0", "read-1", "merge-0", "read-2", "read-3", "merge-1", "whole"]


def test_an_error_is_raised_and_nothing_further_starts() -> None:
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        return 1 // (3 - number)

    tasks = [cluster.task(f"task-{i}", partial(work, i)) for i in range(9)]
    with pytest.raises(ZeroDivisionError):
        threads.compute(tasks, 1)
    assert started == [0, 1, 2, 3]


def test_a_session_of_threads_computes_in_them() -> None:
    tasks = [cluster.task(f"task-{i}", lambda: threading.current_thread().name) for i in range(8)]
    with session(Session(threads=2)):
        names = set(cluster.run(tasks, "test"))
    assert all(name.startswith("filterdb") for name in names) and len(names) <= 2
