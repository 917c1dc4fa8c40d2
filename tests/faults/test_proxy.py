"""The proxy does what it says: each action seen by a plain HTTP client, and a signed client passes undisturbed."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import s3fs

from tests.faults.careless import careless
from tests.faults.proxy import (
    DROP_REPLY,
    FOREVER,
    NO_CONTINUE,
    RESET,
    RESET_IN_BODY,
    STALL,
    TRUNCATE,
    Action,
    Proxy,
    Request,
    flip,
    latency,
    proxying,
    status,
)

pytestmark = pytest.mark.slow

BODY = bytes(range(256)) * 400
Objects = dict[str, bytes]


def everything(request: Request) -> bool:
    return True


@pytest.fixture
def served() -> Iterator[tuple[Proxy, Objects]]:
    """A proxy in front of a server in this process that holds one object."""
    with careless() as (endpoint, objects), proxying(endpoint, record=True) as proxy:
        objects["b/x"] = BODY
        yield proxy, objects


def connect(proxy: Proxy, timeout: float = 5) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=timeout)


def ask(proxy: Proxy, method: str = "GET", path: str = "/b/x", body: bytes | None = None) -> tuple[int, bytes]:
    connection = connect(proxy)
    try:
        connection.request(method, path, body)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def put_expecting(proxy: Proxy, body: bytes, timeout: float = 5) -> bytes:
    """A PUT that waits for `100 Continue`; gives what the server said, until then and after."""
    with socket.create_connection(("127.0.0.1", int(proxy.endpoint.rsplit(":", 1)[1])), timeout) as client:
        head = f"PUT /b/new HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head.encode())
        said = client.recv(1 << 16)
        if said.startswith(b"HTTP/1.1 100"):
            client.sendall(body)
            said += client.recv(1 << 16)
        return said


def test_undisturbed(served: tuple[Proxy, Objects]) -> None:
    """Several requests on one connection, with and without bodies; all is recorded."""
    proxy, objects = served
    connection = connect(proxy)
    for method, path, body, expected in [
        ("PUT", "/b/y", BODY * 20, b""),
        ("GET", "/b/y", None, BODY * 20),
        ("HEAD", "/b/y", None, b""),
        ("DELETE", "/b/y", None, b""),
        ("GET", "/b/none", None, None),
    ]:
        connection.request(method, path, body)
        assert connection.getresponse().read() == expected or expected is None
    connection.close()
    assert [(r.method, r.status, r.fault) for r in proxy.requests] == [
        ("PUT", 200, None), ("GET", 200, None), ("HEAD", 200, None), ("DELETE", 204, None), ("GET", 404, None),
    ]  # fmt: skip
    assert BODY * 20 in proxy.sent and BODY * 20 in proxy.answered
    assert list(objects) == ["b/x"]


def test_status(served: tuple[Proxy, Objects]) -> None:
    proxy, objects = served
    rule = proxy.fault(lambda r: r.path == "/b/x", status(503), times=2)
    for _ in range(2):
        code, body = ask(proxy)
        assert code == 503 and b"<Code>SlowDown</Code>" in body
    assert ask(proxy) == (200, BODY)
    assert (rule.applied, rule.left) == (2, 0)
    assert [str(r.fault) for r in proxy.requests] == ["status 503", "status 503", "None"]
    for code in (429, 500, 507):
        proxy.fault(everything, status(code))
        assert ask(proxy, "PUT", "/b/y", b"1")[0] == code
    proxy.fault(everything, status(500))
    assert ask(proxy, "HEAD") == (500, b"")
    assert list(objects) == ["b/x"]


def test_rules_in_turn_and_cleared(served: tuple[Proxy, Objects]) -> None:
    proxy, _ = served
    proxy.fault(lambda r: r.method == "HEAD", status(429), FOREVER)
    proxy.fault(everything, status(500))
    proxy.fault(everything, status(507), FOREVER)
    assert [ask(proxy, method)[0] for method in ("HEAD", "GET", "GET", "HEAD", "GET")] == [429, 500, 507, 429, 507]
    proxy.clear()
    assert ask(proxy)[0] == 200
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(("action", "took_effect"), [(RESET, False), (DROP_REPLY, True)])
def test_reset(served: tuple[Proxy, Objects], action: Action, took_effect: bool) -> None:
    proxy, objects = served
    proxy.fault(everything, action)
    with pytest.raises(ConnectionResetError):
        ask(proxy, "PUT", "/b/y", b"1")
    assert ("b/y" in objects) is took_effect
    assert ask(proxy)[0] == 200


def test_reset_in_body(served: tuple[Proxy, Objects]) -> None:
    proxy, objects = served
    proxy.fault(everything, RESET_IN_BODY, times=2)
    connection = connect(proxy)
    connection.request("GET", "/b/x")
    reply = connection.getresponse()
    assert int(reply.headers["Content-Length"]) == len(BODY)
    with pytest.raises(ConnectionResetError):
        reply.read()
    connection.close()
    with pytest.raises((ConnectionResetError, http.client.HTTPException)):
        ask(proxy, "PUT", "/b/y", b"1")
    assert objects["b/y"] == b"1"


def test_truncate(served: tuple[Proxy, Objects]) -> None:
    proxy, _ = served
    proxy.fault(everything, TRUNCATE)
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(proxy)
    assert caught.value.partial == BODY[: len(BODY) // 2]


def test_stall(served: tuple[Proxy, Objects]) -> None:
    """The client gives up; nothing reached the server; the proxy ends all the same."""
    proxy, objects = served
    proxy.fault(everything, STALL)
    connection = connect(proxy, timeout=0.3)
    connection.request("PUT", "/b/y", b"1")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    assert "b/y" not in objects  # the connection stays open until after the proxy's end
    assert ask(proxy)[0] == 200


def test_continue(served: tuple[Proxy, Objects]) -> None:
    proxy, objects = served
    said = put_expecting(proxy, b"new")
    assert said.startswith(b"HTTP/1.1 100") and b"HTTP/1.1 200" in said
    assert objects.pop("b/new") == b"new"
    proxy.fault(everything, NO_CONTINUE)
    with pytest.raises(TimeoutError):
        put_expecting(proxy, b"new", timeout=0.3)
    proxy.fault(everything, status(503))
    assert put_expecting(proxy, b"new").startswith(b"HTTP/1.1 503")
    assert "b/new" not in objects
    proxy.fault(everything, NO_CONTINUE)
    assert ask(proxy) == (200, BODY)  # nothing waits


@pytest.mark.parametrize("where", [0, 0.5, 1])
def test_flip(served: tuple[Proxy, Objects], where: float) -> None:
    proxy, _ = served
    proxy.fault(everything, flip(where))
    code, body = ask(proxy)
    wrong = [i for i, (got, expected) in enumerate(zip(body, BODY, strict=True)) if got != expected]
    assert (code, wrong) == (200, [round(where * (len(BODY) - 1))])
    assert ask(proxy) == (200, BODY)


def test_latency(served: tuple[Proxy, Objects]) -> None:
    proxy, _ = served
    proxy.fault(everything, latency(0.3))
    began = time.monotonic()
    assert ask(proxy) == (200, BODY)
    assert 0.3 <= time.monotonic() - began < 2


def test_chunked_both_ways() -> None:
    """Bodies of unknown length: the request arrives as it was, a flipped byte is one of the content."""
    got: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        client, _ = listening.accept()
        with client:
            data = b""
            while not data.endswith(b"0\r\n\r\n"):
                data += client.recv(1 << 16)
            got.append(data)
            client.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n9\r\ndefghijkl\r\n0\r\n\r\n"
            )

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        with proxying(f"http://127.0.0.1:{listening.getsockname()[1]}") as proxy:
            proxy.fault(everything, flip())
            connection = connect(proxy)
            connection.request("POST", "/", iter([b"one", b"two"]), encode_chunked=True)
            assert connection.getresponse().read() == b"abcdefgiijkl"
            connection.close()
        thread.join(5)
    assert got[0].endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


def test_raw(served: tuple[Proxy, Objects]) -> None:
    behind, _ = served
    with proxying(behind.endpoint.replace("http:", "tcp:"), raw=True, record=True) as proxy:
        host = proxy.endpoint.removeprefix("tcp://")
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("GET", "/b/x")
        assert connection.getresponse().read() == BODY
        connection.close()
    assert b"GET /b/x" in proxy.sent and BODY in proxy.answered


def test_a_signed_client(s3: Callable[[], str], s3_server: str) -> None:
    """SeaweedFS takes the proxy's Host; a put waits for `100 Continue`; s3fs survives 503 with and without a body."""
    bucket_and_key = f"{s3()}/x".removeprefix("s3://")
    with proxying(s3_server) as proxy:
        files = s3fs.S3FileSystem(endpoint_url=proxy.endpoint, skip_instance_cache=True, use_listings_cache=False)
        files.pipe_file(bucket_and_key, BODY)
        assert files.cat_file(bucket_and_key) == BODY
        put = proxy.seen(lambda r: r.method == "PUT")[0]
        assert put.headers["host"] == proxy.endpoint.removeprefix("http://")
        assert (put.status, put.headers.get("expect")) == (200, "100-continue")
        for method in ("PUT", "GET"):
            proxy.fault(lambda r, method=method: r.method == method, status(503), times=2)  # type: ignore[misc]
        files.pipe_file(bucket_and_key, b"new", mode="overwrite")
        assert files.cat_file(bucket_and_key) == b"new"
        assert sum(r.fault is not None for r in proxy.requests) == 4


def test_conditional_puts() -> None:
    """SeaweedFS would refuse the second; this server does not, and s3fs sees nothing of it."""
    with careless() as (endpoint, objects):
        files = s3fs.S3FileSystem(
            key="any", secret="any", endpoint_url=endpoint, skip_instance_cache=True, use_listings_cache=False
        )
        key = f"b/{uuid.uuid4().hex}/deep/x"
        for data in (b"first", b"second"):
            files.pipe_file(key, data, mode="create")
        assert files.cat_file(key) == objects[key] == b"second"
        assert files.find("b", detail=True)[key]["size"] == 6
        assert files.ls(key.rsplit("/", 2)[0], detail=False) == [key.rsplit("/", 1)[0]]
        files.rm_file(key)
        assert files.find("b") == []
        with pytest.raises(FileNotFoundError):
            files.cat_file(key)
