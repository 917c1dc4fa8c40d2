"""An S3-like server in memory that takes conditional puts for plain ones: the second writer wins without a word.

PUT, GET, HEAD, DELETE and list-objects-v2 on any bucket; signatures are not looked at.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "2026-01-01T00:00:00.000Z"
_HTTP_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


@contextmanager
def careless() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Serve; gives the endpoint and the objects, "bucket/key" → bytes."""
    objects: dict[str, bytes] = {}

    class Handler(_Handler):
        stored = objects

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="careless", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stored: dict[str, bytes]

    def do_PUT(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        data = self.rfile.read(size)
        if len(data) < size:
            self.close_connection = True
            return
        self.stored[self._key] = data
        self._answer(200, etag=_etag(data))

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "/" not in self._key:
            self._answer(200, self._listing(query))
        elif self._key in self.stored:
            self._answer(200, self.stored[self._key], _etag(self.stored[self._key]))
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")

    def do_HEAD(self) -> None:
        if "/" not in self._key:
            self._answer(200)
        elif self._key in self.stored:
            self._answer(200, self.stored[self._key], _etag(self.stored[self._key]))
        else:
            self._answer(404)

    def do_DELETE(self) -> None:
        self.stored.pop(self._key, None)
        self._answer(204)

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        inside = f"{self._key}/"
        keys = sorted(key.removeprefix(inside) for key in list(self.stored) if key.startswith(inside + prefix))
        folders = {prefix + rest.split(delimiter)[0] + delimiter for rest in _below(keys, prefix, delimiter)}
        keys = [key for key in keys if not (delimiter and delimiter in key.removeprefix(prefix))]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.stored[inside + key])}</Size>"
            f"<ETag>{_etag(self.stored[inside + key])}</ETag><LastModified>{_DATE}</LastModified></Contents>"
            for key in keys
        )
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in sorted(folders)
        )
        return (
            f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{len(keys) + len(folders)}</KeyCount>"
            f"{contents}{common}</ListBucketResult>"
        ).encode()

    def _answer(self, code: int, body: bytes = b"", etag: str | None = None) -> None:
        self.send_response(code)
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        if etag is not None:
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", _HTTP_DATE)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _below(keys: list[str], prefix: str, delimiter: str) -> list[str]:
    """What follows the prefix, of keys that lie in a folder."""
    rests = [key.removeprefix(prefix) for key in keys]
    return [rest for rest in rests if delimiter and delimiter in rest]
