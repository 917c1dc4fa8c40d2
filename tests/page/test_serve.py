"""The server of a page: it says what the written page says, and to nobody else."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import dask
import pytest

import filterdb as fdb
from filterdb.errors import UsageError
from filterdb.page import tables
from filterdb.page.model_pages import ModelPages
from filterdb.page.page_files import data_files, download
from filterdb.page.report import compute_sections, model_links, page_html
from filterdb.page.results import gather
from filterdb.server import placing
from filterdb.server.access import Access, names_of
from filterdb.server.app import MOST_UPLOADS
from filterdb.server.pages import Cache, Place
from filterdb.server.placing import Answer
from filterdb.server.uploads import Upload, base_name
from filterdb.server.waiting import waiting_page
from filterdb.server.worker import MOST_WAITING, BusyError, Worker
from tests.page.conftest import HOSTILE
from tests.page.served import NAMES, Client, make_database, serving
from tests.site import wait_until

pytestmark = pytest.mark.slow

PAGE, FILES = "/snapshot/0/", "/snapshot/0/files"
SVG = "figures/contents.svg"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    with dask.config.set(scheduler="threads"):
        return make_database(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(db: fdb.Database) -> Iterator[Client]:
    with serving(db) as client:
        yield client


def test_the_page_and_its_files_are_those_of_report(db: fdb.Database, client: Client) -> None:
    with dask.config.set(scheduler="threads"):
        results = gather(db, "sound")
        sections = compute_sections(results)
        written = page_html(results, sections, []).decode()
        files = {path: data for section in sections for path, data in data_files(section).items()}
        for section in sections:
            for table in section.tables():
                files |= tables.files(table.name, table.rows, csv=table.has_csv)
        names = {f"figures/{picture.name}.svg" for section in sections for picture in section.pictures()}
    served = client.wait().decode()
    core = re.compile(r'<script type="application/json" id="core">(.*?)</script>', re.DOTALL)
    for html in (written, served):
        assert core.search(html)
    shared, live = (json.loads(core.search(html)[1]) for html in (written, served))  # type: ignore[index]
    assert live.pop("live")["snapshot"] == db.snapshot + 1  # the one with the basis
    assert live == shared
    between = re.compile(r"<header.*</main>", re.DOTALL)
    assert between.search(served)[0] == between.search(written)[0]  # type: ignore[index]
    assert len(files) > 20 and {path: client.send(PAGE + path).body for path in files} == files
    assert download(sections, SVG)[SVG] == client.send(PAGE + SVG).body
    models, links = ModelPages(results), model_links([results.db], 0)
    for path in ("model.html", "data/models/0.js", "data/models/1.js"):
        assert client.send(PAGE + path).body == models.file(path, links)
    linked = set(re.findall(r'href="(figures/[^"]+\.svg)"', served))
    assert linked and linked <= names


def test_the_first_byte_does_not_wait_for_the_page(db: fdb.Database) -> None:
    with serving(db) as fresh:
        began = time.monotonic()
        answer = fresh.send(PAGE)
        assert answer.status in {200, 202} and time.monotonic() - began < 2
        if answer.status == 202:
            assert b"being computed" in answer.body and b"snapshot 0" in answer.body
        assert b"being computed" not in fresh.wait()
        assert fresh.send(PAGE).status == 200


def test_addresses_name_their_snapshot(client: Client) -> None:
    for path, target in [
        ("/", "snapshot/0/"),
        ("/index.html", "snapshot/0/"),
        ("/?snapshot=0&a=b", "snapshot/0/?a=b"),
        ("/5x5/?file=x", "../snapshot/0/5x5/?file=x"),
    ]:
        answer = client.send(path)
        assert (answer.status, answer.headers["Location"]) == (302, target), path
    answer = client.send("/?snapshot=99")
    assert answer.status == 404 and "99" in answer.line


def test_the_token_becomes_a_cookie(client: Client) -> None:
    answer = client.send(f"/?token={client.token}&snapshot=0", token=False)
    assert (answer.status, answer.headers["Location"]) == (302, "./?snapshot=0")
    cookie = answer.headers["Set-Cookie"]
    assert client.token in cookie and {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert client.send("/", token=False, Cookie=cookie.partition(";")[0]).status == 302


EVIL = "http://evil.example"

REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "no token": (403, {"token": False}),
    "a wrong token": (403, {"token": False, "Authorization": "token x"}),
    "a token that is no ASCII": (403, {"token": False, "Cookie": "filterdb-{port}=\xff\xfe"}),
    "another server's cookie": (403, {"token": False, "Cookie": "filterdb-1={token}"}),
    "a name that was rebound": (403, {"Host": "evil.example:{port}"}),
    "a name that begins like ours": (403, {"Host": "localhost.evil.example"}),
    "an address of elsewhere": (403, {"Host": "10.0.0.1"}),
    "a host that is none": (403, {"Host": "["}),
    "another site": (403, {"Origin": EVIL}),
    "a file or a sandbox": (403, {"Origin": "null"}),
    "another port of this machine": (403, {"Origin": "http://127.0.0.1:1"}),
    "a script of another site": (403, {"Sec_Fetch_Site": "cross-site"}),
    "a script of another port": (403, {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"}),
    "a frame of another site": (
        403,
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_is_refused_on_every_path(client: Client, what: str) -> None:
    status, options = REFUSED[what]
    filled = {
        name: value.format(port=client.port, token=client.token) if isinstance(value, str) else value
        for name, value in options.items()
    }
    for method, path in (("GET", "/"), ("GET", PAGE), ("GET", f"{PAGE}data/models.js"), ("GET", "/x"), ("POST", FILES)):
        body = b"x" if method == "POST" else None
        answer = client.send(path, method, body, **filled)  # type: ignore[arg-type]
        assert answer.status == status, path
        assert client.token not in answer.line and NAMES[0].encode() not in answer.body


def test_a_link_of_another_site_opens_the_page(client: Client) -> None:
    visit: dict[str, Any] = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert client.send("/", **visit).status == 302
    assert client.send(FILES, "POST", b"x", **visit).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/snapshot/0/../../../../etc/passwd", "/snapshot/0/data/../../../etc/passwd",
        "/snapshot/0/data/..%2f..%2f..%2fetc%2fpasswd", "/snapshot/0/data/%2e%2e/pages.py", "/snapshot/0/data/",
        "/snapshot/0/data", "/snapshot/0/figures/", "/snapshot/0/tables/models.csv/", "/snapshot/0/data/models.js%00",
        "/snapshot/0/data/nothing.js", "/snapshot/0/figures/basis.gif", "/snapshot/0/files/0123456789abcdef",
        "/snapshot/0/files/../files", "/snapshot/-1/", "/snapshot/1e3/", "//evil.example/", "/static/x", "/favicon.ico",
        "/snapshot/0/data/models/99.js", "/snapshot/0/data/models/x.js", "/snapshot/0/7x7/model.html",
        "/snapshot/0/7x7/data/models.js", "/snapshot/99/data/models.js",
    ],
)  # fmt: skip
def test_a_path_without_an_answer(client: Client, path: str) -> None:
    answer = client.send(path)
    assert answer.status == 404 and answer.line


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_a_wrong_method(client: Client, method: str) -> None:
    for path in ("/", PAGE, f"{PAGE}state.json", f"{PAGE}data/models.js"):
        assert client.send(path, method, b"" if method != "HEAD" else None).status == 405
    if method != "POST":
        assert client.send(FILES, method, b"x").status == 405


def test_every_answer_has_the_headers(client: Client) -> None:
    client.wait()
    for path in ("/", PAGE, f"{PAGE}data/models.js", PAGE + SVG, "/nothing"):
        headers = client.send(path).headers
        assert (
            headers["X-Content-Type-Options"] == "nosniff" and headers["Cross-Origin-Resource-Policy"] == "same-origin"
        )
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"] and headers["Server"] == "filterdb"
    waiting = waiting_page(client.server._site.pages.db, Place(0, "")).decode()
    assert "script-src 'sha256-" in waiting and "file:" not in waiting  # it has no files beside it
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', client.send(PAGE).body.decode())
    assert policy and policy[1].endswith("form-action 'none'; connect-src 'self'") and "unsafe" not in policy[1]


def test_where_a_file_is(db: fdb.Database, client: Client) -> None:
    folder = Path(db.url).parent
    answer = client.json(f"{FILES}?name=my%20net.onnx", method="POST", body=(folder / "2.onnx").read_bytes())
    expected = fdb.nearest(db, folder / "2.onnx", n=4)
    assert (answer["name"], answer["nearest"]["stored_as"]) == ("my net.onnx", ["dog net"])
    rows = answer["nearest"]["rows"]
    assert [row["drift"] for row in rows] == expected["drift"].values.tolist()
    assert rows[0]["model"] == "dog net" and len(rows) == 4
    assert [row["verdict"] for row in rows] == expected["verdict"].values.tolist()
    assert all(row["noise"] > 0 for row in rows) and "<script>" in "".join(row["model"] for row in rows)
    assert (answer["check"]["status"], answer["check"]["error"]) == ("passed", None)
    assert client.json(f"{FILES}/{answer['id']}") == answer
    assert client.send(f"/snapshot/1/files/{answer['id']}").status == 404


def test_the_same_file_from_two_clients(db: fdb.Database, client: Client) -> None:
    body = (Path(db.url).parent / "0.onnx").read_bytes()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(client.json, f"{FILES}?name={name}.onnx", method="POST", body=body) for name in "ab"]
        assert [answer.result()["name"] for answer in answers] == ["a.onnx", "b.onnx"]


def test_a_client_that_goes_leaves_no_answer(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    begun, gates = Event(), [Event(), Event()]

    def locate(db: fdb.Database, path: Path, *more: Any) -> Answer:
        read.append(path)
        begun.set()
        gates[1].wait(30)
        return placing.locate(db, path, *more)

    monkeypatch.setattr("filterdb.server.app.locate", locate)
    body = (Path(db.url).parent / "0.onnx").read_bytes()
    with serving(db) as fresh:
        fresh.wait()
        site = fresh.server._site
        # The first waits behind another computation when its client goes, the second is being read.
        site.worker._executor.submit(gates[0].wait, 30)
        for number, gate in enumerate(gates):
            with fresh.connected(f"POST {FILES} HTTP/1.1", body):
                wait_until(begun.is_set if number else lambda: "upload" in str(list(site.worker._pending)))
            wait_until(lambda: site.uploads == 0)
            gate.set()
            wait_until(lambda: not site.worker._pending)
            assert len(read) == number and site.answers == {}
        assert not read[0].exists()
        answer = fresh.json(FILES, method="POST", body=body)
        assert answer["nearest"]["stored_as"] == ["cat net"] and list(site.answers.values()) == [answer]


def test_stalled_uploads_make_room(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filterdb.server.app.STALL_SECONDS", 1.0)
    monkeypatch.setattr("filterdb.server.app.UPLOAD_SECONDS", 2.5)
    with serving(db) as fresh, ExitStack() as stack:
        fresh.wait()
        site, head = fresh.server._site, f"POST {FILES} HTTP/1.1\r\nContent-Length: 1000"
        stalled = [stack.enter_context(fresh.connected(head, b"x")) for _ in range(MOST_UPLOADS)]
        wait_until(lambda: site.uploads == MOST_UPLOADS)
        assert fresh.send(FILES, "POST", b"x").status == 503
        began = time.monotonic()
        assert [connection.recv(100) for connection in stalled] == [b""] * MOST_UPLOADS
        assert time.monotonic() - began < 3
        wait_until(lambda: site.uploads == 0)
        # Who sends on is heard for longer, but not for ever.
        endless = stack.enter_context(fresh.connected(head, b"x"))
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 10:
                endless.sendall(b"x")
                time.sleep(0.2)
        assert 2 < time.monotonic() - began < 8
        wait_until(lambda: site.uploads == 0)


def test_no_room_for_a_file(db: fdb.Database) -> None:
    with serving(db) as fresh:
        folder = Path(fresh.server._folder.name)
        folder.rmdir()
        for _ in range(MOST_UPLOADS + 1):
            answer = fresh.send(FILES, "POST", b"x")
            assert answer.status == 507 and answer.line.startswith("files: no room for the file: ")
        folder.mkdir()
        assert fresh.json(FILES, method="POST", body=b"x")["nearest"]["error"]


def test_a_file_that_is_no_model(client: Client) -> None:
    for body, name in ((b"junk" * 999, HOSTILE[1]), (b"PK\x03\x04" + b"x" * 99, "x.pt"), (b"\0" * 4096, "../../x.h5")):
        answer = client.json(f"{FILES}?name={name.encode().hex()}.onnx", method="POST", body=body)
        assert answer["nearest"]["error"] and answer["check"]["status"] == "failed"
        text = json.dumps(answer)
        assert tempfile.gettempdir() not in text and "\\n" not in answer["nearest"]["error"]
    assert client.send(FILES, "POST", b"").status == 400


def test_a_file_that_is_too_large(db: fdb.Database) -> None:
    with serving(db, limits=fdb.Limits(memory=50_000)) as small:
        answer = small.send(FILES, "POST", b"", Content_Length="100001")
        assert answer.status == 413 and "--model-memory" in answer.line
        chunks = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(2)) + b"0\r\n\r\n"
        with socket.create_connection(("127.0.0.1", small.port)) as raw:
            head = f"POST {FILES} HTTP/1.1\r\nHost: {small.host}\r\nAuthorization: token {small.token}\r\n"
            raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks)
            assert b"HTTP/1.1 200" not in raw.recv(100)
        assert small.send("/").status == 302
        folder = Path(small.server._folder.name)
        assert list(folder.iterdir()) == [] and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_no_more_of_a_name_than_its_suffix_reaches_the_disk(tmp_path: Path) -> None:
    for name, end in {
        "a.onnx": ".onnx", "../../etc/passwd": "", "C:\\x\\y.PT": ".PT", "a.b/..": "", ".": "", "": "", "x.o\nx": "",
        "a.safetensors\0.sh": ".sh", "x." + "y" * 99: "", HOSTILE[0]: "",
    }.items():  # fmt: skip
        upload = Upload(name, str(tmp_path))
        assert upload.path.name == f"model{end}" and upload.path.parent.parent == tmp_path
        assert "/" not in base_name(name) and base_name(name)
        upload.close()
    assert not any(tmp_path.iterdir())


def test_many_clients_get_one_answer(db: fdb.Database) -> None:
    with serving(db) as fresh, ThreadPoolExecutor(32) as pool:
        paths = [f"{PAGE}data/models.js", f"{PAGE}tables/models.csv", f"{PAGE}data/layers.js", "/"] * 16
        answers = list(pool.map(fresh.send, paths))
        assert {answer.status for answer in answers} == {200, 302}
        assert all(len({answer.body for answer in answers[i::4]}) == 1 for i in range(4))


def test_one_computation_at_a_time_and_not_too_many_wait() -> None:
    async def load() -> None:
        worker, gate = Worker(), Event()
        first = worker.begin(0, gate.wait)
        assert worker.begin(0, gate.wait) is first
        others = [worker.begin(number, sorted, [number, 0]) for number in range(1, MOST_WAITING)]
        with pytest.raises(BusyError):
            worker.begin("more", sorted, [])
        assert not any(other.done() for other in others)
        gate.set()
        assert await others[-1] == [0, MOST_WAITING - 1]
        failing = worker.begin("fails", int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            await failing
        assert await worker.begin("fails", int, "1") == 1
        worker.stop()

    asyncio.run(load())


def test_other_hosts_only_where_it_listens_for_them() -> None:
    def refused(host: str, name: str) -> bool:
        return Access(host, None, names_of(host)).refusal("GET", {"Host": name}, []) is not None

    for name in ("localhost:1", "127.0.0.1", "[::1]:2", "127.9.9.9"):
        assert not refused("127.0.0.1", name) and not refused("0.0.0.0", name)
    for name in ("10.0.0.1:80", socket.gethostname(), "page.example"):
        assert refused("127.0.0.1", name)
        assert refused("0.0.0.0", name) == (name == "page.example")
    assert not refused("page.example", "PAGE.example:80")


def test_no_request_asks_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    accesses = [Access(host, None, names_of(host)) for host in ("127.0.0.1", "0.0.0.0", "page.example")]

    def fail(*_: object) -> str:
        raise AssertionError

    for name in ("getfqdn", "gethostname", "gethostbyaddr", "gethostbyname", "getaddrinfo"):
        monkeypatch.setattr(socket, name, fail)
    for access in accesses:
        assert access.refusal("GET", {"Host": "localhost"}, []) is None
        assert access.refusal("GET", {"Host": "evil.example"}, []) is not None


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filterdb.server.pages.CACHE_BYTES", 100)
    cache = Cache()
    for number in range(20):
        cache.put(number, bytes(30))
        cache.get(0)
    assert [number for number in range(20) if cache.get(number) is not None] == [0, 18, 19]
    cache.put("large", bytes(101))
    assert cache.get("large") is None and cache.get(0) is not None


def test_a_handle(db: fdb.Database) -> None:
    with dask.config.set(scheduler="threads"):
        server = fdb.serve(db, port=0, token=False)
    assert server.url in server._repr_html_() and server.url.endswith("/")
    server.stop()
    server.stop()
    server.wait()
    assert "stopped" in repr(server) and server.url not in server._repr_html_()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", int(server.url.split(":")[2][:-1]))):
        pass


def test_a_port_or_address_that_cannot_be(db: fdb.Database, client: Client) -> None:
    with pytest.raises(UsageError, match=rf"got {client.port}, which is in use; choose another"):
        fdb.serve(db, port=client.port)
    for options, words in (
        ({"port": 65_536}, "expected 0 to 65535"),
        ({"host": "192.0.2.1"}, "expected an address of this machine"),
        ({"host": "no.such.host.invalid"}, "expected an address of this machine"),
    ):
        with pytest.raises(UsageError, match=words):
            fdb.serve(db, **options)
