"""Loaded by workers (`distributed.worker.preload`): reads what the test allows, and writes down what is read when.

Every chunk makes two lines of the file $READS, when it is asked for and when it was read: seconds of the machine's
clock, process, which of the two, chunk. While there is a file $ALLOWED, a process reads no more chunks than it says
from its start on, and waits: whatever is done in the meantime is done in the middle of the pass.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from filterdb.store.segment import Segment

Read = Callable[[Segment, int], np.ndarray]


def _note(what: str, chunk: int) -> None:
    with Path(os.environ["READS"]).open("a") as log:
        log.write(f"{time.monotonic()} {os.getpid()} {what} {chunk}\n")


def _allowed() -> float:
    try:
        return float(Path(os.environ["ALLOWED"]).read_text())
    except FileNotFoundError:
        return float("inf")


def _made_slow(read: Read) -> Read:
    numbers = count(1)

    def slow(segment: Segment, chunk: int) -> np.ndarray:
        _note("asked", chunk)
        number = next(numbers)
        while number > _allowed():
            time.sleep(0.05)
        columns = read(segment, chunk)
        _note("read", chunk)
        return columns

    return slow


# In a worker, which may load this twice; a test that imports it for its path is left alone.
if "READS" in os.environ and Segment.read_columns.__name__ != "slow":
    Segment.read_columns = _made_slow(Segment.read_columns)  # type: ignore[assignment, method-assign]
