"""Several hosts on one machine: network namespaces with addresses of their own, on a bridge that is in one as well.

Nothing of it is in the machine's own network, so that runs beside each other take the same addresses, and a firewall
for containers, which also filters the machine's bridges, has no say. Needs Linux, iproute2 and root.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

NETWORK = "10.77.0"
NAMESPACES = Path("/run/netns")

_numbers = count()


def ip(*arguments: str) -> str:
    """One command of iproute2."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def refusal() -> str | None:
    """Why there can be no hosts here; None where there can. A small network is tried, so that nothing is guessed."""
    try:
        with network("one", folder=Path("/nonexistent")):
            return None
    except OSError as error:  # no iproute2, not root, a container or a kernel without namespaces, bridges or pairs
        return f"network namespaces are not to be had here ({error})"


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with one link to the bridge. Whatever was started in it belongs to it."""

    name: str
    address: str
    namespace: str
    switch: str
    folder: Path
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], environment: Mapping[str, str], *, again: bool = False) -> None:
        """Start a process; its output goes to the host's log. `again`: whenever it ends, as a kubelet would."""
        if again:
            command = ["sh", "-c", 'while true; do "$@"; sleep 0.5; done', "keeper", *command]
        with self.log.open("ab") as log:
            self._started.append(
                subprocess.Popen(
                    [*self._inside, *command],
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def begin(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a process whose output is for the caller."""
        return subprocess.Popen(
            [*self._inside, *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: Sequence[str], environment: Mapping[str, str], timeout: float = 120) -> str:
        """Run a process to its end, which must be a good one; gives its standard output."""
        process = self.begin(command, environment)
        try:
            out, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == 0, f"{self.name}: {' '.join(command)}: {process.returncode}\n{errors[-3000:]}"
        return out

    @property
    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]

    @property
    def log(self) -> Path:
        """What its processes said."""
        return self.folder / f"{self.name}.log"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside the block this thread's new sockets, and the processes that it starts, are the host's."""
        with Path("/proc/thread-self/ns/net").open() as before, (NAMESPACES / self.namespace).open() as inside:
            os.setns(inside.fileno(), os.CLONE_NEWNET)
            try:
                yield
            finally:
                os.setns(before.fileno(), os.CLONE_NEWNET)

    def cut(self) -> None:
        """Pull the cable, at the bridge: no packet comes or goes, and nobody is told."""
        ip("-n", self.switch, "link", "set", "dev", self.name, "down")

    def mend(self) -> None:
        """Put the cable back."""
        ip("-n", self.switch, "link", "set", "dev", self.name, "up")

    def kill(self) -> None:
        """End every process, whatever it is, with SIGKILL."""
        _kill(self.namespace)
        for process in self._started:
            process.wait(10)
        self._started.clear()


@contextmanager
def network(*names: str, folder: Path) -> Iterator[dict[str, Host]]:
    """Hosts by name, with the addresses 10.77.0.1 and on, in this order; logs go to the folder."""
    _sweep()
    prefix = f"filterdb-{os.getpid()}-{next(_numbers)}"
    switch = f"{prefix}-switch"
    hosts: dict[str, Host] = {}
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "name", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "dev", "bridge", "up")
        for number, name in enumerate(names, 1):
            host = Host(name, f"{NETWORK}.{number}", f"{prefix}-{name}", switch, folder)
            ip("netns", "add", host.namespace)
            hosts[name] = host
            ip(
                "-n",
                switch,
                "link",
                "add",
                "name",
                name,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host.namespace,
            )
            ip("-n", switch, "link", "set", "dev", name, "master", "bridge", "up")
            ip("-n", host.namespace, "link", "set", "dev", "lo", "up")
            ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.namespace, "link", "set", "dev", "eth0", "up")
            # A process finds its own address by asking which way the rest of the world lies.
            ip("-n", host.namespace, "route", "add", "default", "dev", "eth0")
        yield hosts
    finally:
        for host in hosts.values():
            with suppress(OSError, subprocess.TimeoutExpired):
                host.kill()
            _remove(host.namespace)
        _remove(switch)


def _kill(namespace: str) -> None:
    """Every process of a namespace, also those that are started meanwhile."""
    deadline = time.monotonic() + 10
    while pids := ip("netns", "pids", namespace).split():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            raise OSError(f"{namespace}: processes {', '.join(pids)} do not end")
        time.sleep(0.02)


def _remove(namespace: str) -> None:
    """With its links and bridges; where it was never there, nothing."""
    with suppress(OSError):
        _kill(namespace)
    with suppress(OSError):
        ip("netns", "delete", namespace)


def _sweep() -> None:
    """Remove what a run has left that was itself killed: the number of its process is in the names."""
    for path in NAMESPACES.glob("filterdb-*"):
        owner = re.match(r"filterdb-(\d+)-", path.name)
        if owner is not None and not Path("/proc", owner[1]).exists():
            _remove(path.name)
