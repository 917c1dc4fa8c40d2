"""Credentials in URLs: kinds of URL × kinds of failure × channels, with planted secrets that are nowhere afterwards."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import os
import pickle
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

import filterdb as fdb
from filterdb import logs
from filterdb.commands.junit import junit
from filterdb.commands.sarif import sarif
from filterdb.errors import FilterDBError
from filterdb.store import download, remote
from tests.models import chain, weights
from tests.several import run_several

pytestmark = pytest.mark.slow

CORE = "pl4nted"
"""Stands in every secret, whatever the way in which it is spelled; also as base64 makes of it behind `user:`."""

MARKS = [CORE, base64.b64encode(f"user:{CORE}".encode()).decode()[:14]]

URLS: dict[str, Callable[[str, str], str]] = {
    "password": lambda host, path: f"http://user:{CORE}1@{host}{path}",
    "encoded password": lambda host, path: f"http://user:{CORE}%2F%401@{host}{path}",
    "token": lambda host, path: f"http://{CORE}1@{host}{path}",
    "signature": lambda host, path: f"http://{host}{path}?X-Amz-Signature={CORE}%2F2&X-Amz-Date=20200101",
    "everything": lambda host, path: f"http://user:{CORE}1@{host}{path}?sig={CORE}2&x=y#access_token={CORE}3",
}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Fails in the way that the path's first folder says; else serves the server's `files`."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        kind = path.split("/")[1]
        server: Any = self.server
        if kind.isdigit():
            self.answer(int(kind), b"no: " + self.path.encode())
        elif kind == "slow":
            server.ended.wait(60)
        elif kind == "reset":
            self.connection.close()
        elif kind == "redirect":
            self.send_response(302)
            self.send_header("Location", f"http://{server.host}/403/m.onnx?Signature={CORE}9")
            self.end_headers()
        elif kind == "short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
            self.connection.close()
        else:
            data = server.files.get(path)
            self.answer(404 if data is None else 200, data or b"none")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def answer(self, code: int, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[str]:
    """Serve files and failures on a port of this host; gives host:port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        host = f"127.0.0.1:{server.server_address[1]}"
        vars(server).update(files=files, host=host, ended=threading.Event())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield host
        finally:
            vars(server)["ended"].set()
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import onnx

    folder = tmp_path_factory.mktemp("served")
    good = chain(folder / "good.onnx", weights()).read_bytes()
    chain(folder / "split.onnx", weights())
    onnx.save_model(
        onnx.load(folder / "split.onnx"), folder / "split.onnx", save_as_external_data=True, location="gone.data",
        size_threshold=0,
    )  # fmt: skip
    files = {
        "/ok/m.onnx": good,
        "/lfs/m.onnx": LFS,
        "/junk/m.onnx": b"\xff" * 64,
        "/split/m.onnx": (folder / "split.onnx").read_bytes(),
        "/ok/list.csv": b"path,name\nm.onnx\n",
    }
    with serving(files) as address:
        yield address


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def failing(kind: str, failure: str, host: str) -> str:
    """A URL of this kind whose fetching fails in this way."""
    if failure == "refused":
        return URLS[kind](closed_port(), "/ok/m.onnx")
    if failure == "no such host":
        return URLS[kind]("no-such-host.invalid", "/ok/m.onnx")
    if failure == "bad tls":
        return URLS[kind](host, "/ok/m.onnx").replace("http://", "https://")
    if failure == "bad port":
        return URLS[kind]("127.0.0.1:abc", "/ok/m.onnx")
    if failure == "unknown protocol":
        return URLS[kind](host, "/ok/m.onnx").replace("http://", "nonsense://")
    if failure == "odd host":
        return URLS[kind]("[", "/ok/m.onnx")
    if failure == "s3 bucket":
        return URLS[kind]("bucket", "/ok/m.onnx").replace("http://", "s3://")
    return URLS[kind](host, f"/{failure}/m.onnx")


FAILURES = [
    "404", "401", "403", "500", "reset", "short", "slow", "redirect", "lfs", "junk", "split", "refused", "bad tls",
    "no such host", "bad port", "unknown protocol", "odd host", "s3 bucket",
]  # fmt: skip


def planted(*texts: str | bytes) -> list[str]:
    """Where a secret stands in these texts."""
    return [
        f"…{data[max(0, at - 100) : at + 30]!r}"
        for text in texts
        for data in [text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")]
        for mark in MARKS
        if (at := data.find(mark.encode())) >= 0
    ]


def written(folder: Path) -> list[bytes]:
    """The names and bytes of all files below a folder."""
    return [part for path in folder.rglob("*") if path.is_file() for part in (os.fsencode(path), path.read_bytes())]


def told(error: BaseException) -> list[str | bytes]:
    """An error as it is shown, and as it goes from a worker to the client: with all that it hangs on to."""
    chain, ahead = [], [error]
    while ahead:
        link = ahead.pop()
        chain.append(link)
        ahead += [other for other in (link.__cause__, link.__context__) if other is not None and other not in chain]
    return [*map(str, chain), *map(repr, chain), "".join(traceback.format_exception(error)), pickle.dumps(error)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is slow counts as one that hangs, and a failing one is not asked again."""
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{closed_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(download, "FETCH_SECONDS", 1.0)
    monkeypatch.setattr(remote, "READ_SECONDS", 1.0)
    monkeypatch.setattr(remote, "TRIES", 1)
    monkeypatch.setattr("filterdb.store.http.TRIES", 1)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_tells_no_secret(
    failure: str, host: str, tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Through ingest (alone and beside a sound model), check with its files, and a catalog: 65 or 74, one line."""
    if failure == "slow":  # waited for 30 times
        monkeypatch.setattr(download, "FETCH_SECONDS", 0.2)
        monkeypatch.setattr(remote, "READ_SECONDS", 0.2)
    caplog.set_level(logging.DEBUG, "filterdb")
    said: list[str | bytes] = []
    good = chain(tmp_path / "good.onnx", weights(2, 2, seed=3))
    for kind in URLS:
        url = failing(kind, failure, host)
        (tmp_path / "list.csv").write_text(f"path,name,url\n{url},m,{url}\n")
        for attempt in (
            lambda url=url: fdb.ingest(tmp_path / "alone", [url]),
            lambda: fdb.ingest(tmp_path / "alone", catalog=tmp_path / "list.csv"),
            lambda url=url: fdb.ingest(tmp_path / "alone", catalog=url.replace("m.onnx", "list.csv")),
            lambda url=url: fdb.nearest(fdb.ingest(tmp_path / "near", [good]).database, url),
        ):
            with pytest.raises(FilterDBError) as caught:
                attempt()
            assert caught.value.exit_code in {65, 74} and "\n" not in str(caught.value), str(caught.value)
            said += told(caught.value)
        try:
            said.append(str(fdb.ingest(tmp_path / "db", [good, url]).rejected))
        except FilterDBError as error:
            said += told(error)
        try:
            result = fdb.check(url)
            said += [json.dumps(result.to_dict(), default=str), sarif(result), junit(result)]
        except FilterDBError as error:
            said += told(error)
    lines = [formatter.format(record) for record in caplog.records for formatter in (logs._Json(), logs._Words())]
    assert not planted(*said, *lines)
    assert not planted(*(data for folder in ("db", "alone", "near") for data in written(tmp_path / folder)))


@pytest.mark.parametrize("url", [
    f"s3://key:{CORE}@bucket/db", f"http://user:{CORE}@127.0.0.1:1/db", f"https://127.0.0.1:1/db?sig={CORE}",
    f"https://127.0.0.1:1/db#{CORE}", f"s3://bucket/db?X-Amz-Signature={CORE}", f"http://user:{CORE}@[/db",
])  # fmt: skip
def test_a_database_url_with_credentials_is_refused(url: str, tmp_path: Path) -> None:
    good = chain(tmp_path / "good.onnx", weights())
    db = fdb.ingest(tmp_path / "db", [good]).database
    attempts: list[Callable[[], Any]] = [
        lambda: fdb.open(url),
        lambda: fdb.ingest(url, [good]),
        lambda: fdb.check(good, db=url),
        lambda: fdb.nearest(url, good),
        lambda: fdb.gc(url),
        lambda: fdb.report(db, url),
    ]
    for attempt in attempts:
        with pytest.raises(FilterDBError, match="expected a URL without user, password, query or fragment") as caught:
            attempt()
        assert caught.value.exit_code == 2 and not planted(*told(caught.value))


@pytest.mark.parametrize("where", [
    pytest.param(("--threads", 1), id="threads"), pytest.param(("--workers", 1), id="workers", marks=pytest.mark.soak),
])  # fmt: skip
def test_the_command_tells_no_secret(
    where: tuple[object, ...], host: str, s3: Callable[[], str], tmp_path: Path
) -> None:
    """Success and failure, with tracebacks and JSON logs; then the page, and every byte of the database on S3."""
    url, prefix = URLS["everything"](host, "/ok/m.onnx"), s3()
    (tmp_path / "list.csv").write_text(f"path,task,url,source\n{url},seg,{url},from {url}\n")
    said: list[str] = []
    commands = (
        (0, ("ingest", f"{prefix}/db", "--catalog", tmp_path / "list.csv")),
        (0, ("ingest", f"{prefix}/db", "--catalog", tmp_path / "list.csv")),
        (0, ("relabel", f"{prefix}/db", "--catalog", tmp_path / "list.csv")),
        (0, ("models", f"{prefix}/db", "--json")),
        (0, ("layers", f"{prefix}/db")),
        (0, ("nearest", f"{prefix}/db", url, "--json")),
        (0, ("report", f"{prefix}/db", "-o", tmp_path / "page")),
        (65, ("ingest", f"{prefix}/db", failing("everything", "404", host))),
        (65, ("ingest", f"{prefix}/db", failing("everything", "lfs", host))),
        (74, ("ingest", f"{prefix}/db", failing("everything", "403", host))),
        (2, ("ingest", f"{prefix}/db", url, url, "--no-such-option", url)),
        (2, ("info", f"s3://key:{CORE}@bucket/db")),
        (0, ("check", url, "--sarif", tmp_path / "out.sarif", "--junit", tmp_path / "out.xml")),
        (65, ("check", failing("everything", "404", host), "--json")),
    )
    environment = {**os.environ, "FILTERDB_LOG": "json"}
    done = run_several(*((*args, *where, "--debug") for _, args in commands), env=environment)
    for (code, args), result in zip(commands, done, strict=True):
        assert result.returncode == code, (args, result)
        said += [result.stdout, result.stderr]
    files = fsspec.filesystem("s3")
    objects = files.cat(files.find(prefix))
    assert len(objects) > 5
    assert not planted(*said, *objects, *objects.values(), *written(tmp_path / "page"))
    assert not planted((tmp_path / "out.sarif").read_bytes(), (tmp_path / "out.xml").read_bytes())


def test_task_keys_and_progress(
    host: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Dask shows of the work: keys, and the functions and arguments that a worker logs when a task fails.

    A file that cannot be fetched is rejected; a task fails where this machine has no room for any file.
    """
    import errno

    from distributed import Client, LocalCluster

    url = URLS["everything"](host, "/ok/m.onnx")
    real = remote.call

    def full(url: str, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "get_file":
            raise OSError(errno.ENOSPC, f"no space for {url}")
        return real(url, method, *args, **kwargs)

    monkeypatch.setattr(remote, "call", full)
    caplog.set_level(logging.INFO)
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster, Client(cluster) as client:
        with pytest.raises(FilterDBError) as caught:
            fdb.ingest(tmp_path / "db", [url])
        deadline = time.monotonic() + 120
        while "Compute Failed" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        keys = str(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes)))
    assert "Compute Failed" in caplog.text and "scan" in keys
    assert not planted(keys, caplog.text, *told(caught.value))
