"""Thin commands: options in, one call of the same name, a table or --json out."""

from __future__ import annotations

import sys
import traceback
import warnings

import click

from filterdb import logs, tables
from filterdb.cli.options import commands
from filterdb.errors import FilterDBError, StaleBasisWarning

INTERNAL = 70


def main() -> None:
    """Run the command line; an error is one line on stderr and an exit code."""
    logs.setup(others=True)
    debug = "--debug" in sys.argv
    warnings.simplefilter("ignore", StaleBasisWarning)  # tables and JSON say it
    try:
        code = commands.main(prog_name="filterdb", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "filterdb"
        line = " ".join(error.format_message().split())
        click.echo(f"filterdb: {tables.printable(line)} (see `{command} --help`)", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except FilterDBError as error:
        _fail(error, error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the last stop: one line, whatever it is
        _fail(error, INTERNAL, debug)


def _fail(error: Exception, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    line = " ".join(str(error).split()) or type(error).__name__
    if code == INTERNAL:
        line = f"unexpected {type(error).__name__}: {line}; --debug shows where, please report it"
    click.echo(f"filterdb: {tables.printable(line)}", err=True)
    sys.exit(code)
