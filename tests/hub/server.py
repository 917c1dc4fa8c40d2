"""A stand-in for the Hugging Face hub on 127.0.0.1, for the real huggingface_hub client and for plain HTTP.

The hub answers what `HfApi` and `HfFileSystem` ask about models: information, trees, paths, lists in pages, and the
files themselves. As at the real hub, a large file is redirected to another host (here: another port), its content
delivery network, with a signed URL. Faults can be injected, and every request is recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

LARGE = 20_000
"""Bytes from which a file is stored in the content delivery network, under its SHA-256."""

PAGE = 100
"""Models in a page of a list."""

SIGNATURE = "X-Amz-Signature=5ec7e7"
"""Query of the URLs that the hub redirects to. The content delivery network refuses a request without it."""

Content = bytes | Path
"""The content of a file; a file on disk is read as it is asked for."""


@dataclass(frozen=True)
class Asked:
    """A request that was answered."""

    host: str
    method: str
    path: str
    range: str
    status: int
    sent: int
    """Bytes of the body that were sent."""
    authorization: str


@dataclass
class Fault:
    """Something that goes wrong with requests whose path matches, `times` times.

    `status` answers with an error; `body` is its body. `cut` sends only the first bytes of what was announced.
    `etag` is sent instead of the true one. `whole` ignores the range that is asked for. `delay` waits first. `change`
    is called before the answer, and may replace files.
    """

    pattern: str
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    etag: str | None = None
    whole: bool = False
    delay: float = 0.0
    change: Callable[[], None] | None = None
    skip: int = 0
    """Matching requests that are answered as usual before the fault begins."""


@dataclass
class Repository:
    """A repository of a model. `revisions` are branches and tags, by the files that each has."""

    id: str
    files: Mapping[str, Content]
    pipeline_tag: str | None = None
    tags: tuple[str, ...] = ()
    card: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    token: str = ""
    """The token that a request needs. Without it the repository does not seem to exist."""
    older: Mapping[str, Mapping[str, Content]] = field(default_factory=dict)

    def commits(self) -> dict[str, Mapping[str, Content]]:
        """Return the files of each commit, by the commit's hash."""
        return {self.commit(files): files for files in (self.files, *self.older.values())}

    def commit(self, files: Mapping[str, Content]) -> str:
        """Return the hash of a commit with these files."""
        names = [f"{name} {sha256(content)}" for name, content in sorted(files.items())]
        return hashlib.sha1(f"{self.id} {names}".encode()).hexdigest()

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a revision; None if there is none."""
        if revision in {"main", "HEAD"}:
            return self.commit(self.files)
        if revision in self.older:
            return self.commit(self.older[revision])
        return revision if revision in self.commits() else None


_HASHES: dict[Path, str] = {}


def sha256(content: Content) -> str:
    """Return the SHA-256 of a content; that of a file on disk is computed once."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    if content not in _HASHES:
        with content.open("rb") as file:
            _HASHES[content] = hashlib.file_digest(file, "sha256").hexdigest()
    return _HASHES[content]


def blob_id(content: Content) -> str:
    """Return Git's hash of a content."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def size(content: Content) -> int:
    """Return the bytes of a content."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@dataclass
class Hub:
    """The hub, its content delivery network, and a plain static host beside them."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    static: dict[str, Content] = field(default_factory=dict)
    """Files of the plain static host, by path without the leading slash. It lists no folder."""
    faults: list[Fault] = field(default_factory=list)
    latency: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    endpoint: str = ""
    cdn: str = ""
    web: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, repository: Repository) -> Repository:
        """Add a repository, and return it."""
        self.repositories[repository.id] = repository
        return repository

    def sent(self, *hosts: str) -> int:
        """Return the bytes of bodies that were sent (by these hosts)."""
        return sum(asked.sent for asked in self.asked if not hosts or asked.host in hosts)

    def count(self, pattern: str = "", method: str = "") -> int:
        """Return how many requests matched."""
        return sum(
            bool(re.search(pattern, f"{a.host}{a.path}")) and a.method in {method or a.method} for a in self.asked
        )

    def fault(self, path: str) -> Fault | None:
        """Return the fault of this request, if it has one, and count it."""
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, path):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def serving(hub: Hub | None = None) -> Iterator[Hub]:
    """Serve a hub on three free ports of 127.0.0.1 until the block ends."""
    hub = hub or Hub()
    servers = {name: _Server(hub, name) for name in ("hub", "cdn", "web")}
    hub.endpoint, hub.cdn, hub.web = (f"http://127.0.0.1:{server.server_port}" for server in servers.values())
    for server in servers.values():
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers.values():
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.name = name

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that break off, as killed ones do."""


@dataclass
class _Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: Content = b""

    @classmethod
    def json(cls, value: Any, **headers: str) -> _Answer:
        return cls(200, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())

    @classmethod
    def error(cls, status: int, code: str, message: str) -> _Answer:
        body = json.dumps({"error": message}).encode()
        headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        return cls(status, headers, body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to stderr."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        hub = self.server.hub
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = hub.fault(f"{self.server.name}{self.path}")
        time.sleep(hub.latency + (fault.delay if fault else 0))
        if fault and fault.change:
            fault.change()
        if fault and fault.status:
            answer = _Answer(fault.status, dict(fault.headers), b"injected")
        else:
            answer = self._answer(body)
        if fault and fault.etag and "ETag" in answer.headers:
            answer.headers["ETag"] = fault.etag
        data = self._body(answer, whole=bool(fault and fault.whole))
        # Recorded before a byte of the answer is sent: whoever has it may count at once.
        sent = data if self.command != "HEAD" else b""
        if fault and fault.cut is not None:
            sent, self.close_connection = sent[: fault.cut], True
        with hub.lock:
            hub.asked.append(
                Asked(
                    self.server.name,
                    self.command,
                    self.path,
                    self.headers.get("Range", ""),
                    answer.status,
                    len(sent),
                    self.headers.get("Authorization", ""),
                )
            )
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(sent)

    def _body(self, answer: _Answer, *, whole: bool) -> bytes:
        """Return the part of the content that was asked for, and turn a 200 into a 206 or 416."""
        total = size(answer.content)
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        start, stop = 0, total
        condition = self.headers.get("If-Range", "")
        changed = bool(condition) and condition != answer.headers.get("ETag")
        if wanted and answer.status == 200 and "ETag" in answer.headers and not whole and not changed:
            first, last = wanted.groups()
            start = int(first) if first else max(0, total - int(last))
            stop = min(total, int(last) + 1) if first and last else total
            if start >= total:
                answer.status, answer.headers["Content-Range"] = 416, f"bytes */{total}"
                return b""
            answer.status, answer.headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{total}"
        if isinstance(answer.content, bytes):
            return answer.content[start:stop]
        with answer.content.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def _answer(self, body: bytes) -> _Answer:
        parts = urlsplit(self.path)
        place = parts.path.lstrip("/")
        if self.server.name == "web":
            if self.command not in {"GET", "HEAD"}:
                return _Answer(405, {"Allow": "GET, HEAD"}, b"read-only")
            content = self.server.hub.static.get(unquote(place))
            if content is None:
                return _Answer(404, {}, b"<html>not found</html>")
            return _file(content)
        if self.server.name == "cdn":
            return self._blob(place, parts.query)
        query = parse_qsl(parts.query)
        if place == "api/models":
            return self._list(query)
        match = re.fullmatch(r"api/models/([^/]+/[^/]+?)(/(revision|tree|paths-info)/([^/]+)(/.*)?)?", place)
        if match:
            # A branch with a slash arrives percent-encoded as one part.
            revision, path = unquote(match[4] or "main"), unquote(match[5] or "")[1:]
            return self._model(match[1], match[3] or "revision", revision, path, body)
        match = re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/(.+)", place)
        return self._resolve(*map(unquote, match.groups())) if match else _Answer.error(404, "NotFound", "no such page")

    def _blob(self, digest: str, query: str) -> _Answer:
        if SIGNATURE not in query or self.headers.get("Authorization"):
            return _Answer(403, {}, b"expected a signed URL and no token")
        for repository in list(self.server.hub.repositories.values()):
            for files in repository.commits().values():
                for content in files.values():
                    if size(content) >= LARGE and sha256(content) == digest:
                        return _file(content)
        return _Answer(404, {}, b"no such blob")

    def _repository(self, name: str) -> Repository | None:
        repository = self.server.hub.repositories.get(name)
        if repository is None or self.headers.get("Authorization", "") not in {
            f"Bearer {repository.token}" if repository.token else self.headers.get("Authorization", "")
        }:
            return None
        return repository

    def _resolve(self, name: str, revision: str, path: str) -> _Answer:
        repository = self._repository(name)
        if repository is None:
            return _Answer.error(401, "RepoNotFound", "Repository not found")
        commit = repository.resolve(revision)
        if commit is None:
            return _Answer.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = repository.commits()[commit].get(path)
        if content is None:
            return _Answer.error(404, "EntryNotFound", "Entry not found")
        common = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if size(content) < LARGE:
            return _Answer(200, {**common, "ETag": f'"{blob_id(content)}"'}, content)
        digest = sha256(content)
        location = f"{self.server.hub.cdn}/{digest}?{SIGNATURE}"
        linked = {"X-Linked-Size": str(size(content)), "X-Linked-ETag": f'"{digest}"'}
        return _Answer(302, {**common, **linked, "Location": location}, b"Found")

    def _model(self, name: str, what: str, revision: str, path: str, body: bytes) -> _Answer:
        repository = self._repository(name)
        if repository is None:
            return _Answer.error(401, "RepoNotFound", "Repository not found")
        commit = repository.resolve(revision)
        if commit is None:
            return _Answer.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits()[commit]
        if what == "revision":
            blobs = "blobs=" in self.path
            return _Answer.json({**_summary(repository), "sha": commit, "siblings": _siblings(files, blobs=blobs)})
        if what == "tree":
            prefix = f"{path.rstrip('/')}/" if path else ""
            rest = {n[len(prefix) :]: c for n, c in files.items() if n.startswith(prefix)}
            if not rest:
                return _Answer.error(404, "EntryNotFound", f"{path} does not exist")
            folders = sorted({n.split("/")[0] for n in rest if "/" in n})
            entries: list[dict[str, Any]] = [
                {"type": "directory", "oid": "0" * 40, "size": 0, "path": f"{prefix}{folder}"} for folder in folders
            ]
            deep = "recursive=true" in self.path.lower()
            entries += [_entry(f"{prefix}{n}", c) for n, c in sorted(rest.items()) if deep or "/" not in n]
            return _Answer.json(entries)
        asked = _paths(body)
        found = [_entry(n, files[n]) for n in asked if n in files]
        found += [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": n}
            for n in asked
            if n not in files and any(other.startswith(f"{n}/") for other in files)
        ]
        return _Answer.json(found)

    def _list(self, query: list[tuple[str, str]]) -> _Answer:
        values = dict(query)
        wanted = [value for name, value in query if name == "filter"]
        chosen = [
            repository
            for name, repository in sorted(self.server.hub.repositories.items())
            if self._repository(name) is not None
            and name.split("/")[0] == values.get("author", name.split("/")[0])
            and values.get("search", "").lower() in name.lower()
            and repository.pipeline_tag in {values.get("pipeline_tag", repository.pipeline_tag)}
            and all(tag in _tags(repository) for tag in wanted)
        ]
        start = int(values.get("cursor", 0))
        stop = start + min(int(values.get("limit", PAGE)), PAGE)
        expand = {value for name, value in query if name in {"expand", "expand[]"}}
        page = [_listed(repository, expand, values) for repository in chosen[start:stop]]
        headers = {}
        if stop < len(chosen):
            rest = "&".join(f"{name}={value}" for name, value in query if name != "cursor")
            headers["Link"] = f'<{self.server.hub.endpoint}/api/models?{rest}&cursor={stop}>; rel="next"'
        return _Answer.json(page, **headers)


def _file(content: Content) -> _Answer:
    digest = sha256(content)
    return _Answer(200, {"ETag": f'"{digest[:32]}"', "Accept-Ranges": "bytes"}, content)


def _tags(repository: Repository) -> list[str]:
    return [*repository.tags, *([repository.pipeline_tag] if repository.pipeline_tag else [])]


def _summary(repository: Repository) -> dict[str, Any]:
    return {
        "_id": hashlib.sha1(repository.id.encode()).hexdigest()[:24],
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.id.split("/")[0],
        "private": bool(repository.token),
        "downloads": 7,
        "likes": 1,
        "tags": _tags(repository),
        "pipeline_tag": repository.pipeline_tag,
        "cardData": repository.card,
        "config": repository.config,
        "lastModified": "2026-01-01T00:00:00.000Z",
        "createdAt": "2025-01-01T00:00:00.000Z",
    }


def _listed(repository: Repository, expand: set[str], values: Mapping[str, str]) -> dict[str, Any]:
    """Return an entry of a list, with what the request asked for."""
    everything = {**_summary(repository), "sha": repository.commit(repository.files)}
    everything["siblings"] = _siblings(repository.files, blobs=False)
    always = {"_id", "id", "modelId"}
    if expand:
        return {name: value for name, value in everything.items() if name in expand | always}
    optional = {"cardData": "cardData", "config": "config", "siblings": "full", "sha": "full", "author": "full"}
    return {n: v for n, v in everything.items() if n not in optional or values.get(optional[n], "").lower() == "true"}


def _siblings(files: Mapping[str, Content], *, blobs: bool) -> list[dict[str, Any]]:
    siblings = []
    for name, content in sorted(files.items()):
        entry: dict[str, Any] = {"rfilename": name}
        if blobs:
            entry |= {"size": size(content), "blobId": blob_id(content)}
            if size(content) >= LARGE:
                entry["lfs"] = {"sha256": sha256(content), "size": size(content), "pointerSize": 134}
        siblings.append(entry)
    return siblings


def _entry(name: str, content: Content) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob_id(content), "size": size(content), "path": name}
    if size(content) >= LARGE:
        entry["lfs"] = {"oid": sha256(content), "size": size(content), "pointerSize": 134}
    return entry


def _paths(body: bytes) -> list[str]:
    """Return the paths that a request of paths-info names, sent as a form or as JSON."""
    if body.startswith(b"{"):
        paths = json.loads(body)["paths"]
        return paths if isinstance(paths, list) else [paths]
    return [value for name, value in parse_qsl(body.decode()) if name == "paths"]
