"""A small database with a server of its page, and a client that sends what it likes."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
import pandas as pd

import filterdb as fdb
from tests.filters import network
from tests.page.conftest import HOSTILE

NAMES = ("cat net", HOSTILE[0], "dog net", "another dog net")


def make_database(folder: Path) -> fdb.Database:
    """Four models of two tasks, 5,632 filters each, one with a name that would like to be more."""
    for number in range(len(NAMES)):
        network(folder / f"{number}.onnx", seed=number, family=number % 2)
    rows = [
        {"path": f"{n}.onnx", "name": name, "task": ("cats", "dogs")[n % 2], "training_dataset": "photos"}
        for n, name in enumerate(NAMES)
    ]
    pd.DataFrame(rows).to_csv(folder / "catalog.csv", index=False)
    return fdb.ingest(folder / "db", catalog=folder / "catalog.csv").database


@contextmanager
def serving(db: fdb.Database, **options: Any) -> Iterator[Client]:
    """A server on a free port."""
    with dask.config.set(scheduler="threads"), fdb.serve(db, **{"port": 0, **options}) as server:
        yield Client(server)


@dataclass
class Response:
    """An answer: its status, headers and bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def line(self) -> str:
        """The body of an error, which is one line."""
        text = self.body.decode()
        assert text.endswith("\n") and text.count("\n") == 1 and "Traceback" not in text
        return text[:-1]


class Client:
    """Sends requests to a server, with its token unless told otherwise."""

    def __init__(self, server: fdb.Server) -> None:
        self.server = server
        split = urlsplit(server.url)
        self.port = split.port or 0
        self.host, self.token = f"127.0.0.1:{self.port}", split.query.partition("=")[2]

    def send(
        self, path: str, method: str = "GET", body: bytes | None = None, *, token: bool = True, **headers: str
    ) -> Response:
        """Send a request; `_` in the name of a header stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Host": self.host, **({"Authorization": f"token {self.token}"} if token else {})}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if body is not None and "Content-Length" not in sent:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    @contextmanager
    def connected(self, head: str, body: bytes) -> Iterator[socket.socket]:
        """A connection by which a request with these first lines and the beginning of its body, or all, was sent."""
        length = "" if "Content-Length" in head else f"\r\nContent-Length: {len(body)}"
        lines = f"{head}{length}\r\nHost: {self.host}\r\nAuthorization: token {self.token}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(lines.encode() + body)
            yield connection

    def json(self, path: str, **more: Any) -> dict[str, Any]:
        """Return the JSON of a successful answer."""
        answer = self.send(path, **more)
        assert answer.status == 200, answer.body
        values: dict[str, Any] = json.loads(answer.body)
        return values

    def wait(self, page: str = "/snapshot/0/") -> bytes:
        """Return a page once it is computed."""
        while not self.json(f"{page}state.json")["ready"]:
            pass
        return self.send(page).body
