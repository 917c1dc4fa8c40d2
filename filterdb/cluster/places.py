"""Connect to the place where the work runs, or start it, and return a client."""

from __future__ import annotations

import logging
import shutil
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dask
import distributed
from distributed.deploy import Cluster
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from filterdb.cluster import gateway, kubernetes, settings
from filterdb.cluster.closed import ClosedCluster, RunCertificates, has_certificates
from filterdb.cluster.starting import innermost_reason, load_extra, start_cluster
from filterdb.cluster.versions import check_scheduler
from filterdb.errors import InterruptedRunError, StoreError, UsageError

QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
    "htcondor": "HTCondorCluster",
}
"""Batch systems that dask-jobqueue supports, by their names in `connect` and in Dask's configuration."""

CLUSTERS: dict[str, Callable[[str, int | None], Any]] = {
    "kubernetes": kubernetes.open_cluster,
    "gateway": gateway.open_cluster,
}
"""What opens a cluster, by the part of `where` before the colon; it gets the part after it and `workers`."""

SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "inproc")
"""Protocols of Dask schedulers."""

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
    """Return a client of a running cluster or of a new one, on which filterdb's work runs from now on.

    Use it with `with`, or call `close()`: both end what this call has started.

    Parameters
    ----------
    where
        * None or "local": start a cluster of processes on this machine. They speak TLS with certificates that only they
          have, so that no other account can run code in them. All accounts can read the dashboard on 127.0.0.1.
        * "tls://HOST:PORT" or "tcp://HOST:PORT": connect to a running scheduler. A tcp:// scheduler runs the code of
          everyone who can reach it.
        * "kubernetes:NAME": connect to a DaskCluster of this namespace; "kubernetes:FILE.yaml": start that manifest's.
          Both without TLS; a cluster with TLS is reached by deploy/open-session and its tls:// address.
        * "gateway:": start a cluster of the Dask Gateway in Dask's configuration; "gateway:NAME": connect to a running
          one; "gateway:URL" and "gateway:URL#NAME": the same at another gateway.
        * "slurm", "pbs", "lsf", "sge", "oar", "moab" or "htcondor": start jobs of that queue, as the section `jobqueue`
          of Dask's configuration describes them (deploy/slurm has an example).
    workers
        Number of processes, pods or jobs. Default: a process per core, the manifest's pods, a running cluster's
        workers, or one.
    security
        Certificates for tls:// and queues. Default: those in Dask's configuration (`distributed.comm.tls`); for a queue
        without any, certificates made for this run.
    silence_logs
        Logs of a local cluster below this level are hidden.

    Returns
    -------
    Client
        The current Dask client until it is closed.

    Raises
    ------
    UsageError
        If `where` is not one of the above, or the scheduler's versions differ from those of this process.
    InputError
        If the manifest cannot be read or is not one DaskCluster.
    MissingExtraError
        If the extra `kubernetes`, `gateway` or `jobqueue` is not installed.
    StoreError
        If no scheduler answers, or a cluster does not start.
    InterruptedRunError
        If the machine is too busy to start Dask.

    Examples
    --------
    >>> with fdb.connect(workers=4):  # doctest: +SKIP
    ...     fdb.ingest("filters.db", "models")
    """
    settings.apply()
    with _starting_loop():
        if where is None or where == "local":
            return _own(ClosedCluster(workers, silence_logs))
        client = _connect(where, workers, security)
    try:
        check_scheduler(client, where)
    except BaseException:
        client.close()
        raise
    return client


@contextmanager
def _starting_loop() -> Iterator[None]:
    """Raise InterruptedRunError if Dask's event loop did not start in time, for which Dask only has an assertion."""
    try:
        yield
    except AssertionError as error:
        if traceback.extract_tb(error.__traceback__)[-1].name != "_start_unlocked":
            raise
        raise InterruptedRunError(
            "Dask: expected its event loop to start within 10 s, got none; this machine is too busy, or a lost Dask "
            "client blocks it: use fewer workers, or run again later in a new process"
        ) from error


def _connect(where: str, workers: int | None, security: Security | None) -> Client:
    kind, sign, name = where.partition(":")
    if sign and kind in CLUSTERS:
        if security is not None:
            raise UsageError(f"{where}: expected no certificates, which only tls:// and queues use, got some")
        return _own(CLUSTERS[kind](name, workers))
    if where in QUEUES:
        return _own(_queue(where, 1 if workers is None else workers, security))
    if workers is not None:
        raise UsageError(f"{where}: expected no number of workers for a running scheduler, got {workers}")
    return _address(where, security)


class Client(distributed.Client):
    """A `distributed.Client` that also ends the cluster that `connect` started for it, and itself if it cannot start.

    Closing needs a lock that every client holds while it starts. If Python's garbage collector closes one meanwhile,
    both wait for ever. So a client that reaches no scheduler is closed at once, and closing a closed one does nothing.
    """

    def start(self, **kwargs: Any) -> Any:
        """Start the client; close it if no scheduler answers."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VersionMismatchWarning)  # check_scheduler says what matters
                return super().start(**kwargs)
        except BaseException:
            self.close()
            self._loop_runner.stop()
            raise

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close the client; end the cluster and remove the certificates that were made for it."""
        result = super().close(*args, **kwargs)
        if self.cluster is not None and self.cluster.status not in {distributed.Status.closed, "closed"}:
            try:
                self.cluster.close()
            except Exception as error:  # noqa: BLE001 - its library may raise anything, and the work is done
                name = getattr(self.cluster, "name", "cluster")
                log.warning("%s: could not end this cluster, it may run on: %s", name, innermost_reason(error)[:200])
            certificates = getattr(self.cluster, "certificates", None)
            if certificates is not None:
                certificates.remove()
        return result


def _own(cluster: Cluster) -> Client:
    try:
        return Client(cluster)
    except BaseException:
        cluster.close()
        raise


def _address(where: str, security: Security | None) -> Client:
    scheme, sign, _ = where.partition("://")
    if not sign or scheme not in SCHEMES:
        known = f"tcp://HOST:PORT, tls://HOST:PORT, kubernetes:NAME, gateway:NAME, {', '.join(QUEUES)}"
        raise UsageError(f"{where}: expected one of {known}")
    if scheme in {"tcp", "ws", "ucx"} and (Security() if security is None else security).require_encryption:
        raise UsageError(f"{where}: expected tls://, because Dask's configuration or --tls-… requires encryption")
    if scheme in {"tcp", "ws", "ucx"}:
        log.warning("%s: %s", where, _exposed(where))
    try:
        # A client that cannot connect would remain the current one, so try first with one that is not.
        Client(where, security=security, timeout=CONNECT_SECONDS, set_as_default=False).close()
        return Client(where, security=security, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise StoreError(
            f"{where}: expected a Dask scheduler, none answered ({innermost_reason(error)}); check the address, and "
            "tcp:// or tls:// with its certificates"
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: expected tcp://HOST:PORT or tls://HOST:PORT ({error})") from error


def _exposed(where: str) -> str:
    """Return the warning about a scheduler without TLS: who can read and change its code and data."""
    host = where.partition("://")[2].rpartition(":")[0].strip("[]")
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return "any account of this machine can run code there as you; tls:// prevents it"
    return "code and data travel without authentication or encryption; tls:// protects them"


def _queue(name: str, jobs: int, security: Security | None) -> Any:
    """Start jobs of a batch system. The scheduler runs here, with TLS, and its dashboard on 127.0.0.1."""
    cluster_type = load_extra("dask_jobqueue", QUEUES[name], "jobqueue")
    program = cluster_type.job_cls.submit_command.split()[0]
    if shutil.which(program) is None:  # dask-jobqueue would only log this, and wait for workers
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
        cluster = start_cluster(lambda: cluster_type(**options), name)
    except BaseException:
        if certificates is not None:
            certificates.remove()
        raise
    cluster.certificates = certificates  # Client.close removes them
    cluster.scale(jobs=jobs)
    return cluster
