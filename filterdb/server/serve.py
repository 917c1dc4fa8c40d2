"""Start the server of a database's page, in a thread of this process."""

from __future__ import annotations

import asyncio
import errno
import socket
import tempfile
import threading
from html import escape
from types import TracebackType
from typing import TYPE_CHECKING

from filterdb.errors import StoreError, UsageError
from filterdb.extras import require
from filterdb.models.limits import Limits
from filterdb.numerics.modes import ModeName, as_mode
from filterdb.schema import AnyKernel
from filterdb.server.access import Access, is_loopback, names_of, new_token
from filterdb.store.database import AnyDatabase, as_database

if TYPE_CHECKING:
    from filterdb.server.app import Site

PORT = 8470
"""The port, if it is free, so that links still work after a restart."""

MOST_PORT = 65_535

UPLOADS = 2
"""Largest received file, as a multiple of the memory for reading one, which never holds all weights at a time."""

LOOK_SECONDS = 10
"""Seconds between two checks of an open page for a new snapshot."""

SMALL_BODY = 2**16
"""Most bytes of a request that sends no file."""

SMALL_BODY_SECONDS = 60
"""Longest time to receive such a body."""

STOP_SECONDS = 5.0


class Server:
    """A running server. `serve` starts it; `stop`, or the end of a `with` block, stops it.

    In a notebook it shows a link to the page.

    Examples
    --------
    >>> with fdb.serve("db") as server:  # doctest: +SKIP
    ...     print(server.url)
    http://127.0.0.1:8470/?token=…
    """

    def __init__(self, site: Site, sockets: list[socket.socket], host: str) -> None:
        self._site, self._sockets, self._folder = site, sockets, tempfile.TemporaryDirectory(prefix="filterdb-serve-")
        site.folder = self._folder.name
        name = host if is_loopback(host) else _name_of(host)
        token = site.access.token
        shown = f"[{name}]" if ":" in name else name
        self.url = f"http://{shown}:{site.port}/{'' if token is None else f'?token={token}'}"
        """The address of the page, with the token."""
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="filterdb-serve", daemon=True)
        self._thread.start()
        self._started.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._answer())
        finally:
            self._loop.close()

    async def _answer(self) -> None:
        """Answer requests until the end."""
        from tornado.httpserver import HTTPServer

        from filterdb.server.app import application
        from filterdb.server.pages import Place

        server = HTTPServer(
            application(self._site),
            max_body_size=SMALL_BODY,
            body_timeout=SMALL_BODY_SECONDS,
            idle_connection_timeout=600,
        )
        server.add_sockets(self._sockets)
        # Compute the first page now: most likely somebody opens it soon.
        first = Place(self._site.newest, "")
        self._site.worker.begin(("page", first), self._site.pages.build, first)
        self._started.set()
        await self._end.wait()
        server.stop()
        await server.close_all_connections()

    def wait(self) -> None:
        """Wait until the server has been stopped, for a script that does nothing else."""
        self._thread.join()

    def stop(self) -> None:
        """Stop the server and remove the files that it received, without waiting for a running computation."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(STOP_SECONDS)
        self._site.worker.stop()
        self._folder.cleanup()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<filterdb server {self.url}{'' if self._thread.is_alive() else ', stopped'}>"

    def _repr_html_(self) -> str:
        if not self._thread.is_alive():
            return "<p>The server has been stopped.</p>"
        link = f'<a href="{escape(self.url)}" target="_blank" rel="noopener noreferrer">Open the page</a>'
        return f"<p>{link} of {escape(self._site.pages.db.url)}. <code>.stop()</code> stops the server.</p>"


def serve(
    db: AnyDatabase,
    *,
    kernel: AnyKernel | None = None,
    mode: ModeName = "sound",
    densities: bool | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    host: str = "127.0.0.1",
    port: int | None = None,
    token: bool = True,
) -> Server:
    """Start a server that shows the page of a view in browsers, in a thread of this process.

    The page is that of `report`, computed from the summaries of the database when it is opened. Its figures and tables
    are made when they are downloaded. A model file that is dropped onto the page is compared with the models. An open
    page tells its reader when there is a newer snapshot. Each address contains its snapshot, so a link always shows the
    same data.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    kernel : (int, int) or str, optional
        Only the page of this shape, as in `report`. Default: all shapes of at most 121 weights with at least 1,000
        filters.
    mode : {"sound", "paper"}
        As in `drift`. Default: "sound".
    densities : bool, optional
        As in `report`. Default: for up to 50 million filters.
    limits : Limits
        Time and memory for reading a dropped file, which may be twice as large as this memory.
        Default: `Limits()`.
    host : str
        The address to listen on. With any but a loopback address, other machines can connect, without encryption.
        Default: "127.0.0.1".
    port : int, optional
        The port; 0 chooses a free one. Default: 8470, or any free port if that is in use.
    token : bool
        Whether requests need the token in the server's `url`. Default: True.

    Returns
    -------
    Server
        The running server: its `url`, `wait()` and `stop()`.

    Raises
    ------
    MissingExtraError
        Without the extra `serve`.
    UsageError
        If the port is in use, or the address is not one of this machine.
    InputError
        For a database without filters.

    Examples
    --------
    >>> server = fdb.serve(db)  # doctest: +SKIP
    >>> server.stop()  # doctest: +SKIP
    """
    for module in ("tornado", "jinja2", "matplotlib"):
        require(module)
    from filterdb.page.report import banks_with_pages
    from filterdb.server.app import Site
    from filterdb.server.pages import Pages

    as_mode(mode)
    opened = as_database(db, kernel=kernel)
    banks_with_pages(opened, only=kernel is not None)  # fail before anything listens
    sockets = _listen(host, port)
    live = {"limit": UPLOADS * limits.memory, "seconds": LOOK_SECONDS}
    site = Site(
        pages=Pages(opened, mode, densities, only=kernel is not None, live=live),
        access=Access(host, new_token() if token else None, names_of(host)),
        limits=limits,
        upload_bytes=live["limit"],
        port=sockets[0].getsockname()[1],
        newest=opened.snapshot,
    )
    return Server(site, sockets, host)


def _listen(host: str, port: int | None) -> list[socket.socket]:
    """Return sockets that listen on a port of an address. Raises UsageError for one that cannot be used."""
    from tornado.netutil import bind_sockets

    if port is not None and not 0 <= port <= MOST_PORT:
        raise UsageError(f"port: expected 0 to {MOST_PORT}, got {port}")
    try:
        return bind_sockets(PORT if port is None else port, host)
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return _listen(host, 0)
        if error.errno == errno.EADDRINUSE:
            message = f"port: expected a free port, got {port}, which is in use; choose another, or 0 for any"
            raise UsageError(message) from error
        if error.errno == errno.EACCES:
            raise UsageError(f"port: expected a port that you may use, got {port}; choose 1024 or higher") from error
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(
                f"host: expected an address of this machine, got {host}; leave it out for 127.0.0.1"
            ) from (error)
        raise StoreError(f"{host}:{port}: cannot listen there: {error.strerror}") from error


def _name_of(host: str) -> str:
    """Return the name under which others reach an address of this machine."""
    return socket.gethostname() if host in {"0.0.0.0", "::", ""} else host
