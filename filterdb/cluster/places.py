"""One way to get a client, wherever the work is to run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed
import yaml
from distributed.deploy import Cluster
from distributed.security import Security

from filterdb.cluster import settings
from filterdb.cluster.closed import ClosedCluster, RunCertificates, has_certificates
from filterdb.cluster.versions import check_scheduler
from filterdb.errors import InputError, MissingExtraError, StoreError, UsageError

QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
    "htcondor": "HTCondorCluster",
}
"""Batch systems that dask-jobqueue knows, by the name that `connect` and Dask's configuration have for them."""

SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "inproc")
"""What Dask can speak."""

CONNECT_SECONDS = 10
"""How long a scheduler may take to answer the first call."""

log = logging.getLogger(__name__)


def connect(
    where: str | None = None,
    *,
    workers: int | None = None,
    security: Security | None = None,
    silence_logs: int = logging.WARNING,
) -> Client:
    """A client of a cluster, which filterdb's work then runs on; `with`, or `close()`, ends what this has started.

    `where`
        None or "local": a cluster of processes on this machine. They speak TLS with certificates that only they have,
        so that no other account can run code in them; the dashboard on 127.0.0.1 is readable by all accounts;
        "tls://HOST:PORT", "tcp://HOST:PORT": a scheduler that runs already (tcp:// obeys whoever can reach it);
        "kubernetes:NAME": a DaskCluster of this namespace; "kubernetes:FILE.yaml": one made from that manifest;
        "slurm", "pbs", "lsf", "sge", "oar", "moab", "htcondor": jobs of that queue, as Dask's configuration
        `jobqueue` describes them (deploy/slurm has one).
    `workers`
        Processes, or jobs of a queue, or pods. None: as many as the machine has cores for; what the manifest says;
        one job.
    `security`
        For tls:// and queues; None: the certificates that Dask's configuration names (`distributed.comm.tls`), and for
        a queue, where it names none, certificates made for this run.

    Raises UsageError for an address that is none and for versions that do not fit, MissingExtraError where the extra
    `kubernetes` or `jobqueue` is not installed, StoreError where no scheduler answers.
    """
    settings.apply()
    if where is None or where == "local":
        return _own(ClosedCluster(workers, silence_logs))
    if where.startswith("kubernetes:"):
        client = _own(_kubernetes(where.removeprefix("kubernetes:"), workers))
    elif where in QUEUES:
        client = _own(_queue(where, 1 if workers is None else workers, security))
    elif workers is not None:
        raise UsageError(f"{where}: expected no number of workers where a cluster runs already, got {workers}")
    else:
        client = _address(where, security)
    try:
        check_scheduler(client, where)
    except BaseException:
        client.close()
        raise
    return client


class Client(distributed.Client):
    """A client that, where a cluster was started for it, ends that too."""

    def close(self, *args: Any, **kwargs: Any) -> Any:
        closed = super().close(*args, **kwargs)
        if self.cluster is not None:
            self.cluster.close()
            certificates = getattr(self.cluster, "certificates", None)
            if certificates is not None:
                certificates.remove()
        return closed


def _own(cluster: Cluster) -> Client:
    try:
        return Client(cluster)
    except BaseException:
        cluster.close()
        raise


def _address(where: str, security: Security | None) -> Client:
    scheme, sign, _ = where.partition("://")
    if not sign or scheme not in SCHEMES:
        known = f"tcp://HOST:PORT, tls://HOST:PORT, kubernetes:NAME, {', '.join(QUEUES)}"
        raise UsageError(f"{where}: expected one of {known}")
    if scheme in {"tcp", "ws", "ucx"} and (Security() if security is None else security).require_encryption:
        raise UsageError(f"{where}: expected tls://, as Dask's configuration or --tls-… requires encryption here")
    if scheme in {"tcp", "ws", "ucx"}:
        log.warning("%s: %s", where, _exposed(where))
    try:
        # A client that fails would stay the current one: first one that is not made so.
        Client(where, security=security, timeout=CONNECT_SECONDS, set_as_default=False).close()
        return Client(where, security=security, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise StoreError(
            f"{where}: expected a Dask scheduler, none answered ({_reason(error)}); check the address, and tcp:// or "
            "tls:// with its certificates"
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: expected tcp://HOST:PORT or tls://HOST:PORT ({error})") from error


def _exposed(where: str) -> str:
    """Return who can read and change what goes to a scheduler without TLS."""
    host = where.partition("://")[2].rpartition(":")[0].strip("[]")
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return "any account of this machine can run code there as you; tls:// prevents it"
    return "code and data travel without authentication or encryption; tls:// protects them"


def _reason(error: BaseException) -> str:
    """The innermost cause: what a socket or TLS said, not that a time was up."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return " ".join(str(error).split()) or type(error).__name__


def _kubernetes(name: str, workers: int | None) -> Cluster:
    """dask-kubernetes speaks tcp:// to a scheduler from outside; a TLS cluster is reached through its address."""
    cluster_type = _extra("dask_kubernetes.operator", "KubeCluster", "kubernetes")
    if not name.endswith((".yaml", ".yml")):
        cluster = _started(lambda: cluster_type.from_name(name), f"kubernetes:{name}")
    else:
        spec = _manifest(Path(name))
        metadata = spec["metadata"]
        place = {"namespace": metadata["namespace"]} if "namespace" in metadata else {}
        cluster = _started(
            lambda: cluster_type(name=metadata["name"], custom_cluster_spec=spec, **place), f"kubernetes:{name}"
        )
    if workers is not None:
        cluster.scale(workers)
    return cluster


def _manifest(path: Path) -> dict[str, Any]:
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


def _queue(name: str, jobs: int, security: Security | None) -> Any:
    """Start jobs of a batch system. The scheduler runs here, with TLS, and its dashboard on 127.0.0.1."""
    cluster_type = _extra("dask_jobqueue", QUEUES[name], "jobqueue")
    program = cluster_type.job_cls.submit_command.split()[0]
    if shutil.which(program) is None:  # dask-jobqueue would log it, and wait for workers
        raise UsageError(f"{name}: expected the program {program} on PATH; run it where jobs are submitted")
    options: dict[str, Any] = {"scheduler_options": {"dashboard_address": "127.0.0.1:0"}, "protocol": "tls"}
    certificates = None
    if security is None and has_certificates(Security()):
        security = Security(require_encryption=True)
    if security is None:
        certificates = RunCertificates(dask.config.get(f"jobqueue.{name}.shared-temp-directory", None))
        security = certificates.security
    options["security"] = security
    if dask.config.get(f"jobqueue.{name}.death-timeout", None) in {None, 60}:  # 60: dask-jobqueue's own default
        options["death_timeout"] = settings.seconds("filterdb.death-timeout")
    try:
        cluster = _started(lambda: cluster_type(**options), name)
    except BaseException:
        if certificates is not None:
            certificates.remove()
        raise
    cluster.certificates = certificates  # kept with it, removed with it
    cluster.scale(jobs=jobs)
    return cluster


def _extra(module: str, name: str, extra: str) -> Any:
    try:
        return getattr(__import__(module, fromlist=[name]), name)
    except ImportError as error:
        raise MissingExtraError(f"{extra}: expected {module} here; pip install 'filterdb[{extra}]'") from error


def _started(start: Callable[[], Any], where: str) -> Any:
    """Their libraries raise whatever a missing cluster, command or setting makes of itself."""
    try:
        return start()
    except Exception as error:
        said = _reason(error)
        raise StoreError(f"{where}: expected a cluster to start or to connect to, got {said[:300]}") from error
