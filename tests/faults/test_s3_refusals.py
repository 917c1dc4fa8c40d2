"""Object stores that refuse, a server that is careless with commits, and secrets, which appear nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import fsspec
import pytest
import s3fs

import filterdb as fdb
from filterdb.errors import StoreError
from tests import seaweed
from tests.faults.careless import careless
from tests.faults.place import BOUND, BUCKET, KINDS, administrator, forget_clients, ingest, is_one_line, make_bucket
from tests.faults.proxy import FOREVER, Proxy, proxying, status
from tests.several import run_several

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]

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


def cli(*args: object, env: dict[str, str], cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "filterdb", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=BOUND)
    assert done.returncode == code, (args, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
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

            patch.setattr(subprocess, "Popen", configured)
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
    """Not to a terminal, not to a disk, not into the database: a whole run with a worker, failures among it."""
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}/db"
    with proxying(with_canary, record=True) as proxy:
        run = partial(run_several, env=working(tmp_path, **secrets(way, proxy.endpoint)), cwd=tmp_path)
        chunks, where = ("--chunk-rows", 10), ("--workers", 1)
        said = run(
            ["ingest", url, *models, *chunks, *where],
            ["drift", url, "--by", "model", "--json", *where],
            ["verify", url, "--deep", "--threads", 2],
            ["info", f"s3://no-such-bucket/{uuid.uuid4().hex}", "--threads", 1],
        )
        assert [done.returncode for done in said] == [0, 0, 0, 74], [done.stderr[-1_000:] for done in said]
        broken_chunks(proxy)
        said += run(["ingest", f"{url}-broken", *models, *chunks, *where])
        assert said[-1].returncode == 74, said[-1].stderr
        assert b"AWS4-HMAC-SHA256 Credential=admin/" in proxy.sent
        assert_nowhere(tmp_path, bytes(proxy.sent), bytes(proxy.answered))
    stored = administrator_with_canary(with_canary)
    objects = stored.cat(stored.find(url.rsplit("/", 1)[0]))
    assert len(objects) > 25
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
        start(env, "worker", wire.endpoint, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
        run = partial(run_several, env=env, cwd=tmp_path)
        chunks, where = ("--chunk-rows", 10), ("--scheduler", wire.endpoint)
        done = run(["ingest", url, *models, *chunks, *where], ["drift", url, "--by", "model", *where])
        assert [sound.returncode for sound in done] == [0, 0], done
        broken_chunks(store)
        (failed,) = run(["ingest", f"{url}-broken", *models, *chunks, *where])
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
