"""The same software everywhere: what travels between processes is pickled code, and numbers depend on libraries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client
from distributed.versions import get_versions

from filterdb.errors import UsageError
from filterdb.version import __version__

SCHEDULER = ("dask", "distributed", "msgpack", "cloudpickle")
"""What a scheduler must have in the client's version; pickled work passes it unread."""

WORKERS = (*SCHEDULER, "filterdb", "numpy", "numba", "zarr", "xarray", "onnx")
"""What workers must have as well."""

_checked: WeakKeyDictionary[Client, set[str]] = WeakKeyDictionary()
"""Workers that fitted, by client."""


def check_scheduler(client: Client, where: str) -> None:
    """Raise UsageError where the scheduler's versions are not those of this process."""
    _compare("scheduler", where, _here(SCHEDULER), client.sync(client.scheduler.versions, packages=[]), SCHEDULER)


def check_workers(client: Client) -> None:
    """Raise UsageError where a worker that has not been looked at yet has other versions than this process."""
    seen = _checked.setdefault(client, set())
    new = sorted(set(client.scheduler_info(n_workers=-1)["workers"]) - seen)
    if not new:
        return
    message = {"op": "versions", "packages": list(WORKERS)}
    answers = client.sync(client.scheduler.broadcast, msg=message, workers=new, on_error="ignore")
    here = _here(WORKERS)
    for address in sorted(answers):
        _compare("worker", address, here, answers[address], WORKERS)
        seen.add(address)


def _here(packages: Iterable[str]) -> Mapping[str, Any]:
    found = get_versions(packages=list(packages))
    # An editable install's metadata is as old as its installation.
    return {**found, "packages": {**found["packages"], "filterdb": __version__}}


def _compare(what: str, where: str, here: Mapping[str, Any], there: Mapping[str, Any], packages: Iterable[str]) -> None:
    pairs = [("python", _minor(here), _minor(there))]
    pairs += [(name, here["packages"].get(name), there["packages"].get(name)) for name in packages]
    for name, mine, other in pairs:
        if mine != other:
            raise UsageError(
                f"{what} {where}: expected {name} {mine} as on this client, got {other or 'none'}; "
                "use the same image or environment for client, scheduler and workers"
            )


def _minor(versions: Mapping[str, Any]) -> str:
    """3.12 of 3.12.1.final.0: pickled code fits within a minor version."""
    return ".".join(str(versions["host"]["python"]).split(".")[:2])
