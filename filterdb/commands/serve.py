"""`filterdb serve`: show the web page of a database live."""

from __future__ import annotations

import os
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from filterdb.commands.answer import Answer, head_of_database, print_answer
from filterdb.commands.group import commands
from filterdb.commands.numbers import WholeNumber
from filterdb.commands.options import (
    database,
    densities_option,
    kernel_option,
    labels_and_verdicts,
    limits_option,
    mode_option,
)

if TYPE_CHECKING:
    from filterdb.store.database import Database


@commands.command()
@limits_option
@database
@kernel_option
@labels_and_verdicts
@mode_option
@densities_option
@click.option(
    "--port", type=WholeNumber(0), metavar="N", help="Port; 0 is any free one.  [default: 8470, if it is free]"
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. With any but a loopback address, other machines can connect, without encryption.",
)
@click.option("--no-token", is_flag=True, help="Answer requests without a token.")
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
def serve(db: Database, no_token: bool, no_browser: bool, as_json: bool, **options: Any) -> None:
    """Show the page of `report` live, in a browser, until Ctrl-C.

    The page is computed from summaries when it is opened, and its figures and tables when they are downloaded. Drop a
    model file onto it to see its nearest models and the findings of a check. A link always shows the same snapshot; an
    open page tells you when there is a newer one.

    Examples:
        filterdb serve db
        filterdb serve s3://bucket/db --no-browser --port 9000
    """
    from tempfile import TemporaryDirectory

    from filterdb.server.access import is_loopback
    from filterdb.server.serve import serve as start

    with TemporaryDirectory(prefix="filterdb-serve-") as folder, start(db, token=not no_token, **options) as server:
        if not is_loopback(options["host"]):
            click.echo(_warning(options["host"], no_token), err=True)
        print_answer({**head_of_database(db), "page": server.url}, as_json, show)
        sys.stdout.flush()
        if not (no_browser or as_json) and has_screen():
            open_in_browser(server.url, Path(folder))
        server.wait()


def show(answer: Answer) -> None:
    """Print where the page is."""
    click.echo(f"page: {answer['page']}")  # on one line, however narrow the terminal is
    click.echo("Press Ctrl-C to stop.", err=True)


def open_in_browser(address: str, folder: Path) -> None:
    """Open an address in a browser, by way of a file in a private folder.

    Every account of the machine can read the command line of a browser, so the address, with its token, is not there.
    """
    import webbrowser

    shown = escape(address)
    file = folder / "open.html"
    file.touch(0o600, exist_ok=False)
    file.write_text(
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={shown}">'
        f'<title>filterdb</title><p><a href="{shown}">Open the page</a></p>\n',
        "utf-8",
    )
    webbrowser.open(file.absolute().as_uri())


def has_screen() -> bool:
    """Return whether a browser would open where its user sees it: not over SSH, and not in this terminal."""
    return "SSH_CONNECTION" not in os.environ and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _warning(host: str, no_token: bool) -> str:
    who = "anyone who can reach this machine" if no_token else "anyone who has the address"
    return f"filterdb: warning: listening on {host}: {who} can read the page and send files, and nothing is encrypted"
