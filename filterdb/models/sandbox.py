"""Parse untrusted files in child processes with limits on memory, CPU, time and open files.

A *fork server* is a process that has imported what reading needs. Each thread that reads starts one. For every file,
the server forks a child, which sets its limits, reads, answers and ends. Starting a server takes half a second, a fork
some milliseconds. The child does not inherit the environment, so it has no credentials. Answers are JSON and plain
bytes, never pickles: a child that a hostile file controls can lie about the file, but cannot harm this process.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filterdb.errors import FilterDBError, InterruptedRunError, ModelError
from filterdb.models.limits import Limits as Limits  # noqa: PLC0414 - also imported from here

if TYPE_CHECKING:
    import numpy as np

MAX_MESSAGE = 64 * 2**20
"""Most bytes of a JSON message, enough for some 100,000 layers."""

_OUT_OF_MEMORY = 71
"""Exit code of a child that ran out of memory."""

_OPEN_FILES = 64
_GRACE = 10.0
"""Seconds within which a child must end after its channel is closed."""

_MAIN = """
import sys, types
package = types.ModuleType("filterdb")
package.__path__ = [sys.argv.pop(1)]
sys.modules["filterdb"] = package
from filterdb.models.sandbox import main
main()
"""
"""Program of the fork server. It skips `filterdb/__init__.py`, which imports Dask and the stores (2 s, 100 MB)."""

MOST_BYTES = 2**31 + 64 * 2**30
"""Bytes of the largest possible model: a protobuf and its external data."""

WAITING = 10.0
"""Seconds that a child may wait for disks and other processes, besides half its CPU seconds for a busy machine."""

_START = 120.0
"""Seconds within which a fork server must start."""

_READY = "ready"
"""What a fork server sends once it has started."""


class NoAnswerError(Exception):
    """A child sent something that is not a valid message."""


class Channel:
    """Messages to and from a child: JSON, and the bytes of arrays. `cpu`: CPU seconds that the child may take."""

    def __init__(self, end: socket.socket, cpu: int | None = None) -> None:
        self._end = end
        self._left = None if cpu is None else 1.5 * cpu + WAITING
        self.cpu = cpu

    def allow(self, cpu: int, parts: Mapping[str, Any]) -> None:
        """Raise the child's CPU limit to `cpu` seconds, after it has reported the external data to read.

        `parts`: the files of external data of which only parts are present, and which (see `parts`).
        """
        if self.cpu is not None and self._left is not None and cpu > self.cpu:
            self._left += 1.5 * (cpu - self.cpu)
            self.cpu = cpu
        self.send({"cpu": cpu, "parts": parts})

    def send(self, message: Any) -> None:
        """Send a message as JSON. Raises OverflowError if it is longer than the other end accepts."""
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE:
            raise OverflowError(
                f"the model's metadata is {len(data) / 1e6:.1f} MB; the limit is {MAX_MESSAGE / 1e6:.1f} MB"
            )
        self._end.sendall(len(data).to_bytes(8, "little") + data)

    def receive(self) -> Any:
        """Return the next message. Raises EOFError if the other end is closed, NoAnswerError if it sent no message."""
        size = int.from_bytes(self._fill(bytearray(8)), "little")
        if size > MAX_MESSAGE:
            raise NoAnswerError(f"{size} bytes")
        try:
            return json.loads(bytes(self._fill(bytearray(size))))
        except (ValueError, RecursionError) as error:
            raise NoAnswerError(str(error)) from error

    def send_array(self, array: np.ndarray) -> None:
        """Send the bytes of a C-contiguous array."""
        if array.size:
            self._end.sendall(memoryview(array).cast("B"))

    def receive_into(self, array: np.ndarray) -> None:
        """Fill a C-contiguous array with the next bytes."""
        if array.size:
            self._fill(memoryview(array).cast("B"))

    def close(self) -> None:
        """Close the channel. This ends a child that is still sending."""
        self._end.close()

    def _fill(self, buffer: bytearray | memoryview) -> bytearray | memoryview:
        """Receive until the buffer is full, and return it."""
        view = memoryview(buffer)
        while view.nbytes:
            began = time.monotonic()
            self._end.settimeout(None if self._left is None else max(0.01, self._left))
            got = self._end.recv_into(view)
            if self._left is not None:
                # Count only the waiting: between two messages, this process may fetch files.
                self._left -= time.monotonic() - began
            if not got:
                raise EOFError
            view = view[got:]
        return buffer


class _ForkServer:
    """A process that forks a child for each file."""

    def __init__(self, module: str) -> None:
        self.owner = os.getpid()
        self.control, other = socket.socketpair()
        package = str(Path(__file__).parent.parent)
        command = [sys.executable, "-P", "-c", _MAIN, package, module, str(other.fileno())]
        with other:
            self.process = subprocess.Popen(
                command,
                env=_environment(),
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        if self._next_message(_START) != _READY:
            self.kill()
            raise InterruptedRunError(f"the process that reads models did not start ({module}); run again")

    def _next_message(self, seconds: float) -> str | None:
        """Return the server's next message; None if none comes in time or the server has ended."""
        self.control.settimeout(seconds)
        try:
            return self.control.recv(64).decode() or None
        except OSError:
            return None

    def begin(self, limits: Limits, size: int) -> Channel:
        """Fork a child and return the channel to it."""
        own_end, child_end = socket.socketpair()
        with child_end:
            cpu, most = limits.cpu(size), limits.cpu(max(size, MOST_BYTES))
            order = json.dumps({"memory": limits.memory, "cpu": cpu, "most": most}).encode()
            socket.send_fds(self.control, [order], [child_end.fileno()])
        return Channel(own_end, cpu)

    def end(self) -> int | None:
        """Wait for the child; return its exit code, or minus the signal that ended it, or None if it still runs."""
        message = self._next_message(_GRACE)
        return None if message is None else int(message)

    def kill(self) -> None:
        """End the server and its child."""
        self.control.close()
        if self.owner == os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Sandbox:
    """Fork servers for one module. Each child runs the module's `serve(channel)` for one file."""

    module: str
    _free: list[_ForkServer] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def reading(self, what: str, size: int, limits: Limits) -> Iterator[Channel]:
        """Yield the channel to a child that reads a file of `size` bytes. Messages call the file `what`.

        Raises ModelError if the child dies or exceeds its limits, since the file causes both.
        """
        server, channel = self._begin(limits, size)
        status: int | None = None
        try:
            try:
                yield channel
            finally:
                channel.close()
                # Do not wait again for a child that was too slow.
                status = None if isinstance(sys.exception(), TimeoutError) else server.end()
        except FilterDBError:
            raise
        except TimeoutError as error:
            raise ModelError(_too_long(what, channel.cpu)) from error
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise ModelError(_ended_early(what, status, limits, channel.cpu)) from error
        except (NoAnswerError, KeyError, TypeError) as error:
            raise ModelError(f"{what}: expected an answer of the process that reads it, got nonsense") from error
        finally:
            if status is None:
                server.kill()
            else:
                with self._lock:
                    self._free.append(server)

    def _begin(self, limits: Limits, size: int) -> tuple[_ForkServer, Channel]:
        while True:
            server = self._take()
            try:
                return server, server.begin(limits, size)
            except OSError:
                server.kill()  # e.g. the kernel killed the idle server for memory, which is not the file's fault

    def _take(self) -> _ForkServer:
        with self._lock:
            while self._free:
                server = self._free.pop()
                if server.owner == os.getpid() and server.process.poll() is None:
                    return server
        return _ForkServer(self.module)

    def close(self) -> None:
        """End the idle servers."""
        with self._lock:
            while self._free:
                self._free.pop().kill()


_sandboxes: dict[str, Sandbox] = {}


def sandbox(module: str) -> Sandbox:
    """Return this process's sandbox for a module."""
    if module not in _sandboxes:
        _sandboxes[module] = Sandbox(module)
        atexit.register(_sandboxes[module].close)
    return _sandboxes[module]


def _environment() -> dict[str, str]:
    """Return the server's environment: the paths of modules, and a single thread, so that forking is safe."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **single, "PYTHONPATH": paths, "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def _too_long(what: str, cpu: int | None) -> str:
    remedy = _remedy("--model-seconds", resource.RLIMIT_CPU)
    return f"{what}: expected to be read within {cpu} s, took longer; {remedy}"


def _remedy(option: str, *kinds: int) -> str:
    """Return how to allow more: the option and, if the shell has a limit, a higher one, which the option needs."""
    flags = {resource.RLIMIT_CPU: "-t", resource.RLIMIT_DATA: "-d", resource.RLIMIT_AS: "-v"}
    limited = [flags[kind] for kind in kinds if resource.getrlimit(kind)[1] != resource.RLIM_INFINITY]
    return f"{option} allows more" + (f", and a higher `ulimit {' '.join(limited)}`" if limited else "")


def _ended_early(what: str, status: int | None, limits: Limits, cpu: int | None) -> str:
    if status in {None, -signal.SIGXCPU, -signal.SIGKILL}:
        return _too_long(what, cpu)
    if status in {_OUT_OF_MEMORY, -signal.SIGABRT}:
        return (
            f"{what}: expected to be read within {limits.memory // 2**20:,} MiB of memory, took more; "
            f"{_remedy('--model-memory', resource.RLIMIT_DATA, resource.RLIMIT_AS)}"
        )
    how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    return f"{what}: not readable as a model: the process that read it ended with {how}"


def allow_cpu(seconds: int) -> None:
    """Set this process's CPU limit to `seconds`, but not above the hard limit that it was started with."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds if most == resource.RLIM_INFINITY else min(seconds, most), most))


def _limit(memory: int, cpu: int, most: int) -> None:
    """Set the limits of this process. It may take `memory` bytes in addition to what it holds now.

    CPU time is limited to `cpu` seconds, which `allow_cpu` can raise to `most` once the external data is known.
    """
    _lower(resource.RLIMIT_CORE, 0, 0)
    _lower(resource.RLIMIT_FSIZE, 0, 0)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES)
    _lower(resource.RLIMIT_CPU, cpu, most + 2)
    status = Path("/proc/self/status")
    if status.exists():
        usage = dict(line.split(":", 1) for line in status.read_text("utf-8", "replace").splitlines() if ":" in line)
        data, size = (int(usage[name].split()[0]) * 1024 for name in ("VmData", "VmSize"))
        _lower(resource.RLIMIT_DATA, data + memory, data + memory)
        # Only RLIMIT_AS counts mapped files.
        _lower(resource.RLIMIT_AS, size + 2 * memory, size + 2 * memory)


def _lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit of this process, but not above its hard limit, which only root may raise."""
    _, highest = resource.getrlimit(kind)
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    resource.setrlimit(kind, (soft, hard))


def _child(channel: Channel, serve: Any, order: dict[str, int]) -> int:
    """Run in a forked child; return its exit code."""
    gc.disable()  # collecting garbage among millions of nodes takes longer than reading them
    _limit(**order)
    try:
        serve(channel)
    except MemoryError:
        return _OUT_OF_MEMORY
    except (BrokenPipeError, ConnectionResetError, EOFError):
        pass
    return 0


def main() -> None:
    """Run the fork server. Its arguments are the module that reads and the handle of the control socket."""
    serve = importlib.import_module(sys.argv[1]).serve
    control = socket.socket(fileno=int(sys.argv[2]))
    control.sendall(_READY.encode())
    while True:
        order, handles, *_ = socket.recv_fds(control, 4096, 1)
        if not order:
            return
        end = socket.socket(fileno=handles[0])
        ended, alive = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                control.close()
                code = _child(Channel(end), serve, json.loads(order))
            finally:
                os._exit(code)
        end.close()
        os.close(alive)
        try:
            _end_with_parent(child, ended, control)
        finally:
            os.close(ended)
        _, status = os.waitpid(child, 0)
        control.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _end_with_parent(child: int, ended: int, control: socket.socket) -> None:
    """Wait for the child; kill it if the process that requested it ends first, for whatever reason.

    `ended` becomes readable when the child ends. `control` becomes readable when the other process ends, since that
    process sends nothing while it waits for the child.
    """
    readable, _, _ = select.select([ended, control.fileno()], [], [])
    if ended not in readable:
        os.kill(child, signal.SIGKILL)
