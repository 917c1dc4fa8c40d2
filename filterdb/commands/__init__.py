"""Provide the command line: a module for each command, with its options, its JSON answer and its table."""

from __future__ import annotations

import errno
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

import click

from filterdb import logs
from filterdb.commands import stopping, streams
from filterdb.errors import FilterDBError, InterruptedRunError, StaleBasisWarning
from filterdb.extras import missing_extra
from filterdb.redaction import printable, redact
from filterdb.terminal import complain

INTERNAL = 70

_UNLIMITED = resource.RLIM_INFINITY

LEAST_MEMORY = 600_000
"""KiB of address space (`ulimit -v`) below which libraries in C end the process, or crash, instead of saying so."""


def main() -> None:
    """Run the command that this process was started with, and exit with its code."""
    try:
        sys.exit(run(sys.argv[1:], _prepare_process))
    except (click.Abort, KeyboardInterrupt):
        complain(stopping.message())
        stopping.leave()


def run(arguments: Sequence[str], prepare: Callable[[], None] | None = None) -> int:
    """Run a command in this process, after `prepare`, and return its exit code.

    An error is one line on stderr. What stops a command (click.Abort, KeyboardInterrupt) is raised.
    """
    try:
        if prepare is not None:
            prepare()
        from filterdb.commands.group import commands  # takes a while, in which Ctrl-C may come

        code = commands.main(list(arguments), prog_name="filterdb", standalone_mode=False)
        streams.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "filterdb"
        line = f"{_one_line(error.format_message(), arguments)} (see `{command} --help`)"
        complain(f"filterdb: {line}")
        return error.exit_code
    except click.Abort:
        raise
    except FilterDBError as error:
        return _report(error, error.exit_code, arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line
        missing = missing_extra(error)
        if missing is not None:
            return _report(missing, missing.exit_code, arguments)
        scarce = _scarce(error)
        code = _report(scarce or error, INTERNAL if scarce is None else scarce.exit_code, arguments)
        if scarce is not None and prepare is not None:
            stopping.leave(code)  # without memory, libraries in C may crash while Python ends
        return code


def _prepare_process() -> None:
    """Make this process a command's own: its streams, signals, log and, before NumPy is imported, BLAS."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != _UNLIMITED:
        if limit < LEAST_MEMORY * 1024:
            raise InterruptedRunError(
                f"out of memory: expected at least {LEAST_MEMORY} KiB of address space, got {limit // 1024}; raise the "
                "limit (ulimit -v) and run again"
            )
        # These libraries reserve memory for each thread when they are imported, and end the process if they get none.
        for library in ("OPENBLAS", "NUMEXPR"):
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    warnings.simplefilter("ignore", StaleBasisWarning)  # tables and JSON contain it
    streams.prepare()  # first: what opens a file before it may get a closed handle's number
    stopping.install()
    logs.setup(others=True)


_SCARCE = {
    errno.ENOMEM: ("memory", "ulimit -v"),
    errno.EMFILE: ("open files", "ulimit -n"),
    errno.ENFILE: ("open files", "the machine's, fs.file-max"),
    errno.EAGAIN: ("threads or processes", "ulimit -u, -v"),
}
"""Resources that can run out, by error number, and how to raise their limits."""


def _scarce(error: BaseException | None) -> InterruptedRunError | None:
    """Return the error to report if a resource of the machine or a limit of the shell ran out, else None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        number = error.errno if isinstance(error, OSError) else None
        number = errno.ENOMEM if isinstance(error, MemoryError) else number
        number = errno.EAGAIN if "can't start new thread" in str(error) else number
        # Under `ulimit -v`, libraries without memory cannot be mapped, or fail without an error number.
        if isinstance(error, ImportError | SystemError) and resource.getrlimit(resource.RLIMIT_AS)[0] != _UNLIMITED:
            number = errno.ENOMEM
        if number in _SCARCE:
            what, limit = _SCARCE[number]
            return InterruptedRunError(f"out of {what}: raise the limit ({limit}) or use fewer workers, and run again")
        error = error.__cause__ or error.__context__
    return None


def _report(error: Exception, code: int, arguments: Sequence[str]) -> int:
    """Print an error on stderr, with its traceback after --debug. Return the exit code."""
    if "--debug" in arguments:
        click.echo(redact("".join(traceback.format_exception(error)), *arguments), err=True)
    line = str(error).strip() or type(error).__name__
    if code == INTERNAL:
        line = f"unexpected {type(error).__name__}: {line}; --debug shows where, please report it"
    complain(f"filterdb: {_one_line(line, arguments)}")
    return code


def _one_line(text: str, arguments: Sequence[str]) -> str:
    """Return a text on one line, without control characters and without credentials in any spelling of `arguments`."""
    return printable(redact(" ".join(text.split()), *arguments))
