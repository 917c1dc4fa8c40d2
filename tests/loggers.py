"""Restore the loggers that commands, clusters and schedulers in the tests' process set up as their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = (
    *("filterdb", "asyncio", "tornado", "tornado.application"),
    *("distributed", "distributed.client", "distributed.comm", "distributed.worker"),
)


@contextmanager
def restored() -> Iterator[None]:
    """Restore handlers, levels and propagation of these loggers at the end."""
    before = [(log, log.handlers[:], log.propagate, log.level) for log in map(logging.getLogger, NAMES)]
    try:
        yield
    finally:
        for log, handlers, propagate, level in before:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
