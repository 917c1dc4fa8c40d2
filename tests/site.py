"""A web server for models, in a thread: ETags, HEAD, every request counted, and faults by path."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate

Fault = int | str
"""A status; or "truncated": half of the body is sent; "slow": the body never comes; "swapped": see `swapped`."""


@dataclass
class Site:
    """Files by path, and what a test sets and sees."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    """Faults of GETs, by path."""
    with_etag: bool = True
    with_time: bool = False
    swapped: dict[str, bytes] = field(default_factory=dict)
    """Files that change after they were first fetched whole."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    on_get: Callable[[int], object] | None = None
    """Called with the number of GETs so far, before one is answered."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def gets(self) -> Counter[str]:
        """Return how often each path was fetched."""
        return Counter(path for method, path in self.requests if method == "GET")

    def catalog(self, names: list[str], **columns: str) -> str:
        """Return a catalog of these files, with a column for each keyword."""
        head = ",".join(["path", "name", *columns])
        rows = [",".join([f"{self.url}/{name}.onnx", name, *columns.values()]) for name in names]
        return "\n".join([head, *rows]) + "\n"


class _Server(http.server.ThreadingHTTPServer):
    site: Site
    daemon_threads = True
    request_queue_size = 64


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        site = self.server.site
        with site.lock:
            site.requests.append(("GET", self.path))
            number = sum(method == "GET" for method, _ in site.requests)
            if site.on_get is not None:
                site.on_get(number)
            fault = site.faults.get(self.path)
        body = self._head(fault if isinstance(fault, int) else 200)
        if body is None:
            return
        if fault == "slow":
            site.ended.wait(60)
        if fault in {"slow", "truncated"}:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)
        if self.path in site.swapped and "Range" not in self.headers:
            site.files[self.path] = site.swapped.pop(self.path)

    def do_HEAD(self) -> None:
        with self.server.site.lock:
            self.server.site.requests.append(("HEAD", self.path))
        self._head(200)

    def _head(self, status: int) -> bytes | None:
        """Send the head of a reply, and return the body to send; None if there is none."""
        site = self.server.site
        body = site.files.get(self.path)
        if body is None or status != 200:
            self.send_response(404 if status == 200 else status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if site.with_etag:
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        if site.with_time:
            self.send_header("Last-Modified", formatdate(1_700_000_000, usegmt=True))
        self.end_headers()
        return body

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving() -> Iterator[Site]:
    """Serve a site at a port of its own."""
    site = Site()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.site = site
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds. Raises AssertionError if it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
