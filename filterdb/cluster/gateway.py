"""Connect to a cluster of a Dask Gateway, or start one there."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from filterdb.cluster import settings
from filterdb.cluster.starting import load_extra, start_cluster
from filterdb.errors import StoreError, UsageError

PAUSE_SECONDS = 0.5
"""Pause between two questions whether a new cluster runs."""

_kept: list[Any] = []
"""Every client of a gateway. Garbage collection of one (dask-gateway 2026.3) closes it again, which raises an exception
where its loop has stopped, and never ends where the collector runs in the thread of that loop."""


def open_cluster(target: str, workers: int | None) -> Any:
    """Return a cluster of a gateway; one that is started here ends when it is closed.

    `target` is "" (a new cluster), "NAME" (a running one), "URL" or "URL#NAME". Without a URL the gateway is that of
    Dask's configuration (`gateway.address`). A new cluster gets `workers`, or one; a running one is scaled if asked.
    """
    where = f"gateway:{target}"
    address, name = _parse(target)
    gateway_type = load_extra("dask_gateway", "Gateway", "gateway")
    try:
        gateway = start_cluster(lambda: gateway_type(address), where)
    except StoreError as error:
        if address is not None:
            raise
        raise UsageError(
            f"{where}: expected the gateway's address in Dask's configuration (gateway.address) or as gateway:URL "
            f"({error.__cause__})"
        ) from error
    _kept.append(gateway)
    with gateway:
        cluster = start_cluster(lambda: _start(gateway, name, workers), where)
    _kept.append(cluster.gateway)
    return cluster


def _parse(target: str) -> tuple[str | None, str | None]:
    """Return the address of the gateway and the name of the running cluster, each None if there is none."""
    if "://" not in target:
        return None, target or None
    address, _, name = target.partition("#")
    url = urlsplit(address)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise UsageError(f"gateway:{target}: expected http:// or https:// and a host, or the name of a cluster")
    if url.username is not None:
        raise UsageError(
            f"gateway:{url.hostname}: expected no password in the address; Dask's configuration (gateway.auth) takes it"
        )
    return address, name or None


def _start(gateway: Any, name: str | None, workers: int | None) -> Any:
    """Return the running cluster, or a new one that runs; remove a new one that does not start."""
    if name is not None:
        _wait_until_running(gateway, name)
        cluster = gateway.connect(name)
        if workers is not None:
            try:
                cluster.scale(workers)
            except BaseException:
                cluster.close()
                raise
        return cluster
    name = gateway.submit()
    try:
        _wait_until_running(gateway, name)
        cluster = gateway.connect(name, shutdown_on_close=True)
        cluster.scale(1 if workers is None else workers)
    except BaseException:
        with suppress(Exception):
            gateway.stop_cluster(name)
        raise
    return cluster


def _wait_until_running(gateway: Any, name: str) -> None:
    """Wait for the scheduler of a cluster; dask-gateway itself would wait for ever."""
    seconds = settings.seconds("filterdb.start-timeout")
    end = time.monotonic() + seconds
    while (report := gateway.get_cluster(name)).status.name != "RUNNING":
        if report.status.name != "PENDING":
            raise RuntimeError(f"cluster {name} is {report.status.name.lower()}, expected it to run")
        if time.monotonic() > end:
            raise TimeoutError(f"cluster {name} is still pending after {seconds:.0f} s")
        time.sleep(PAUSE_SECONDS)
    if report.security is None:
        raise RuntimeError(f"expected the certificates of cluster {name} from the gateway, got none")
