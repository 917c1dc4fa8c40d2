"""Odd URLs, paths and catalogs: one line, 65 or 74 (2 for a database), never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

import filterdb as fdb
from filterdb.errors import FilterDBError, InputError
from tests.commands.running import run
from tests.models import chain, weights

pytestmark = pytest.mark.slow

ODD = [
    "http://[", "http://", "http:///x.onnx", "http://127.0.0.1:abc/x.onnx", "http://127.0.0.1:99999999/x.onnx",
    "http://a b/x.onnx", "http://ex\0ample/x.onnx", "http://./x.onnx", "http://../x.onnx", "https://[::1/x.onnx",
    "http://[zz]/x.onnx", "http://\u2100/x.onnx", "http://" + "a" * 300 + ".invalid/x.onnx", "foo://x", "foo://", "://x",
    "a b://x", "s3://", "s3:///", "s3://UPPER_case!/x.onnx", "s3://a/../b", "s3://*", "memory://none/x.onnx",
    "zip://a.onnx::http://[", "simplecache::http://[", "data://x", "reference://x", "github://x", "hf://",
    "filecache://x", "dir://x", "abfs://x", "gs://x", "sftp://[",
]  # fmt: skip


def refused(attempt: object, codes: set[int]) -> str:
    """The line that an attempt is refused with."""
    with pytest.raises(FilterDBError) as caught:
        attempt()  # type: ignore[operator]
    assert caught.value.exit_code in codes, caught.value
    line = str(caught.value)
    assert "\n" not in line and len(line) < 700
    return line


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, short_pauses: None) -> None:
    """S3 settings of nowhere, and no second tries."""
    monkeypatch.setattr("filterdb.store.remote.TRIES", 1)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("url", ODD, ids=lambda url: repr(url[:40]))
def test_odd_urls(url: str, tmp_path: Path) -> None:
    """As a source, as a catalog, as a row of one, to relabel by, to check, and as a model to compare."""
    db = fdb.ingest(tmp_path / "db", [chain(tmp_path / "m.onnx", weights())]).database
    refused(lambda: fdb.ingest(tmp_path / "new", [url]), {65, 74})
    for suffix in ("csv", "parquet"):
        refused(lambda suffix=suffix: fdb.ingest(tmp_path / "new", catalog=f"{url}.{suffix}"), {65, 74})
        refused(lambda suffix=suffix: fdb.relabel(db, f"{url}.{suffix}"), {65, 74})
    if "\0" not in url:
        (tmp_path / "list.csv").write_text(f"path,name\n{url},odd\n")
        refused(lambda: fdb.ingest(tmp_path / "new", catalog=tmp_path / "list.csv"), {65, 74})
    refused(lambda: fdb.nearest(db, url), {65, 74})
    try:
        assert fdb.check(url)["reason"].values[0]
    except FilterDBError as error:
        assert error.exit_code == 74


@pytest.mark.parametrize("url", ["http://[", "http://", "http://h:abc/db", "s3://", "http:///db", "foo://x", "foo://"])
def test_odd_urls_of_databases(url: str) -> None:
    refused(lambda: fdb.open(url), {2})


PATHS = [
    "gone.onnx",
    "a\0b.onnx",
    "n" * 300 + ".onnx",
    "n/" * 3_000,
    "\ud800.onnx",
    "[",
    "[a",
    "**/*.onnx",
    " ",
    "~x",
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path[:30]))
def test_odd_paths(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        fdb.ingest(tmp_path / "db", [path])
    if path.isprintable() and path.strip():
        (tmp_path / "list.csv").write_text(f"path,name\n{path},odd\n")
        with pytest.raises(InputError, match="expected a file at"):
            fdb.ingest(tmp_path / "db", catalog=tmp_path / "list.csv")


@pytest.mark.parametrize("catalog", ["gone.csv", "folder", "a\0.csv", "n" * 300 + ".csv", "folder/x.csv/y.csv"])
def test_odd_catalogs(catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    db = fdb.ingest(tmp_path / "db", [chain(tmp_path / "m.onnx", weights())]).database
    for attempt in (lambda: fdb.ingest(tmp_path / "db", catalog=catalog), lambda: fdb.relabel(db, catalog)):
        refused(attempt, {65, 74})


@pytest.mark.slow
@pytest.mark.parametrize("args", [
    ("ingest", "DB", "http://["), ("check", "foo://x"), ("check", "s3://"), ("ingest", "DB", "s3://"),
    ("ingest", "DB", "--catalog", "http://h:abc/c.csv"),
], ids=" ".join)  # fmt: skip
def test_the_command(args: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*args, "--threads", 1, code=65, cwd=tmp_path)
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stdout + done.stderr
