"""Check that all processes have the same software: they exchange pickled code, and results depend on libraries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client
from distributed.versions import get_versions

from filterdb.errors import UsageError
from filterdb.version import __version__

SCHEDULER = ("dask", "distributed", "msgpack", "cloudpickle")
"""Packages whose version must be the same in scheduler and client. A scheduler does not unpickle the work."""

WORKERS = (*SCHEDULER, "filterdb", "numpy", "numba", "zarr", "xarray", "onnx")
"""Packages whose version must be the same in workers and client."""

_checked: WeakKeyDictionary[Client, set[str]] = WeakKeyDictionary()
"""Addresses of the workers with the right versions, by client."""


def check_scheduler(client: Client, where: str) -> None:
    """Raise UsageError if the scheduler's versions differ from those of this process."""
    _compare("scheduler", where, _here(SCHEDULER), client.sync(client.scheduler.versions, packages=[]), SCHEDULER)


def check_workers(client: Client) -> None:
    """Raise UsageError if the versions of a worker that was not checked before differ from those of this process."""
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
    versions = get_versions(packages=list(packages))
    # The metadata of an editable install has the version at the time of the installation.
    return {**versions, "packages": {**versions["packages"], "filterdb": __version__}}


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
    """Return 3.12 for 3.12.1.final.0: pickled code is compatible within a minor version."""
    return ".".join(str(versions["host"]["python"]).split(".")[:2])
