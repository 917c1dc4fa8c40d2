"""Handle signals that stop a command: the first lets it clean up, the second ends it at once."""

from __future__ import annotations

import atexit
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NoReturn

STOPPED = 130
"""Exit code after Ctrl-C."""

_CODES = {
    signal.SIGINT: STOPPED,
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGHUP: 128 + signal.SIGHUP,
    signal.SIGXCPU: 75,  # run again with more CPU time: the run resumes
}

GRACE_SECONDS = 20.0
"""Seconds that a stopped command may take to clean up."""

_XCPU_SECONDS = 2
"""CPU seconds before the hard limit at which a command is stopped, because the kernel kills it at the limit."""

_AGAIN_SECONDS = 0.2
"""Seconds after which an interrupt that Python dropped is repeated."""

_received: int | None = None
_again = False
"""Whether the next signal repeats an interrupt that Python dropped."""

_watchdog: int | None = None
"""The write end of the pipe that the watchdog reads; the first byte starts its timer, others repeat the interrupt."""


def install() -> None:
    """Make signals stop this process as Ctrl-C does, except signals that are already ignored (nohup).

    An interrupt may come while Python calls a function whose exceptions it drops, such as `__del__` or what the garbage
    collector calls. Then it is repeated.
    """
    global _watchdog
    listening, _watchdog = os.pipe()
    # Start the thread here, not in the handler: a signal may interrupt the start of another thread, and the handler
    # would wait for its lock.
    threading.Thread(target=_watch, args=(listening,), name="filterdb-watchdog", daemon=True).start()
    sys.unraisablehook = partial(_notice, sys.unraisablehook)
    for number in _CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if soft == hard != resource.RLIM_INFINITY and hard > _XCPU_SECONDS:
        resource.setrlimit(resource.RLIMIT_CPU, (hard - _XCPU_SECONDS, hard))


def _stop(number: int, frame: FrameType | None) -> None:
    """Interrupt the main thread. A second signal ends the process at once."""
    global _received, _again  # noqa: PLW0603 - a signal is the process's
    del frame
    if _again:
        _again = False
        raise KeyboardInterrupt
    if _received is not None:
        os._exit(exit_code())
    _received = number
    if _watchdog is not None:
        os.write(_watchdog, b"!")
    raise KeyboardInterrupt


def _notice(report: Callable[[sys.UnraisableHookArgs], Any], dropped: sys.UnraisableHookArgs, /) -> None:
    """Tell the watchdog to repeat an interrupt that Python drops; `report` every other exception."""
    if dropped.exc_type is KeyboardInterrupt and _received is not None and _watchdog is not None:
        os.write(_watchdog, b"?")
    else:
        report(dropped)


def _watch(listening: int) -> None:
    """End the process GRACE_SECONDS after a signal, whatever other threads do; until then repeat dropped interrupts."""
    global _again  # noqa: PLW0603 - a signal is the process's
    os.read(listening, 1)
    end = time.monotonic() + GRACE_SECONDS
    main = threading.main_thread().ident or 0
    while select.select([listening], [], [], max(0.0, end - time.monotonic()))[0]:
        os.read(listening, 1)
        time.sleep(_AGAIN_SECONDS)
        _again = True
        signal.pthread_kill(main, _received or signal.SIGINT)
    os._exit(exit_code())


def exit_code() -> int:
    """Return the exit code of a command that a signal stopped."""
    return STOPPED if _received is None else _CODES[signal.Signals(_received)]


def message() -> str:
    """Return the message about a signal that stopped the command."""
    if _received == signal.SIGXCPU:
        return "filterdb: stopped: the CPU time that this shell allows is used up; run again with a higher `ulimit -t`"
    return "stopped"


def leave(code: int | None = None) -> NoReturn:
    """Remove temporary files and processes, then end this process without waiting for its threads.

    Without a code, that of the signal that stopped it is its exit code.
    """
    sys.unraisablehook = lambda _: None  # objects that were only half started would print errors
    atexit._run_exitfuncs()
    os._exit(exit_code() if code is None else code)
