"""Load the library of a cluster and start it; turn what either raises into an error of one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from filterdb.errors import FilterDBError, MissingExtraError, StoreError


def load_extra(module: str, name: str, extra: str) -> Any:
    """Import `name` from a module of an optional extra. Raises MissingExtraError without it."""
    try:
        return getattr(__import__(module, fromlist=[name]), name)
    except ImportError as error:
        raise MissingExtraError(f"{extra}: expected {module} here; pip install 'filterdb[{extra}]'") from error


def start_cluster(start: Callable[[], Any], where: str) -> Any:
    """Start a cluster. Its library may raise anything for a missing cluster, command or setting; raise StoreError."""
    try:
        return start()
    except FilterDBError:
        raise
    except Exception as error:
        raise StoreError(
            f"{where}: the cluster did not start or is not there: {innermost_reason(error)[:300]}"
        ) from error


def innermost_reason(error: BaseException) -> str:
    """Return the innermost cause: the message of a socket or of TLS, not the timeout around it or what it cut off."""
    messages = [*reasons(error)]
    cut_off = {"CancelledError", "TimeoutError"}  # without a message of their own
    return next((message for message in reversed(messages) if message not in cut_off), messages[-1])


def reasons(error: BaseException | None) -> Iterator[str]:
    """Yield the message of an error in one line, and those of its causes, the innermost last."""
    while error is not None:
        yield " ".join(str(error).split()) or type(error).__name__
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
