"""Whatever happens between filterdb and an object store: the same numbers and bytes, or one typed error. No secret out.

A real S3 server (SeaweedFS) behind a proxy that breaks what a test asks for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import fsspec
import pytest
import s3fs

import filterdb as fdb
from filterdb.errors import DamageError, StoreError
from filterdb.reduce.integrity import verify
from filterdb.store import remote
from filterdb.store.files import Files
from tests import seaweed
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
from tests.models import chain, weights

pytestmark = pytest.mark.slow

BUCKET = "tests"
BOUND = 180.0
"""Seconds after which a store that never answers must have become an error."""

Match = Callable[[Request], bool]


def asks(method: str, pattern: str) -> Match:
    """Requests for an object whose path matches; listings are none."""
    return lambda request: (
        request.method == method and "list-type=" not in request.path and re.search(pattern, request.path) is not None
    )


CHUNK = r"/filters/c/\d+/0$"
TABLE = r"/segments/(?!.*/filters/).*/c/0$"
SUMMARY = r"/summaries/.*\.npz$"
SNAPSHOT = r"/snapshots/\d{8}\.json$"

KINDS: dict[str, Match] = {
    "GET chunk": asks("GET", CHUNK),
    "HEAD chunk": asks("HEAD", CHUNK),
    "GET table": asks("GET", TABLE),
    "list": lambda request: "list-type=2" in request.path,
    "PUT chunk": asks("PUT", CHUNK),
    "PUT summary": asks("PUT", SUMMARY),
    "PUT snapshot": asks("PUT", SNAPSHOT),
}

TOGETHER = {
    "reads": ["GET chunk", "HEAD chunk", "GET table", "list"],
    "writes": ["PUT chunk", "PUT summary", "PUT snapshot"],
}
"""Kinds that are broken in one run: no request is of two kinds, and a run takes seconds."""

FAULTS: dict[str, tuple[Action, int]] = {
    "503 twice": (status(503), 2),
    "500 once": (status(500), 1),
    "reset before": (RESET, 1),
    "reset in body": (RESET_IN_BODY, 1),
    "truncated": (TRUNCATE, 1),
    "late": (latency(0.5), 2),
}


@dataclass(frozen=True, slots=True)
class Place:
    """An S3 user's environment, whose requests pass a proxy."""

    proxy: Proxy
    url: str

    def fault(self, match: Match, action: Action, times: int = 1) -> Any:
        return self.proxy.fault(match, action, times)

    def names(self, prefix: str) -> list[str]:
        return list(Files.at(self.url).list(prefix))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What must not depend on what happened on the way."""

    numbers: dict[str, bytes]
    chunks: dict[str, bytes]


def forget_clients() -> None:
    """s3fs keeps a client for each kind of option, filterdb one for each region: none may outlive its endpoint."""
    remote._known_filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models, 56 filters in 6 chunks of 10."""
    folder = tmp_path_factory.mktemp("models")
    return [
        chain(folder / f"{name}.onnx", weights(4, 3, seed), weights(4, 4, seed + 1))
        for seed, name in enumerate(("a", "b"))
    ]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture(scope="module")
def undisturbed(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """In a folder of this machine."""
    url = str(tmp_path_factory.mktemp("undisturbed") / "db")
    ingest(url, models)
    return outcome(url)


@pytest.fixture
def place(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    yield from placed(s3_server, monkeypatch)


def placed(endpoint: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Iterator[Place]:
    forget_clients()
    with proxying(endpoint, **more) as proxy:
        for name, value in {**seaweed.KEYS, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
            monkeypatch.setenv(name, value)
        make_bucket(endpoint)
        try:
            yield Place(proxy, f"s3://{BUCKET}/{uuid.uuid4().hex}/db")
        finally:
            forget_clients()


def administrator(endpoint: str) -> s3fs.S3FileSystem:
    """A client of our own, past the proxy and past the environment."""
    return s3fs.S3FileSystem(
        key=seaweed.KEYS["AWS_ACCESS_KEY_ID"],
        secret=seaweed.KEYS["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=endpoint,
        client_kwargs={"region_name": seaweed.KEYS["AWS_REGION"]},
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def make_bucket(endpoint: str) -> None:
    files = administrator(endpoint)
    if not files.exists(BUCKET):
        files.mkdir(BUCKET)


def ingest(url: str, models: list[Path]) -> fdb.Database:
    return fdb.ingest(url, models, chunk_rows=10).database


def numbers(url: str) -> dict[str, bytes]:
    """Every number of a drift."""
    found = fdb.drift(fdb.open(url), by="model")
    return {
        str(name): repr(array.values.tolist()).encode() if array.dtype.kind in "OUT" else array.values.tobytes()
        for name, array in found.variables.items()
    }


def outcome(url: str) -> Outcome:
    """The whole of it, after an ingest: drift, deep verification, chunks."""
    found = numbers(url)
    checked = verify(fdb.open(url), deep=True)
    assert (checked.chunks, checked.problems) == (6, [])
    return Outcome(found, chunks(url))


def chunks(url: str) -> dict[str, bytes]:
    files = Files.at(url)
    return files.read_many([name for name in files.list("segments") if re.search(CHUNK, name)])


def snapshots(place: Place) -> list[str]:
    return [name for name in place.names("snapshots") if name.endswith(".json")]


def put_chunks(place: Place) -> list[str]:
    """Paths of the chunks that the server has taken."""
    return [request.path for request in place.proxy.seen(KINDS["PUT chunk"]) if request.status == 200]


def is_one_line(error: BaseException) -> bool:
    return "\n" not in str(error) and str(error) != ""


# What passes


@pytest.mark.parametrize("kinds", TOGETHER)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_as_undisturbed(
    kinds: str, fault: str, place: Place, models: list[Path], undisturbed: Outcome
) -> None:
    rules = {kind: place.fault(KINDS[kind], *FAULTS[fault]) for kind in TOGETHER[kinds]}
    ingest(place.url, models)
    assert outcome(place.url) == undisturbed
    assert {kind: rule.left for kind, rule in rules.items()} == dict.fromkeys(TOGETHER[kinds], 0)


@pytest.mark.parametrize(
    ("action", "times"),
    [(DROP_REPLY, 1), (RESET, 1), (DROP_REPLY, FOREVER), (RESET_IN_BODY, FOREVER)],
    ids=["reply lost", "request lost", "reply lost on every try", "reply cut on every try"],
)
def test_the_committing_put(
    action: Action,
    times: int,
    place: Place,
    models: list[Path],
    undisturbed: Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody is told that another was first, where the other was the writer itself."""
    if times == FOREVER:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    rule = place.fault(asks("PUT", r"/snapshots/00000000\.json$"), action, times)
    done = fdb.ingest(place.url, models, chunk_rows=10)
    assert rule.applied >= 1
    assert done.added == [str(model) for model in models]
    assert done.database.snapshot == 0
    assert [entry.id for entry in fdb.open(place.url).state.segments] == [done.segment]
    assert snapshots(place) == ["snapshots/00000000.json"]
    assert {name.split("/")[1] for name in place.names("segments")} == {f"{done.segment}.zarr"}
    place.proxy.clear()
    assert fdb.ingest(place.url, models, chunk_rows=10).segment is None
    assert outcome(place.url) == undisturbed


# Bytes that are not what was stored


@pytest.fixture(params=[pytest.param("client checks", marks=pytest.mark.soak), "client trusts"])
def checking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether botocore checks replies against the checksum that the server kept; not every server keeps one."""
    if request.param == "client trusts":
        monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")


def test_a_bit_of_a_chunk_flips_once(checking: None, place: Place, models: list[Path], undisturbed: Outcome) -> None:
    """First byte, middle and checksum, of three chunks: fetched again."""
    ingest(place.url, models)
    rules = [
        place.fault(asks("GET", rf"/filters/c/{chunk}/0$"), flip(where)) for chunk, where in enumerate((0, 0.5, 1))
    ]
    assert numbers(place.url) == undisturbed.numbers
    assert [rule.applied for rule in rules] == [1, 1, 1]


def test_a_bit_of_a_chunk_flips_for_ever(checking: None, place: Place, models: list[Path]) -> None:
    """Never a number: not of a pass, not of the dataset; verify names the chunk."""
    db = ingest(place.url, models)
    place.fault(asks("GET", r"/filters/c/3/0$"), flip(), FOREVER)
    with pytest.raises(DamageError, match=rf"{db.segments[0].id}.*(chunk |/c/)3") as caught:
        fdb.drift(db, by="model")
    assert is_one_line(caught.value)
    with pytest.raises(DamageError, match=r"(chunk |/c/)3"):
        fdb.open(place.url).dataset["filters"].compute()
    assert [(problem.variable, problem.chunk) for problem in verify(db, deep=True).problems] == [("filters", 3)]


NOT_CHUNKS = {
    "a table": (r"/row_size/c/0$", "row_size"),
    "a segment's metadata": (r"\.zarr/zarr\.json$", r"zarr\.json"),
    "a snapshot": (SNAPSHOT, r"snapshots/0000000\d\.json"),
    "a summary": (r"/summaries/.*/moments[^/]*\.npz$", r"summaries/.*moments"),
    "a basis": (r"/bases/", "bases/"),
}


def test_a_bit_of_something_else_flips_once(
    checking: None, place: Place, models: list[Path], undisturbed: Outcome
) -> None:
    """Asked for again, the same numbers; each of them in turn, at its first byte, its middle, its last."""
    ingest(place.url, models)
    numbers(place.url)
    for where in (0, 0.5, 1):
        rules = {what: place.fault(asks("GET", pattern), flip(where)) for what, (pattern, _) in NOT_CHUNKS.items()}
        assert numbers(place.url) == undisturbed.numbers
        assert {what for what, rule in rules.items() if rule.left} == set()


@pytest.mark.parametrize("what", NOT_CHUNKS)
def test_a_bit_of_something_else_flips_for_ever(what: str, checking: None, place: Place, models: list[Path]) -> None:
    """DamageError names it, and there is no number."""
    pattern, name = NOT_CHUNKS[what]
    ingest(place.url, models)
    if what == "a basis":
        numbers(place.url)
    place.fault(asks("GET", pattern), flip(), FOREVER)
    with pytest.raises(DamageError, match=name) as caught:
        numbers(place.url)
    assert is_one_line(caught.value)


@pytest.mark.parametrize("word", ['"format":2', '"number":0', '"sha256"', '"segments"'])
def test_a_bit_of_a_snapshot_flips_where_it_is_looked_at_first(
    word: str, place: Place, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the words that are read before the digest is: damage, never something else."""
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    ingest(place.url, models)
    data = Files.at(place.url).read("snapshots/00000000.json")
    begin = data.index(word.encode())
    for position in (begin + 1, begin + len(word) - 1):
        rule = place.fault(asks("GET", SNAPSHOT), flip(position / (len(data) - 1)))
        assert fdb.open(place.url).snapshot == 0
        assert rule.applied == 1
        rule = place.fault(asks("GET", SNAPSHOT), flip(position / (len(data) - 1)), FOREVER)
        with pytest.raises(DamageError, match="00000000"):
            fdb.open(place.url)
        rule.left = 0


# What does not pass


def after_chunks(number: int, match: Match) -> Match:
    """`match` from the moment on at which so many chunks are put; those pass, as often as they are asked for."""
    begun: set[str] = set()

    def counted(request: Request) -> bool:
        if KINDS["PUT chunk"](request) and request.path not in begun and len(begun) < number:
            begun.add(request.path)
            return False
        return len(begun) >= number and match(request) and request.path not in begun

    return counted


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else takes a minute or two; waiting itself is the patient test's."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    for name, seconds in {"SECONDS": 4.0, "READ_SECONDS": 4.0, "RETRY_SECONDS": 2.0}.items():
        monkeypatch.setattr(remote, name, seconds)


@pytest.mark.parametrize(
    ("match", "done", "action", "patient"),
    [
        (lambda request: True, 0, status(503), True),
        (lambda request: True, 3, status(503), False),
        (KINDS["PUT chunk"], 2, NO_CONTINUE, False),
        (KINDS["PUT chunk"], 2, STALL, False),
        (KINDS["PUT chunk"], 2, RESET, False),
        (KINDS["PUT snapshot"], 6, STALL, False),
    ],
    ids=["503", "503 meanwhile", "no 100-continue", "stall", "reset", "stalled commit"],
)
def test_for_ever(
    match: Match,
    done: int,
    action: Action,
    patient: bool,
    place: Place,
    models: list[Path],
    undisturbed: Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One error within a bound; when the store is well again, a re-run finishes and keeps what was there."""
    if not patient:
        be_impatient(monkeypatch)
    rule = place.fault(after_chunks(done, match), action, FOREVER)
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        ingest(place.url, models)
    assert time.monotonic() - began < BOUND
    assert type(caught.value) is StoreError
    assert is_one_line(caught.value)
    assert place.url in str(caught.value)
    assert rule.applied
    complete = set(put_chunks(place))
    assert len(complete) >= done
    place.proxy.clear()
    ingest(place.url, models)
    assert complete.isdisjoint(put_chunks(place))
    assert snapshots(place) == ["snapshots/00000000.json"]
    assert outcome(place.url) == undisturbed


def test_a_stalled_read(place: Place, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    db = ingest(place.url, models)
    be_impatient(monkeypatch)
    place.fault(asks("GET", r"/filters/c/3/0$"), STALL, FOREVER)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"filters/c(hunk |/)3") as caught:
        fdb.drift(db, by="model")
    assert time.monotonic() - began < BOUND
    assert not isinstance(caught.value, DamageError)
    assert is_one_line(caught.value)


# Stores that cannot be used


def test_a_server_that_ignores_conditional_puts(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is stored: two writers would lose data there."""
    forget_clients()
    with careless() as (endpoint, objects):
        for name, value in {**seaweed.KEYS, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        with pytest.raises(StoreError, match="If-None-Match") as caught:
            ingest(f"s3://{BUCKET}/db", models)
        assert time.monotonic() - began < 20
        assert is_one_line(caught.value)
        assert objects == {}
    forget_clients()


def cli(*args: object, env: dict[str, str], cwd: Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "filterdb", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=BOUND)
    assert code is None or done.returncode == code, (args, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "readersecret"}


@pytest.fixture(scope="module")
def with_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that knows an administrator and one who may only read."""
    folder = tmp_path_factory.mktemp("with-reader")
    identities = [
        {
            "name": keys["AWS_ACCESS_KEY_ID"],
            "credentials": [{"accessKey": keys["AWS_ACCESS_KEY_ID"], "secretKey": keys["AWS_SECRET_ACCESS_KEY"]}],
            "actions": actions,
        }
        for keys, actions in ((seaweed.KEYS, ["Admin", "Read", "Write", "List", "Tagging"]), (READER, ["Read", "List"]))
    ]
    (folder / "config.json").write_text(json.dumps({"identities": identities}))
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            plain = subprocess.Popen

            def configured(command: list[str], **more: Any) -> Any:
                return plain([*command, f"-s3.config={folder / 'config.json'}"], **more)

            patch.setattr(seaweed.subprocess, "Popen", configured)
            endpoint = stack.enter_context(seaweed.serving(folder / "server"))
        make_bucket(endpoint)
        yield endpoint


REFUSALS: dict[str, dict[str, str | None]] = {
    "wrong secret": {"AWS_SECRET_ACCESS_KEY": "wrongsecret"},
    "unknown key": {"AWS_ACCESS_KEY_ID": "nobody"},
    "no credentials": {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
    "read only": {**READER},
    "missing bucket": {},
    "no server": {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
}


@pytest.fixture(scope="module")
def start_seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """What a command takes on this machine to do nothing."""
    began = time.monotonic()
    cli("--version", env=dict(os.environ), cwd=tmp_path_factory.mktemp("start"))
    return time.monotonic() - began


@pytest.mark.parametrize("why", REFUSALS)
def test_a_refusal_is_told_quickly(
    why: str, with_reader: str, start_seconds: float, models: list[Path], tmp_path: Path
) -> None:
    """One line, exit code 74, no secret; nothing was stored."""
    env = {**os.environ, **seaweed.KEYS, "AWS_ENDPOINT_URL": with_reader, "HOME": str(tmp_path)}
    for name, value in REFUSALS[why].items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    prefix = uuid.uuid4().hex
    bucket = "no-such-bucket" if why == "missing bucket" else BUCKET
    began = time.monotonic()
    done = cli("ingest", f"s3://{bucket}/{prefix}/db", *models, "--threads", 2, env=env, cwd=tmp_path, code=74)
    took = time.monotonic() - began
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"s3://{bucket}/{prefix}/db" in done.stderr
    assert done.stdout == ""
    assert not any(secret in done.stderr for secret in ("wrongsecret", "readersecret", "secretsecret"))
    assert administrator(with_reader).find(f"{BUCKET}/{prefix}") == []
    assert took < 20 + start_seconds


# Secrets

CANARY = "canary7Qx9Zk2LmVt4"


@pytest.fixture(scope="module")
def with_canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose administrator's secret is the canary."""
    with ExitStack() as stack:
        # Only while it starts: another server may start later, with the usual secret.
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(seaweed.KEYS, "AWS_SECRET_ACCESS_KEY", CANARY)
            endpoint = stack.enter_context(seaweed.serving(tmp_path_factory.mktemp("with-canary") / "server"))
            make_bucket(endpoint)
        yield endpoint


def secrets(way: str, endpoint: str) -> dict[str, str]:
    """The environment of a user who gives the secret one way or the other."""
    keys = {name: value for name, value in seaweed.KEYS.items() if "KEY" not in name}
    ways = {
        "AWS": {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": CANARY},
        "FSSPEC": {"FSSPEC_S3_KEY": "admin", "FSSPEC_S3_SECRET": CANARY},
    }
    return {**keys, **ways[way], "AWS_ENDPOINT_URL": endpoint}


def working(folder: Path, **more: str) -> dict[str, str]:
    """An environment in which everything that is written lies below a folder."""
    for name in ("home", "tmp", "dask"):
        (folder / name).mkdir(parents=True)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FSSPEC_"))},
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "DASK_TEMPORARY_DIRECTORY": str(folder / "dask"),
        "DASK_DISTRIBUTED__COMM__COMPRESSION": "null",
        **more,
    }


def assert_nowhere(folder: Path, *said: str | bytes) -> None:
    for text in said:
        assert CANARY.encode() not in (text.encode() if isinstance(text, str) else text)
    for path in folder.rglob("*"):
        assert CANARY not in path.name
        if path.is_file() and not path.is_symlink():
            assert CANARY.encode() not in path.read_bytes(), path


def broken_chunks(proxy: Proxy) -> None:
    """From now on, chunks of new databases are refused while workers put them."""
    proxy.fault(KINDS["PUT chunk"], status(403), FOREVER)


WAYS = ["AWS", pytest.param("FSSPEC", marks=pytest.mark.soak)]


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_written(way: str, with_canary: str, models: list[Path], tmp_path: Path) -> None:
    """Not to a terminal, not to a disk, not into the database: a whole run in two processes, failures among it."""
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}/db"
    said = []
    with proxying(with_canary, record=True) as proxy:
        env = working(tmp_path, **secrets(way, proxy.endpoint))
        run = partial(cli, env=env, cwd=tmp_path)
        where = ("--workers", 2)
        said += [run("ingest", url, *models, "--chunk-rows", 10, *where)]
        said += [run("drift", url, "--by", "model", "--json", *where)]
        said += [run("verify", url, "--deep", "--threads", 2)]
        said += [run("info", f"s3://no-such-bucket/{uuid.uuid4().hex}", "--threads", 1, code=74)]
        broken_chunks(proxy)
        said += [run("ingest", f"{url}-broken", *models, "--chunk-rows", 10, *where, code=None)]
        assert said[-1].returncode == 74, said[-1].stderr
        assert b"AWS4-HMAC-SHA256 Credential=admin/" in proxy.sent
        assert_nowhere(tmp_path, bytes(proxy.sent), bytes(proxy.answered))
    stored = administrator_with_canary(with_canary)
    objects = stored.cat(stored.find(url.rsplit("/", 1)[0]))
    assert len(objects) > 50
    assert_nowhere(
        tmp_path, *objects, *objects.values(), *(text for done in said for text in (done.stdout, done.stderr))
    )


def administrator_with_canary(endpoint: str) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(
        key="admin", secret=CANARY, endpoint_url=endpoint, use_listings_cache=False, skip_instance_cache=True
    )


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_travels(way: str, with_canary: str, models: list[Path], tmp_path: Path) -> None:
    """Client and workers have it in their environments; neither tells it to the scheduler, with errors or without."""
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}/db"
    dasks = [str(Path(sys.executable).parent / "dask")]
    with ExitStack() as stack:
        store = stack.enter_context(proxying(with_canary))
        env = working(tmp_path, **secrets(way, store.endpoint))
        bare = {name: value for name, value in env.items() if CANARY not in value}

        def start(env: dict[str, str], *args: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((tmp_path / f"{args[0]}-{uuid.uuid4().hex[:4]}.log").open("wb"))
            process = subprocess.Popen([*dasks, *args], env=env, cwd=tmp_path, stdout=log, stderr=log)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            return process

        known = tmp_path / "scheduler.json"
        start(bare, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(known))
        wait_for(lambda: known.exists() and known.read_text().strip().endswith("}"))
        scheduler = json.loads(known.read_text())["address"]
        wire = stack.enter_context(proxying(scheduler, raw=True, record=True))
        for _ in range(2):
            start(env, "worker", wire.endpoint, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
        run = partial(cli, env=env, cwd=tmp_path)
        where = ("--scheduler", wire.endpoint)
        run("ingest", url, *models, "--chunk-rows", 10, *where)
        run("drift", url, "--by", "model", *where)
        broken_chunks(store)
        failed = run("ingest", f"{url}-broken", *models, "--chunk-rows", 10, *where, code=None)
        assert failed.returncode == 74, failed.stderr
        assert url.encode() in wire.sent and f"{url}-broken".encode() in wire.sent  # what travels can be read here
        assert b"the store refused or failed" in wire.answered  # the error has come from a worker
        assert_nowhere(tmp_path, bytes(wire.sent), bytes(wire.answered), failed.stdout, failed.stderr)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("way", ["AWS", "FSSPEC"])
def test_no_secret_is_pickled(
    way: str, with_canary: str, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database, its lazy dataset and its errors, after all of it was used."""
    forget_clients()
    env = secrets(way, with_canary)
    for name in (*seaweed.KEYS, *env):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    conf: dict[str, Any] = {}
    fsspec.config.set_conf_env(conf)  # as an interpreter does that is started with this environment
    monkeypatch.setattr(fsspec.config, "conf", conf)
    try:
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}/db"
        db = ingest(url, models)
        result = fdb.drift(db, by="model")
        dataset = db.dataset
        assert dataset["filters"].shape == (56, 9)
        dataset["filters"].compute()
        with pytest.raises(StoreError) as caught:
            fdb.open(f"s3://no-such-bucket/{uuid.uuid4().hex}")
        kept = [db, dataset, dataset["filters"].data.dask, result, db.select(model=str(models[0])), caught.value]
        for one in kept:
            assert_nowhere(tmp_path, cloudpickle.dumps(one))
    finally:
        forget_clients()
