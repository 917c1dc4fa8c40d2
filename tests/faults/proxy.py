"""A TCP proxy between an S3 client and a server, with faults that a test sets.

Bytes are forwarded as they are, so that signatures hold; of HTTP/1.1 it knows where a request and a reply end.
Replies are held until they are whole: memory is the largest object.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

FOREVER = sys.maxsize
_CODES = {
    403: "AccessDenied",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
    507: "InsufficientStorage",
}
_LINGER = struct.pack("ii", 1, 0)  # closing sends RST


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to a request. `value`: a status, seconds, or a place in a body from 0 to 1."""

    kind: str
    value: float = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}" if self.value else self.kind


RESET = Action("reset")
"""The connection is reset before the request is forwarded."""
RESET_IN_BODY = Action("reset in body")
"""The server answers; the connection is reset halfway through the body, or through the head if there is no body."""
TRUNCATE = Action("truncate")
"""The same, but the connection is closed properly."""
STALL = Action("stall")
"""Nothing is forwarded and nothing answered, until the proxy ends or the client gives up."""
NO_CONTINUE = Action("no continue")
"""`100 Continue` is not passed on: a client that waits for it never sends the body. Without `Expect`: no fault."""
DROP_REPLY = Action("drop reply")
"""The server answers, the request took effect; the client sees the connection reset."""


def status(code: int) -> Action:
    """The proxy answers with this status, as S3 would."""
    return Action("status", code)


def flip(where: float = 0.5) -> Action:
    """One bit is flipped in the reply's body: 0 its first byte, 1 its last."""
    return Action("flip", where)


def latency(seconds: float) -> Action:
    """Forwarded late."""
    return Action("latency", seconds)


@dataclass(slots=True)
class Request:
    """A request as it came; header names are small. `fault`: what was done to it; `status`: what the server said."""

    method: str
    path: str
    headers: dict[str, str]
    fault: Action | None = None
    status: int | None = None


@dataclass(slots=True)
class Rule:
    """A fault for the next `left` requests that match."""

    match: Callable[[Request], bool]
    action: Action
    left: int
    applied: int = 0


@dataclass(slots=True)
class Proxy:
    """What a test holds. `sent` and `answered`: all bytes of clients and of the server, where they are recorded."""

    endpoint: str
    host: str
    port: int
    raw: bool
    record: bool
    requests: list[Request] = field(default_factory=list)
    sent: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    rules: list[Rule] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, match: Callable[[Request], bool], action: Action, times: int = 1) -> Rule:
        """From now on, `times` requests that match get this fault; an older rule goes first."""
        rule = Rule(match, action, times)
        with self.lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """No faults and no memory of requests from now on; what stalls goes on stalling."""
        with self.lock:
            self.rules.clear()
            self.requests.clear()

    def seen(self, match: Callable[[Request], bool]) -> list[Request]:
        """The recorded requests that match."""
        return [request for request in list(self.requests) if match(request)]

    def _enter(self, request: Request) -> Action:
        with self.lock:
            rule = next((rule for rule in self.rules if rule.left and rule.match(request)), None)
            if rule is not None:
                rule.left, rule.applied, request.fault = rule.left - 1, rule.applied + 1, rule.action
            self.requests.append(request)
        return request.fault or Action("none")

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            while await (self._pumped(reader, writer) if self.raw else self._exchange(reader, writer)):
                pass
        writer.close()

    async def _pumped(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """All bytes of a connection, whatever they are."""
        up_reader, up_writer = await asyncio.open_connection(self.host, self.port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, log: bytearray) -> None:
            with suppress(OSError):
                while data := await source.read(1 << 16):
                    await self._put(target, data, log)
            target.close()

        await asyncio.gather(pump(reader, up_writer, self.sent), pump(up_reader, writer, self.answered))
        return False

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; False: the connection is at its end."""
        start, headers, head = await _head(reader)
        method, path, _ = start.split(" ")
        request = Request(method, path, headers)
        action = self._enter(request)
        expects = "expect" in headers
        body = b"" if expects else b"".join(await _body(reader, headers))
        match action.kind:
            case "status":
                await self._put(writer, _refusal(method, int(action.value), expects), self.answered)
                return not expects  # what follows an unanswered Expect may be a body
            case "reset":
                return await self._reset(writer)
            case "stall":
                return await _stall(reader)
            case "latency":
                await asyncio.sleep(action.value)
        up_reader, up_writer = await asyncio.open_connection(self.host, self.port)
        try:
            await self._put(up_writer, head + body, self.sent)
            start, headers, head = await _head(up_reader)
            while start.split(" ")[1] == "100":
                if action.kind == "no continue":
                    return await _stall(reader)
                await self._put(writer, head, self.answered)
                await self._put(up_writer, b"".join(await _body(reader, request.headers)), self.sent)
                start, headers, head = await _head(up_reader)
                expects = False
            request.status = int(start.split(" ")[1])
            has_body = method != "HEAD" and request.status not in {204, 304}
            pieces = await _body(up_reader, headers, to_end=True) if has_body else []
        finally:
            up_writer.close()
        reply = _changed(head, pieces, action)
        if action.kind == "drop reply":
            return await self._reset(writer)
        await self._put(writer, reply, self.answered)
        if action.kind == "reset in body":
            await asyncio.sleep(0.05)  # so that the client has begun to read
            return await self._reset(writer)
        return action.kind != "truncate" and not expects and headers.get("connection", "").lower() != "close"

    async def _put(self, writer: asyncio.StreamWriter, data: bytes, log: bytearray) -> None:
        if self.record:
            log += data
        writer.write(data)
        await writer.drain()

    async def _reset(self, writer: asyncio.StreamWriter) -> bool:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        writer.transport.abort()
        return False


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """First line, headers, and the bytes they came as."""
    head = await reader.readuntil(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    named = (line.partition(":") for line in lines)
    return start, {name.strip().lower(): value.strip() for name, _, value in named}, head


async def _body(reader: asyncio.StreamReader, headers: dict[str, str], *, to_end: bool = False) -> list[bytes]:
    """The bytes of a body in pieces, of which the longest is content; `to_end`: without a length it ends with EOF."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        pieces = []
        while True:
            pieces.append(await reader.readuntil(b"\r\n"))
            size = int(pieces[-1].split(b";")[0], 16)
            if not size:
                break
            pieces += [await reader.readexactly(size), await reader.readexactly(2)]
        while pieces[-1] != b"\r\n":
            pieces.append(await reader.readuntil(b"\r\n"))  # trailers
        return pieces
    if "content-length" in headers:
        return [await reader.readexactly(int(headers["content-length"]))]
    return [await reader.read()] if to_end else []


def _changed(head: bytes, pieces: list[bytes], action: Action) -> bytes:
    """A reply as the client gets it."""
    longest = max(range(len(pieces)), key=lambda i: len(pieces[i]), default=None)
    if action.kind == "flip" and longest is not None and pieces[longest]:
        content = bytearray(pieces[longest])
        content[round(action.value * (len(content) - 1))] ^= 1
        pieces[longest] = bytes(content)
    body = b"".join(pieces)
    if action.kind in {"reset in body", "truncate"}:
        return head + body[: len(body) // 2] if body else head[: len(head) // 2]
    return head + body


async def _stall(reader: asyncio.StreamReader) -> bool:
    while await reader.read(1 << 16):
        pass
    return False


def _refusal(method: str, code: int, close: bool) -> bytes:
    name = _CODES.get(code, "Fault")
    xml = f'<?xml version="1.0"?><Error><Code>{name}</Code><Message>a fault of the proxy</Message></Error>'
    lines = [
        f"HTTP/1.1 {code} {name}",
        "Content-Type: application/xml",
        f"Content-Length: {0 if method == 'HEAD' else len(xml)}",
        *(["Connection: close"] if close else []),
    ]
    return "\r\n".join([*lines, "", "" if method == "HEAD" else xml]).encode()


@contextmanager
def proxying(upstream: str, *, raw: bool = False, record: bool = False) -> Iterator[Proxy]:
    """A proxy in front of `upstream` (http://host:port, tcp://host:port).

    `raw`: any protocol, and no faults. `record`: keep all bytes.
    """
    place = urlsplit(upstream)
    assert place.hostname is not None and place.port is not None
    proxy = Proxy("", place.hostname, place.port, raw, record)
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy._connection, "127.0.0.1", 0, limit=1 << 20)
        proxy.endpoint = f"{place.scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="proxy", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
