"""Clusters that only their own processes can talk to: certificates for the length of a run."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import LocalCluster
from distributed.security import Security
from distributed.utils import LoopRunner

from filterdb.errors import UsageError
from filterdb.private import private_folder

_FILES = 64
_FILES_PER_WORKER = 16
"""Open files of the process that has a local cluster: itself, and for each worker (11 were counted)."""


def has_certificates(security: Security) -> bool:
    """Return whether certificates are named for every role."""
    roles = (security.get_tls_config_for_role(role) for role in ("scheduler", "worker", "client"))
    return all(role["ca_file"] and role["cert"] for role in roles)


class ClosedCluster(LocalCluster):
    """Processes of this machine that speak TLS, with certificates that exist in their memory alone.

    Dask hands them to the workers through the pipe by which they are started, not by command line or environment.
    `workers` None: as many processes and threads as the machine has cores for.
    """

    def __init__(self, workers: int | None, silence_logs: int) -> None:
        size = {} if workers is None else {"n_workers": workers, "threads_per_worker": 1}
        _allow_open_files(workers or CPU_COUNT)
        self._own_loop = LoopRunner()
        with _terminal_signals_held():
            self._own_loop.start()
        try:
            super().__init__(
                security=Security.temporary(),
                dashboard_address="127.0.0.1:0",
                silence_logs=silence_logs,
                local_directory=_scratch(),
                loop=self._own_loop.loop,
                **size,
            )
        except Exception:
            self._own_loop.stop()
            raise

    def close(self, timeout: float | None = None) -> Any:
        """End the processes."""
        closed = super().close(timeout)
        self._own_loop.stop()
        return closed


def _allow_open_files(workers: int) -> None:
    """Raise the soft limit where it is low. Raises UsageError where the hard one leaves too few for the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _FILES + workers * _FILES_PER_WORKER
    if hard != resource.RLIM_INFINITY and hard < enough:
        raise UsageError(
            f"local cluster: expected to open {enough} files for {workers} processes, the hard limit is {hard}; "
            "raise it (`ulimit -Hn`), or use fewer processes, or --threads"
        )
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _scratch() -> str:
    """Return where workers put what they spill and unpickle again: in nobody else's folder."""
    base = dask.config.get("temporary-directory", None)
    folder = private_folder(base)
    return tempfile.mkdtemp(prefix="filterdb-", dir=base) if folder is None else str(folder)


@contextmanager
def _terminal_signals_held() -> Iterator[None]:
    """Keep Ctrl-C and SIGHUP from threads and processes that start here, and from theirs.

    A terminal sends them to the whole group: workers would die, and be started again, while this process ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class RunCertificates:
    """Certificates for the length of a run, as files that this user alone can read: `security` names them.

    They lie in a folder of their own, in one that every node sees: `shared`, else the current folder. Worker jobs read
    them there. `remove`, or the end of the process, removes the folder.
    """

    def __init__(self, shared: str | None) -> None:
        base = Path(os.path.expandvars(shared or ".")).expanduser().absolute()
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=".filterdb-tls-", dir=base))  # mode 0700
        except OSError as error:
            raise UsageError(
                f"{base}: expected a folder for the run's certificates that every node sees, got: {error.strerror}; "
                "name one in jobqueue.<queue>.shared-temp-directory"
            ) from error
        self.remove = weakref.finalize(self, shutil.rmtree, str(self.folder), ignore_errors=True)
        made = Security.temporary()
        names: dict[str, str] = {}
        for name in ("tls_ca_file", *(f"tls_{role}_{part}" for role in _ROLES for part in ("cert", "key"))):
            path = self.folder / f"{name}.pem"
            path.touch(mode=0o600)
            path.write_text(getattr(made, name))
            names[name] = str(path)
        self.security = Security(require_encryption=True, **names)


_ROLES = ("scheduler", "worker", "client")
