"""Check that all processes have software that fits: they exchange pickled code, and results depend on libraries."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from distributed import Client
from distributed.versions import get_versions

from filterdb.errors import UsageError
from filterdb.version import __version__

log = logging.getLogger(__name__)


class Rule(NamedTuple):
    """How close two versions of a package have to be. What differs beyond that is only a warning."""

    parts: int | None
    """Leading parts of the version that must be equal; None: all of it."""

    effect: str = ""
    """What a smaller difference may change; empty: nothing."""

    is_optional: bool = False
    """Whether a process may lack the package."""


RULES = {
    # Functions that tasks name by value travel as bytecode, which only one minor version of Python runs.
    "python": Rule(2),
    # A graph is a pickle of Dask's own classes, and distributed's messages have no version number: both change with
    # any release, and Dask promises nothing for mixed ones.
    "dask": Rule(None),
    "distributed": Rule(None),
    # Tasks name our functions, so both ends would run different code and write different results.
    "filterdb": Rule(None),
    # The format of messages is fixed; the defaults of reading it changed with 1.0 and may change with a major version.
    "msgpack": Rule(1),
    # A pickle names functions of cloudpickle, which it keeps within a major version.
    "cloudpickle": Rule(1),
    # NumPy 2 renamed the modules that pickled arrays name. Smaller steps may sum in another order, as other CPUs do.
    "numpy": Rule(1, "the last bits of results may differ"),
    # Both sides write chunks and metadata of one database.
    "zarr": Rule(1),
    # Both sides read models.
    "onnx": Rule(1),
    # Tasks hold no xarray objects; only those of a user's own lazy arrays do.
    "xarray": Rule(0),
    # Without it the same loops run uncompiled; another version compiles them to other instructions.
    "numba": Rule(0, "speed and the last bits of results may differ", is_optional=True),
}
"""What matters of each package, and why."""

SCHEDULER = ("python", "dask", "distributed", "msgpack", "cloudpickle", "filterdb", "numpy")
"""What is compared between scheduler and client. The scheduler unpickles graphs, which name functions of filterdb."""

WORKERS = tuple(RULES)
"""What is compared between workers and client."""

_checked: WeakKeyDictionary[Client, set[str]] = WeakKeyDictionary()
"""Addresses of the workers whose versions fit, by client."""

_warned: WeakKeyDictionary[Client, set[str]] = WeakKeyDictionary()
"""Differences of workers that were reported, by client."""


def check_scheduler(client: Client, where: str) -> None:
    """Raise UsageError if the scheduler's versions do not fit this process; warn of other differences."""
    there = _versions(client.sync(client.scheduler.versions, packages=list(SCHEDULER)))
    if harmless := _compare(f"scheduler {where}", _here(SCHEDULER), there, SCHEDULER):
        log.warning("scheduler %s: %s", where, harmless)


def check_workers(client: Client) -> None:
    """Raise UsageError if the versions of a worker that was not checked before do not fit this process."""
    seen = _checked.setdefault(client, set())
    new = sorted(set(client.scheduler_info(n_workers=-1)["workers"]) - seen)
    if not new:
        return
    message = {"op": "versions", "packages": list(WORKERS)}
    answers = client.sync(client.scheduler.broadcast, msg=message, workers=new, on_error="ignore")
    here, warned = _here(WORKERS), _warned.setdefault(client, set())
    for address in sorted(answers):
        harmless = _compare(f"worker {address}", here, _versions(answers[address]), WORKERS)
        if harmless and harmless not in warned:  # workers of one image differ alike
            log.warning("worker %s: %s", address, harmless)
            warned.add(harmless)
        seen.add(address)


def _here(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the versions in this process."""
    # The metadata of an editable install has the version at the time of the installation.
    return _versions(get_versions(packages=list(packages))) | {"filterdb": __version__}


def _versions(answer: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the versions by package that a process of Dask answers; Python's as 3.12.1."""
    python = ".".join(str(answer["host"]["python"]).split(".")[:3])
    return {**answer["packages"], "python": python}


def _compare(
    who: str, here: Mapping[str, str | None], there: Mapping[str, str | None], packages: Iterable[str]
) -> str | None:
    """Return a line about harmless differences, or None. Raises UsageError for one that matters."""
    different = [name for name in packages if here.get(name) != there.get(name)]
    different = [name for name in different if name != "python" or not _fits(name, here[name], there[name])]
    if not different:
        return None
    installation = _installation(different, there)
    for name in different:
        mine, other = here.get(name), there.get(name)
        if not _fits(name, mine, other):
            raise UsageError(
                f"{who}: expected {name} {_shown(name, mine)} as on this client, got {_shown(name, other)}; "
                f"use one image or environment everywhere{installation and f', or here: {installation}'}"
            )
    pairs = ", ".join(f"{name} {there.get(name) or 'none'} (here {here.get(name) or 'none'})" for name in different)
    effects = "; ".join(dict.fromkeys(RULES[name].effect for name in different if RULES[name].effect))
    return f"{pairs}; {effects or 'no effect is known'}{installation and f'; to match: {installation}'}"


def _fits(name: str, mine: str | None, other: str | None) -> bool:
    """Return whether two versions of a package work together."""
    rule = RULES[name]
    if mine is None or other is None:
        return rule.is_optional or mine == other
    return mine.split(".")[: rule.parts] == other.split(".")[: rule.parts]


def _shown(name: str, version: str | None) -> str:
    """Return as much of a version as has to be equal."""
    return "none" if version is None else ".".join(version.split(".")[: RULES[name].parts or None])


def _installation(different: Iterable[str], there: Mapping[str, str | None]) -> str:
    """Return how to make this client like the other process; "" if that lacks the packages."""
    steps = [f"Python {_shown('python', there['python'])}"] if "python" in different else []
    pins = [f"'{name}=={there[name]}'" for name in different if name != "python" and there.get(name)]
    return ", ".join(steps + ([f"pip install {' '.join(pins)}"] if pins else []))
