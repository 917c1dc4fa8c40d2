"""Every exception of ours crosses process boundaries: by pickle, and out of a worker process of a real cluster."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from aiohttp import ClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from distributed import Client, LocalCluster

import filterdb
from filterdb import cluster, errors
from filterdb.errors import FilterDBError
from filterdb.models.hdf5_parts import RefusedPartError
from filterdb.models.parse_errors import NotStoredError
from filterdb.store.files import Files
from filterdb.store.http import StatusError
from filterdb.store.remote import store_errors
from filterdb.store.segment import Segment

SECONDS = 120.0
"""How long a worker may take to hand back an error before it counts as hanging."""


def our_exceptions() -> list[type[BaseException]]:
    """Every exception class that the package defines."""
    for module in pkgutil.walk_packages(filterdb.__path__, "filterdb."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes, waiting = set(), [BaseException]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.split(".")[0] == "filterdb":
            classes.add(kind)
    return sorted(classes, key=lambda kind: kind.__name__)


ARGUMENTS: dict[type[BaseException], tuple[Any, ...]] = {
    NotStoredError: ("shape", "db/chunk 3: reason"),
    RefusedPartError: ("an array", "a link"),
    StatusError: (503, "https://host/m.onnx", " for db/chunk 3"),
}
"""What the exceptions are made of that take more than a text."""


def example(kind: type[BaseException]) -> BaseException:
    return kind(*ARGUMENTS.get(kind, ("db/chunk 3: reason",)))


def raise_with_cause(kind: type[BaseException], cause: Callable[[], BaseException]) -> None:
    error = example(kind)
    error.add_note("a note")
    raise error from cause()


def refused() -> BaseException:
    """What an HTTPS store that is down raises: it holds an SSL context, which cannot be pickled."""
    key = ConnectionKey("store.example", 443, True, ssl.create_default_context(), None, None, None)
    return ClientConnectorError(key, ConnectionRefusedError(111, "refused"))


def plain() -> BaseException:
    return KeyError("cause")


SAID = {plain: "cause", refused: "Cannot connect to host store.example:443"}
"""What their texts say."""


def chain_of(error: BaseException) -> list[BaseException]:
    """The exception and all behind it; fails on a cycle."""

    def walk(current: BaseException, above: list[BaseException]) -> list[BaseException]:
        assert not any(current is other for other in above), f"{current!r} is behind itself"
        nested = [other for other in (current.__cause__, current.__context__) if other is not None]
        return [current, *(error for other in nested for error in walk(other, [*above, current]))]

    return walk(error, [])


@pytest.fixture(scope="module")
def worker() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as processes,
        Client(processes, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.parametrize("kind", our_exceptions(), ids=lambda kind: kind.__name__)
def test_pickle_keeps_everything(kind: type[BaseException]) -> None:
    with pytest.raises(kind) as info:
        raise_with_cause(kind, plain)
    copy = pickle.loads(pickle.dumps(info.value))
    assert type(copy) is kind
    assert (str(copy), copy.args, copy.__notes__) == (str(info.value), info.value.args, ["a note"])
    if issubclass(kind, FilterDBError):
        assert copy.exit_code == kind.exit_code  # type: ignore[attr-defined]
        assert repr(copy.__cause__) == "KeyError('cause')"
        assert copy.__suppress_context__


@pytest.mark.parametrize("cause", [plain, refused])
@pytest.mark.parametrize("kind", our_exceptions(), ids=lambda kind: kind.__name__)
def test_out_of_a_worker_process(kind: type[BaseException], cause: Callable[[], BaseException], worker: Client) -> None:
    failing = cluster.task(f"fail-{kind.__name__}-{cause.__name__}", partial(raise_with_cause, kind, cause))
    error = worker.compute(failing).exception(timeout=SECONDS)
    assert type(error) is kind
    assert (str(error), error.__notes__) == (str(example(kind)), ["a note"])
    assert getattr(error, "exit_code", None) == getattr(kind, "exit_code", None)
    assert SAID[cause] in str(chain_of(error)[1])


def raise_cycle(length: int) -> None:
    """Raise an exception that is its own cause, or the cause of its cause, …"""
    ring: list[Exception] = [errors.DamageError("db/chunk 3: reason"), *(KeyError(i) for i in range(length - 1))]
    for error, cause in zip(ring, [*ring[1:], ring[0]], strict=True):
        error.__cause__ = cause
    raise ring[0]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cycle_of_causes_is_cut(length: int, worker: Client) -> None:
    """distributed follows causes for ever, in the worker: the command would never end."""
    error = worker.compute(cluster.task(f"cycle-{length}", partial(raise_cycle, length))).exception(timeout=SECONDS)
    assert str(error) == "db/chunk 3: reason"
    assert [type(other) for other in chain_of(error)[1:]] == [KeyError] * (length - 1)


@pytest.mark.parametrize("action", ["reading", "writing", "listing"])
@pytest.mark.parametrize("kind", our_exceptions(), ids=lambda kind: kind.__name__)
def test_no_error_is_its_own_cause(kind: type[BaseException], action: str) -> None:
    """However often `store_errors` and `damage` stand around a failure."""
    segment = Segment(Files.at("/nowhere"), "x" * 20, 10, 10)

    def fail() -> None:
        with segment.damage("filters", 3), store_errors(action, "outer"), store_errors(action, "inner"):
            raise example(kind)

    with pytest.raises(Exception, match="chunk 3") as info:
        fail()
    chain_of(info.value)
    if issubclass(kind, errors.StoreError) and kind is not errors.StoreMissingError:
        assert str(info.value) == str(example(kind))
