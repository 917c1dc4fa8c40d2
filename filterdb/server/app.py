"""Answer HTTP requests: pages, the files beside them, how far a page is, and where a model file is."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tornado.web import Application, Finish, RequestHandler, stream_request_body

from filterdb.errors import FilterDBError, StoreError, UsageError
from filterdb.models.limits import Limits
from filterdb.redaction import printable, redact
from filterdb.server.access import Access
from filterdb.server.pages import Page, Pages, Place
from filterdb.server.placing import Answer, locate
from filterdb.server.uploads import Upload
from filterdb.server.waiting import waiting_page
from filterdb.server.worker import BusyError, Worker

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".csv": "text/csv; charset=utf-8",
    ".parquet": "application/vnd.apache.parquet",
}
"""Content types of the files beside a page."""

HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "filterdb",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer. The policy is for files, such as a figure that is opened by itself; pages have their own."""

MOST_UPLOADS = 4
"""Most files that are received or read at a time."""

STALL_SECONDS = 60.0
"""Longest time between two parts of a file that is received: only MOST_UPLOADS are, so one that stalls has to go."""

UPLOAD_SECONDS = 7_200.0
"""Longest time to receive a file."""

MOST_ANSWERS = 100
"""Most answers about files that are kept."""

FIRST_BYTE_SECONDS = 0.1
"""Seconds to wait for a page before sending the one that shows its progress."""

STATE_SECONDS = 0.5
"""Seconds to wait for a page before answering with its progress."""

LOOK_SECONDS = 3.0
"""Shortest time between two checks for a new snapshot."""

log = logging.getLogger(__name__)


@dataclass
class Site:
    """What the handlers of a server share."""

    pages: Pages
    access: Access
    limits: Limits
    upload_bytes: int
    port: int
    newest: int
    """Number of the newest snapshot seen so far."""
    folder: str = ""
    """Where files are received, a private folder."""
    worker: Worker = field(default_factory=Worker)
    answers: OrderedDict[tuple[int, str], Answer] = field(default_factory=OrderedDict)
    uploads: int = 0
    looked: float = float("-inf")

    @property
    def cookie(self) -> str:
        """Return the name of the cookie with the token. All ports of a host share its cookies."""
        return f"filterdb-{self.port}"

    async def look(self) -> int:
        """Return the number of the newest snapshot, checked at most every LOOK_SECONDS."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.looked = time.monotonic()
            try:
                # In another thread than the worker's, which may be computing for a long time.
                self.newest = await asyncio.to_thread(self.pages.newest)
            except StoreError as error:
                log.warning("%s", error)
        return self.newest

    def keep(self, key: tuple[int, str], answer: Answer) -> None:
        """Keep an answer for links to it."""
        self.answers[key] = answer
        self.answers.move_to_end(key)
        while len(self.answers) > MOST_ANSWERS:
            self.answers.popitem(last=False)


def application(site: Site) -> Application:
    """Return the application with its routes. There are no others, and none maps a path to the disk."""
    page = r"/snapshot/(?P<snapshot>[0-9]{1,9})/(?P<folder>(?:[0-9]{1,3}x[0-9]{1,3}/)?)"
    routes: list[Any] = [
        (r"/(?P<folder>(?:[0-9]{1,3}x[0-9]{1,3}/)?)(?:index\.html)?", Newest),
        (rf"{page}(?P<file>(?:index\.html)?)", PageHandler),
        (rf"{page}state\.json", StateHandler),
        (rf"{page}(?P<path>(?:data/models|data|figures|tables)/[^/]+)", FileHandler),
        (rf"{page}(?P<path>model\.html)", ModelHandler),
        (r"/snapshot/(?P<snapshot>[0-9]{1,9})/files", UploadHandler),
        (r"/snapshot/(?P<snapshot>[0-9]{1,9})/files/(?P<id>[0-9a-f]{16})", AnswerHandler),
    ]
    return Application(
        [(pattern, handler, {"site": site}) for pattern, handler in routes],
        default_handler_class=Unknown,
        default_handler_args={"site": site},
        log_function=lambda handler: None,
    )


class Handler(RequestHandler):
    """Refuse requests without access, and report errors as one line of text."""

    is_page = False
    """Whether a person looks at the answer, so that a token in the address becomes a cookie."""

    def initialize(self, site: Site) -> None:
        """Take what all handlers share."""
        self.site = site

    def set_default_headers(self) -> None:
        """Set the headers of every answer."""
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse a request without access. A token in a page's address becomes a cookie and leaves the address."""
        in_address = self.get_query_arguments("token")
        word, _, value = self.request.headers.get("Authorization", "").partition(" ")
        in_header = [value.strip()] if word.lower() in {"token", "bearer"} else []
        in_cookie = self.get_cookie(self.site.cookie)
        tokens = [*in_address, *in_header, *([] if in_cookie is None else [in_cookie])]
        refusal = self.site.access.refusal(self.request.method or "", self.request.headers, tokens)
        if refusal is not None:
            self.fail(403, refusal)
        if self.is_page and in_address and self.site.access.token is not None:
            # Lax: a link from elsewhere opens the page, but no other site's script gets at it.
            self.set_cookie(self.site.cookie, self.site.access.token, httponly=True, samesite="Lax", path="/")
            self.go_to("")

    def go_to(self, address: str) -> None:
        """Send the client to an address relative to this one, with the query but the token and the snapshot.

        It is relative so that it also holds behind a proxy that serves this server below a path of its own.
        """
        pairs = [pair for pair in self.request.query.split("&") if pair.partition("=")[0] not in {"token", "snapshot"}]
        if not address:  # this page again: the snapshot may be in the query
            pairs = [pair for pair in self.request.query.split("&") if pair.partition("=")[0] != "token"]
        query = "&".join(filter(None, pairs))
        last = (self.request.path or "").rpartition("/")[2]
        self.set_status(302)
        self.set_header("Location", f"{address or f'./{last}'}{f'?{query}' if query else ''}")
        raise Finish

    def fail(self, status: int, line: str) -> NoReturn:
        """End the request with an error, reported in one line."""
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if status == 503:
            self.set_header("Retry-After", "2")
        raise Finish(f"{printable(line)}\n")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Report an error in a line, without a traceback."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{self._reason}\n")

    async def computed[T](self, future: asyncio.Future[T]) -> T:
        """Wait for a result; an error becomes an answer."""
        try:
            return await asyncio.shield(future)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a line
            self.fail(*explained(error))

    def begin(self, key: Any, function: Any, *arguments: Any) -> asyncio.Future[Any]:
        """Start a computation; answer 503 if too many wait."""
        try:
            return self.site.worker.begin(key, function, *arguments)
        except BusyError:
            self.fail(503, "busy: too many computations are waiting; try again")

    def begin_page(self, place: Place) -> asyncio.Future[Page]:
        """Start to compute a page, unless that was done."""
        return self.begin(("page", place), self.site.pages.build, place)


class Unknown(Handler):
    """Answer 404."""

    def prepare(self) -> None:
        """Check the access before reporting that there is no such path."""
        super().prepare()
        self.fail(404, "expected the path of a page or of one of its files, got another")


class Newest(Handler):
    """Redirect to the page of the newest snapshot, or of the one in the query, whose address never changes."""

    is_page = True

    async def get(self, folder: str) -> None:
        """Send the client to the page."""
        wanted = self.get_query_argument("snapshot", "")
        if wanted:
            number = await self.computed(self.begin(("snapshot", wanted), self.site.pages.resolve, wanted))
        else:
            number = await self.site.look()
        up = "../" if folder else ""
        self.go_to(f"{up}snapshot/{number}/{folder}")


class PageHandler(Handler):
    """Answer with a page or, until it is computed, with one that shows its progress."""

    is_page = True

    async def get(self, snapshot: str, folder: str, file: str) -> None:
        """Answer 200 with the page, 202 with the page that shows its progress, or the error."""
        del file
        place = Place(int(snapshot), folder)
        page = self.site.pages.built(place)
        if page is None:
            future = self.begin_page(place)
            done, _ = await asyncio.wait([future], timeout=FIRST_BYTE_SECONDS)
            if done:
                page = await self.computed(future)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'")  # more is in the page itself
        if page is not None:
            self.finish(page.html)
            return
        self.set_status(202)
        self.set_header("Retry-After", "1")
        self.finish(waiting_page(self.site.pages.db, place))


class StateHandler(Handler):
    """Answer with the progress of a page and the number of the newest snapshot."""

    async def get(self, snapshot: str, folder: str) -> None:
        """Answer with JSON."""
        place = Place(int(snapshot), folder)
        is_ready = self.site.pages.built(place) is not None
        error = None
        if not is_ready:
            future = self.begin_page(place)
            # Wait for a while, so that the page is shown as soon as it is there.
            done, _ = await asyncio.wait([future], timeout=STATE_SECONDS)
            if done:
                is_ready = future.exception() is None
                error = None if is_ready else explained(future.exception())[1]
        progress = self.site.pages.progress.get(place)
        seconds = None if progress is None else round(time.monotonic() - progress.began, 1)
        step: dict[str, Any] = {"step": None, "done": 0, "steps": 0}
        if progress is not None:
            step = {"step": progress.step, "done": progress.done, "steps": progress.steps}
        newest = await self.site.look()
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"ready": is_ready, "error": error, **step, "seconds": seconds, "newest": newest}))


class FileHandler(Handler):
    """Answer with a file beside a page, made when it is asked for."""

    async def get(self, snapshot: str, folder: str, path: str) -> None:
        """Answer with the file, or 404."""
        place, pages = Place(int(snapshot), folder), self.site.pages
        data = pages.kept_file(place, path)
        if data is None:
            data = await self.computed(self.begin(("file", place, path), pages.file, place, path))
        if data is None:
            self.fail(404, "expected a file of this page, got another path")
        self.set_header("Content-Type", TYPES[f".{path.rpartition('.')[2]}"])
        if path.startswith("tables/"):
            self.set_header("Content-Disposition", "attachment")
        self.finish(data)


class ModelHandler(FileHandler):
    """Answer with the page that shows one model."""

    is_page = True

    async def get(self, snapshot: str, folder: str, path: str) -> None:
        """Answer with the page, whose own policy allows its script."""
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'")
        await super().get(snapshot, folder, path)


class AnswerHandler(Handler):
    """Answer again with the result of an earlier upload."""

    async def get(self, snapshot: str, id: str) -> None:
        """Answer with JSON, or 404."""
        answer = self.site.answers.get((int(snapshot), id))
        if answer is None:
            self.fail(404, "this answer is no longer kept, or belongs to another snapshot; drop the file again")
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(answer))


@stream_request_body
class UploadHandler(Handler):
    """Receive a model file and answer with its nearest models and the findings about it."""

    upload: Upload | None = None
    no_room = ""
    deadline: asyncio.TimerHandle | None = None
    """When the connection is closed, unless more of the file is received before."""

    def prepare(self) -> None:
        """Refuse a file before it is sent, without access, for its size, or while too many others are read."""
        super().prepare()
        if self.request.method != "POST":
            self.fail(405, "files: expected POST, got another method")
        limit = self.site.upload_bytes
        length = self.request.headers.get("Content-Length")
        if length is not None and length.isdigit() and int(length) > limit:
            self.fail(413, _too_large(int(length), limit))
        if self.site.uploads >= MOST_UPLOADS:
            self.fail(503, "busy: other files are being read; try again")
        connection: Any = self.request.connection
        connection.set_max_body_size(limit)
        connection.set_body_timeout(UPLOAD_SECONDS)
        try:
            self.upload = Upload(self.get_query_argument("name", "model"), self.site.folder)
        except OSError as error:
            self.fail(507, _no_room(error))
        self.site.uploads += 1
        self._renew_deadline()

    def _renew_deadline(self) -> None:
        self._end_deadline()
        connection: Any = self.request.connection
        self.deadline = asyncio.get_running_loop().call_later(STALL_SECONDS, connection.stream.close)

    def _end_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()

    def data_received(self, chunk: bytes) -> None:
        """Write some bytes of the file."""
        if self.upload is None:
            return
        self._renew_deadline()
        if self.no_room:
            return
        try:
            self.upload.write(chunk)
        except OSError as error:
            self.no_room = _no_room(error)

    async def post(self, snapshot: str) -> None:
        """Answer with JSON: the nearest models and the findings."""
        self._end_deadline()
        upload = self.upload
        if self.no_room:
            self.fail(507, self.no_room)
        if upload is None or not upload.size:
            self.fail(400, "files: expected the bytes of a model file as the body, got none")
        try:
            key = int(snapshot), upload.finish()
        except OSError as error:
            self.fail(507, _no_room(error))
        # Not shared with who sends the same bytes: that file may have another name, and ends with its own request.
        future = self.begin(("upload", upload.path), self._locate, int(snapshot), upload)
        located = await self.computed(future)
        if located is None or self.upload is not upload:
            return  # The client has gone, and with it the file: what could not be read is no answer about it.
        answer: Answer = {"id": key[1], "bytes": upload.size, **located}
        self.site.keep(key, answer)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(answer))

    def _locate(self, snapshot: int, upload: Upload) -> Answer | None:
        """Return the place of a file, in the worker's thread; None if its client went while it waited."""
        if self.upload is not upload:
            return None
        return locate(self.site.pages.database(snapshot), upload.path, upload.name, self.site.limits)

    def on_finish(self) -> None:
        """Remove the file once it is answered."""
        self._remove()

    def on_connection_close(self) -> None:
        """Remove the file of a client that has gone."""
        super().on_connection_close()
        self._remove()

    def _remove(self) -> None:
        self._end_deadline()
        if self.upload is not None:
            self.upload.close()
            self.upload = None
            self.site.uploads -= 1


def explained(error: BaseException | None) -> tuple[int, str]:
    """Return the status and the line for an error of a computation."""
    line = " ".join(redact(str(error)).split())
    if isinstance(error, UsageError):
        return 404, line
    if isinstance(error, FilterDBError):
        return 500, line
    log.debug("%s", line, exc_info=error)
    return 500, f"unexpected {type(error).__name__}: {line}; please report it"


def _no_room(error: OSError) -> str:
    return f"files: no room for the file: {error.strerror}; free some disk space"


def _too_large(size: int, limit: int) -> str:
    return f"files: the file is {size / 2**20:,.0f} MiB, the limit {limit / 2**20:,.0f} MiB; raise --model-memory"
