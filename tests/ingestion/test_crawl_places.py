"""Crawls where users run them: S3, two workers, threads with temporary copies, the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import filterdb as fdb
from filterdb.ingestion import run
from filterdb.models.sandbox import Limits
from filterdb.store import download
from filterdb.store.files import Files
from tests.commands.running import run as run_command
from tests.ingestion.crawling import NAMES, catalog, crawl, sizes
from tests.site import Site

pytestmark = pytest.mark.slow


def test_on_s3(db: Path, contents: dict[str, bytes], s3: Callable[[], str]) -> None:
    """Models and database on a real S3 server; ETags spare the second fetch."""
    import fsspec

    url = s3()
    fsspec.filesystem("s3").pipe({f"{url}/models{path}": data for path, data in contents.items()})
    rows = "".join(f"models/{name}.onnx,{name}\n" for name in [*NAMES, "absent"])
    fsspec.filesystem("s3").pipe(f"{url}/crawl.csv", f"path,name\n{rows}".encode())
    done = fdb.ingest(f"{url}/db", catalog=f"{url}/crawl.csv", commit_every=4, chunk_rows=10)
    assert (done.added, list(done.rejected), sizes(done.database)) == (NAMES, ["absent"], [4, 4, 2])
    fetched: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real = download.fetch
        patch.setattr(download, "fetch", lambda url, target: fetched.append(url) or real(url, target))  # type: ignore[func-returns-value]
        again = fdb.ingest(f"{url}/db", catalog=f"{url}/crawl.csv", commit_every=4, chunk_rows=10)
    assert (again.present, again.segment) == (NAMES, None)
    assert not fetched
    assert len(Files.at(f"{url}/db").list("sources")) == 1  # ten models are read at once, in one group


@pytest.mark.slow
def test_on_two_workers(db: Path, site: Site, two_workers: object) -> None:
    site.with_etag, site.with_time = False, True
    site.faults["/m04.onnx"] = 500
    site.swapped["/m06.onnx"] = site.files["/m05.onnx"]
    with two_workers.as_current():  # type: ignore[attr-defined]
        done = crawl(db, site)
    assert sorted(done.rejected) == ["m04", "m06"] and len(done.added) == 8
    site.requests.clear()
    with two_workers.as_current():  # type: ignore[attr-defined]
        assert len(crawl(db, site, limits=Limits()).present) == 8
    assert set(site.gets()) == {"/m04.onnx", "/m06.onnx"}


def test_temporary_copies_are_those_in_flight(db: Path, site: Site, tmp_path: Path) -> None:
    """At every GET, no more copies are on the disk than threads; none is left at the end."""
    import tempfile

    import dask

    site.with_etag = False  # else there is the cache
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    seen: list[int] = []
    site.on_get = lambda _: seen.append(len(list(scratch.glob("filterdb-*"))))
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="threads", num_workers=2):
        patch.setattr(tempfile, "tempdir", str(scratch))
        crawl(db, site)
    assert seen and max(seen) <= 2
    assert not list(scratch.iterdir())


def test_the_command(db: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts on stdout, rejections and progress on stderr; a line now and then where stderr is no terminal."""
    import json

    from filterdb.cluster import progress

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(run, "READ_AHEAD", 1)
    site.files["/m04.onnx"] = b"junk"
    arguments = ("ingest", db, "--catalog", catalog(db, site), "--commit-every", "3")
    done = run_command(*arguments)
    assert "9 added (3 segments), 0 already stored, 1 rejected" in done.stdout
    assert "filterdb: rejected " in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("models: ")]
    assert lines and all(" of 10, " in line and line.endswith(" left") for line in lines), lines
    quiet = run_command(*arguments, "--json")
    answer = json.loads(quiet.stdout)
    assert (answer["segment"], answer["segments"], len(answer["present"])) == (None, [], 9)
    assert not [line for line in quiet.stderr.splitlines() if line.startswith("models: ")]
    run_command("ingest", db, "--catalog", catalog(db, site), "--commit-every", "0", code=2)
    help_text = " ".join(run_command("ingest", "--help").stdout.split())
    assert "--commit-every N Commit after every N new models" in help_text
