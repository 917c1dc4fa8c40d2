"""Clusters that only their own processes can talk to, by certificates that exist for one run."""

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
from filterdb.wording import counted

_FILES = 64
"""Files that a process with a local cluster may open for itself …"""

_FILES_PER_WORKER = 16
"""… and for each worker; 11 were counted."""


def has_certificates(security: Security) -> bool:
    """Return whether there are certificates for every role."""
    roles = (security.get_tls_config_for_role(role) for role in ("scheduler", "worker", "client"))
    return all(role["ca_file"] and role["cert"] for role in roles)


class ClosedCluster(LocalCluster):
    """A cluster of processes on this machine that speak TLS, with certificates that exist only in their memory.

    Dask sends them to the workers through the pipe that starts them, not by command line or environment. With `workers`
    None there are as many processes and threads as the machine has cores for.
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
        result = super().close(timeout)
        self._own_loop.stop()
        return result


def _allow_open_files(workers: int) -> None:
    """Raise the soft limit of open files if it is too low. Raises UsageError if the hard limit is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _FILES + workers * _FILES_PER_WORKER
    if hard != resource.RLIM_INFINITY and hard < enough:
        raise UsageError(
            f"local cluster: {counted(workers, 'process', 'processes')} must open {enough} files, the hard "
            f"limit is {hard}; raise it (`ulimit -Hn`), or use fewer processes, or --threads"
        )
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _scratch() -> str:
    """Return a folder that is only ours for data that workers spill, because they unpickle it again."""
    base = dask.config.get("temporary-directory", None)
    folder = private_folder(base)
    return tempfile.mkdtemp(prefix="filterdb-", dir=base) if folder is None else str(folder)


@contextmanager
def _terminal_signals_held() -> Iterator[None]:
    """Keep Ctrl-C and SIGHUP from threads and processes that start inside the block, and from their children.

    A terminal sends these signals to the whole process group: workers would die, and would be started again while this
    process ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class RunCertificates:
    """Certificates for one run, in files that only this user can read; `security` names the files.

    Worker jobs read the files, so they are in a new folder below one that every node sees: `shared`, or the current
    folder. `remove`, or the end of the process, removes the folder.
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
        temporary = Security.temporary()
        names: dict[str, str] = {}
        for name in ("tls_ca_file", *(f"tls_{role}_{part}" for role in _ROLES for part in ("cert", "key"))):
            path = self.folder / f"{name}.pem"
            path.touch(mode=0o600)
            path.write_text(getattr(temporary, name))
            names[name] = str(path)
        self.security = Security(require_encryption=True, **names)


_ROLES = ("scheduler", "worker", "client")
