"""Provide the command line: a module for each command, with its options, its JSON answer and its table."""

from __future__ import annotations

import errno
import resource
import sys
import traceback
import warnings

import click

from filterdb import logs
from filterdb.commands import stopping, streams
from filterdb.commands.table import printable
from filterdb.errors import FilterDBError, InterruptedRunError, StaleBasisWarning
from filterdb.redaction import redact

INTERNAL = 70

_UNLIMITED = resource.RLIM_INFINITY


def main() -> None:
    """Run the command line; an error becomes one line on stderr and an exit code."""
    debug = "--debug" in sys.argv
    warnings.simplefilter("ignore", StaleBasisWarning)  # tables and JSON contain it
    try:
        streams.prepare()  # before anything opens a file, which would take the number of a closed stdout
        stopping.install()
        logs.setup(others=True)
        from filterdb.commands.group import commands  # slow, so only after Ctrl-C is handled

        code = commands.main(prog_name="filterdb", standalone_mode=False)
        streams.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "filterdb"
        line = " ".join(error.format_message().split())
        click.echo(f"filterdb: {printable(_redacted(line))} (see `{command} --help`)", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(stopping.message(), err=True)
        stopping.leave()
    except FilterDBError as error:
        _fail(error, error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - any other error is one line too
        scarce = _scarce(error)
        _fail(scarce or error, INTERNAL if scarce is None else scarce.exit_code, debug)


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


def _fail(error: Exception, code: int, debug: bool) -> None:
    """Print the error on one line, after its traceback with --debug, and exit."""
    if debug:
        click.echo(_redacted("".join(traceback.format_exception(error))), err=True)
    line = " ".join(str(error).split()) or type(error).__name__
    if code == INTERNAL:
        line = f"unexpected {type(error).__name__}: {line}; --debug shows where, please report it"
    click.echo(f"filterdb: {printable(_redacted(line))}", err=True)
    sys.exit(code)


def _redacted(text: str) -> str:
    """Remove credentials from a text: those of the arguments in any spelling, and those of other URLs."""
    return redact(text, *sys.argv[1:])
