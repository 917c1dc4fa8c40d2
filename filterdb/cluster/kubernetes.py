"""Connect to a DaskCluster of the Dask operator, or start the one that a manifest describes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import yaml
from distributed.deploy import Cluster

from filterdb.cluster import settings
from filterdb.cluster.starting import innermost_reason, load_extra, start_cluster
from filterdb.errors import InputError, StoreError, UsageError

API_SECONDS = 30
"""How long Kubernetes' API may take to answer whether there is a cluster."""

CLOSE_SECONDS = 300
"""How long a cluster may take to end."""

ENCRYPTION = "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"


def open_cluster(name: str, workers: int | None) -> Cluster:
    """Return the DaskCluster `name` of the current namespace, or the one of the manifest `name`, started if need be.

    Raises UsageError for a cluster that speaks TLS: dask-kubernetes 2026.3 calls every scheduler by tcp://, and calls
    again for ever.
    """
    where = f"kubernetes:{name}"
    manifest = read_manifest(Path(name)) if name.endswith((".yaml", ".yml")) else None
    cluster_type = load_extra("dask_kubernetes.operator", "KubeCluster", "kubernetes")
    namespace = dask.config.get("kubernetes.namespace", None)
    if manifest is not None:
        _reject_tls(where, manifest)
        name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace", namespace)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        raise UsageError(f"{where}: expected the name of a DaskCluster or of a .yaml file, got {name!r}")
    namespace, existing = _find(where, name, namespace)
    if existing is not None:
        _reject_tls(where, existing)
    elif manifest is None:
        raise StoreError(
            f"{where}: expected a DaskCluster {name} in namespace {namespace}, found none; "
            f"`kubectl get daskclusters --namespace {namespace}` lists those that run"
        )
    options = {"name": name, "namespace": namespace, "quiet": True}  # else it draws on stdout
    bounded = _bounded(cluster_type)
    if manifest is None:
        cluster = start_cluster(lambda: bounded.from_name(**options), where)
    else:
        cluster = start_cluster(lambda: bounded(custom_cluster_spec=manifest, **options), where)
    if workers is not None:
        try:
            start_cluster(lambda: cluster.scale(workers), where)
        except BaseException:
            cluster.close()
            raise
    return cluster


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the DaskCluster in a YAML file. Raises InputError if it is not one with a name."""
    try:
        spec = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected a DaskCluster manifest in YAML, cannot read it ({error})") from error
    match spec:
        case {"kind": "DaskCluster", "metadata": {"name": str()}}:
            return dict(spec)
        case {"kind": kind}:
            got = f"kind {kind!r}" + (" without one" if kind == "DaskCluster" else "")
        case _:
            got = type(spec).__name__
    raise InputError(f"{path}: expected one DaskCluster with a name, got {got}")


def _reject_tls(where: str, cluster: Mapping[str, Any]) -> None:
    """Raise UsageError if the scheduler of a DaskCluster is started with TLS."""
    match cluster:
        case {"spec": {"scheduler": {"spec": {"containers": [*containers]}}}}:
            pass
        case _:
            containers = []
    for container in containers:
        words = " ".join(str(word) for part in ("command", "args") for word in container.get(part) or [])
        encrypted = any(
            variable.get("name") == ENCRYPTION and str(variable.get("value")).lower() in {"true", "1"}
            for variable in container.get("env") or []
        )
        if encrypted or re.search(r"--protocol[= ]tls\b|\btls://|--tls-", words):
            raise UsageError(
                f"{where}: expected a cluster without TLS, got one with it; run deploy/open-session, "
                "which prints what to use: --scheduler tls://127.0.0.1:8786 --tls-ca … --tls-cert … --tls-key …"
            )


def _find(where: str, name: str, namespace: str | None) -> tuple[str, dict[str, Any] | None]:
    """Return the namespace and the DaskCluster in it, or None if there is none."""
    # In a thread of its own: a notebook's already runs a loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _ask(where, name, namespace)).result()


async def _ask(where: str, name: str, namespace: str | None) -> tuple[str, dict[str, Any] | None]:
    import kr8s  # dask-kubernetes' own client

    try:
        async with asyncio.timeout(API_SECONDS):
            try:
                api = await kr8s.asyncio.api(namespace=namespace)
            except (ValueError, KeyError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
                raise UsageError(
                    f"{where}: expected a kubeconfig (KUBECONFIG, or ~/.kube/config) that names a cluster, "
                    f"cannot use it ({innermost_reason(error)[:80]}); try `kubectl cluster-info`"
                ) from error
            place, path = str(api.namespace), f"daskclusters/{name}"
            async with api.call_api(
                "GET", version="kubernetes.dask.org/v1", namespace=place, url=path, raise_for_status=False
            ) as response:
                status, text = response.status_code, response.text
                content = response.json() if status == 200 else {}
    except TimeoutError as error:
        raise StoreError(
            f"{where}: expected an answer of Kubernetes' API within {API_SECONDS} s, got none; try `kubectl get pods`"
        ) from error
    except UsageError:
        raise
    except Exception as error:
        raise StoreError(
            f"{where}: expected an answer of Kubernetes' API, got: {innermost_reason(error)[:200]}; "
            "try `kubectl get daskclusters`"
        ) from error
    if status not in {200, 404}:
        raise StoreError(f"{where}: expected a DaskCluster of Kubernetes' API, got {status}: {_message(text)}")
    return place, content or None


def _message(text: str) -> str:
    """Return the message of a Status that the API sent, or the start of anything else."""
    with suppress(yaml.YAMLError):
        match yaml.safe_load(text):  # JSON too
            case {"message": str(message)}:
                text = message
    return " ".join(text.split())[:200]


def _bounded(cluster_type: Any) -> Any:
    """Return a KubeCluster whose waits end: dask-kubernetes itself waits for pods and schedulers for ever."""
    start_seconds = settings.seconds("filterdb.start-timeout")

    class BoundedCluster(cluster_type):
        async def _start(self) -> None:
            try:
                async with asyncio.timeout(start_seconds):
                    await super()._start()
            except BaseException as error:
                steps = self._cluster_manager_logs
                with suppress(Exception):
                    await self._close()
                if isinstance(error, TimeoutError):
                    step = steps[-1][1] if steps else "nothing done"
                    raise TimeoutError(
                        f"not ready after {start_seconds:.0f} s, last step: {step}; does the Dask operator "
                        "run, and the scheduler speak tcp://?"
                    ) from None
                raise

        async def _scale(self, *args: Any, **options: Any) -> None:
            async with asyncio.timeout(API_SECONDS):
                await super()._scale(*args, **options)

        async def _close(self, timeout: float = CLOSE_SECONDS) -> None:
            await super()._close(timeout=min(timeout, CLOSE_SECONDS))

    return BoundedCluster
