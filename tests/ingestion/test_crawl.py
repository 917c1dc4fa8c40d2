"""Long lists of remote models: several commits, no fetch of what is stored, one bad file costs only itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import ConflictError, InputError, InterruptedRunError, StoreError, UsageError
from filterdb.ingestion import run, scanning
from filterdb.models import fingerprint
from filterdb.models.sandbox import Limits
from filterdb.store import download
from filterdb.store import snapshot as snapshots
from tests import site as sites
from tests.ingestion.crawling import NAMES, catalog, crawl, sizes
from tests.models import conv, model, tensor, weights
from tests.site import Site

pytestmark = pytest.mark.slow


def filters(db: fdb.Database, name: str) -> np.ndarray:
    values: np.ndarray = db.select(model=name).dataset.filters.values
    return values


@pytest.mark.slow
def test_a_commit_for_every_n_models(db: Path, site: Site) -> None:
    done = crawl(db, site)
    assert (done.added, done.present, done.rejected) == (NAMES, [], {})
    assert sizes(done.database) == [3, 3, 3, 1]
    assert done.segments == [entry.id for entry in done.database.state.segments] and done.segment == done.segments[-1]
    assert done.database.snapshot == 3
    for i, name in enumerate(NAMES):
        np.testing.assert_array_equal(filters(done.database, name), weights(seed=i).reshape(-1, 9))
    one = crawl(db.parent / "one", site, every=None)
    assert sizes(one.database) == [10]
    np.testing.assert_array_equal(one.database.dataset.filters.values, done.database.dataset.filters.values)


def test_a_commit_for_each_model(db: Path, site: Site) -> None:
    assert sizes(crawl(db, site, every=1).database) == [1] * 10


def test_more_than_a_hundred_remote_files_are_committed_in_batches(
    db: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred in the real run; here four, and local files are counted as none."""
    assert run.BATCH == 100
    monkeypatch.setattr(run, "BATCH", 4)
    monkeypatch.setattr(run, "READ_AHEAD", 1)
    assert sizes(crawl(db, site, every=None).database) == [4, 4, 2]
    assert sizes(crawl(db.parent / "few", site, NAMES[:4], every=None).database) == [4]
    local = [db.parent / f"{name}.onnx" for name in NAMES]
    for path, content in zip(local, site.files.values(), strict=True):
        path.write_bytes(content)
    assert sizes(fdb.ingest(db.parent / "local", local).database) == [10]
    assert sizes(fdb.ingest(db.parent / "batches", local, commit_every=4).database) == [4, 4, 2]


@pytest.mark.parametrize("every", [0, -1, True, 2.5, "3"])
def test_no_number_of_models(every: object, db: Path) -> None:
    with pytest.raises(UsageError, match="commit_every: expected"):
        fdb.ingest(db, ["http://127.0.0.1:9/m.onnx"], commit_every=every)  # type: ignore[arg-type]


def test_nothing_is_fetched_again(db: Path, site: Site) -> None:
    """The server's own count: a re-run asks for heads only."""
    crawl(db, site)
    site.requests.clear()
    again = crawl(db, site)
    assert (again.segment, again.added, again.present) == (None, [], NAMES)
    assert not site.gets() and len(site.requests) == len(NAMES)
    assert again.database.snapshot == 3


@pytest.mark.parametrize(("etag", "time", "gets"), [(False, True, 0), (False, False, 30), (True, True, 0)])
def test_what_identifies_a_file(etag: bool, time: bool, gets: int, db: Path, site: Site) -> None:
    """Size and time, where there is no ETag; with neither, files are asked for, asked for a part, and fetched."""
    site.with_etag, site.with_time = etag, time
    crawl(db, site)
    site.requests.clear()
    assert crawl(db, site).present == NAMES
    assert sum(site.gets().values()) == gets


def test_records_may_be_deleted(db: Path, site: Site) -> None:
    crawl(db, site)
    for record in (db / "sources").iterdir():
        record.unlink()
    site.requests.clear()
    assert crawl(db, site).present == NAMES
    assert len(site.gets()) == len(NAMES)
    site.requests.clear()
    assert crawl(db, site).present == NAMES
    assert not site.gets()  # they were written again


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"x":{"odd":1}}', b"\xff"])
def test_damaged_records_are_ignored(damage: bytes, db: Path, site: Site) -> None:
    crawl(db, site)
    for record in (db / "sources").iterdir():
        record.write_bytes(damage)
    digest = hashlib.sha256(damage).hexdigest()[:20]
    (db / f"sources/{digest}.json").write_bytes(damage)  # well named, and no records
    assert crawl(db, site).present == NAMES


def test_a_changed_file_is_fetched_and_noticed(db: Path, site: Site) -> None:
    crawl(db, site)
    site.files["/m04.onnx"] = site.files["/m05.onnx"]
    site.requests.clear()
    done = crawl(db, site, [*NAMES, "m04"][:10])
    assert set(site.gets()) == {"/m04.onnx"}
    assert "different content" in done.rejected["m04"]
    assert done.database.counts["models"] == 10 and not done.database.skipped.sizes["skipped"]
    with pytest.raises(InputError, match="different content"):
        crawl(db, site, every=None)  # one commit: an error, and nothing is written
    site.files["/m10.onnx"] = site.files.pop("/m04.onnx")
    site.files["/m04.onnx"] = b"changed"
    rest = crawl(db, site, [*NAMES, "m10"])
    assert (rest.added, list(rest.rejected)) == (["m10"], ["m04"])  # the rest goes on


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (404, "expected a file at .*m04.onnx, found none"),
        (500, "500"),
        (403, "403"),
        ("truncated", "refused or failed"),
        ("slow", "no answer within|refused or failed"),
    ],
)
def test_a_file_that_cannot_be_fetched(
    fault: sites.Fault, reason: str, db: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is rejected and tried again by the next run; the others are stored."""
    import re

    monkeypatch.setattr(download, "FETCH_SECONDS", 1.0)
    monkeypatch.setattr("filterdb.store.remote.READ_SECONDS", 1.0)
    monkeypatch.setattr("filterdb.store.http.TRIES", 1)
    site.faults["/m04.onnx"] = fault
    done = crawl(db, site)
    assert done.added == [name for name in NAMES if name != "m04"]
    assert list(done.rejected) == ["m04"] and re.search(reason, done.rejected["m04"])
    ledger = done.database.skipped
    assert [str(model) for model in ledger["skipped_model"].values] == ["m04"]
    site.faults.clear()
    site.requests.clear()
    again = crawl(db, site)
    assert (again.added, again.rejected, len(again.present)) == (["m04"], {}, 9)
    assert set(site.gets()) == {"/m04.onnx"}
    assert not again.database.skipped.sizes["skipped"]


def test_a_file_that_fails_between_reading_and_writing(db: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs only itself then, too: changed, and gone. With an ETag, it would be read from the cache."""
    monkeypatch.setattr(scanning, "MAX_BYTES", 0)
    site.with_etag = False
    other = site.files["/m09.onnx"]
    site.swapped["/m04.onnx"] = other
    done = crawl(db, site)
    assert list(done.rejected) == ["m04"] and "the weights differ from the scan" in done.rejected["m04"]
    assert done.added == [name for name in NAMES if name != "m04"]
    again = crawl(db, site)
    assert again.added == ["m04"]
    np.testing.assert_array_equal(filters(again.database, "m04"), weights(seed=9).reshape(-1, 9))
    assert str(again.database.models["duplicate_of"].values[-1]) == "m09"


def test_a_server_that_ends_before_the_write(db: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first file of a batch can be read, but not be fetched for the write."""
    monkeypatch.setattr(scanning, "MAX_BYTES", 0)
    counts = [0]

    def second(_: int) -> None:
        counts[0] += site.requests[-1] == ("GET", "/m01.onnx")
        if counts[0] == 2:
            site.faults["/m01.onnx"] = 503

    site.on_get = second
    done = crawl(db, site)
    assert list(done.rejected) == ["m01"] and "503" in done.rejected["m01"]
    assert len(done.added) == 9


def test_a_rejected_file_is_not_fetched_again(db: Path, site: Site) -> None:
    """Unless it or the limits have changed; every answer lists it."""
    site.files["/m04.onnx"] = b"junk"
    first = crawl(db, site)
    assert "not an ONNX model" in first.rejected["m04"]
    site.requests.clear()
    again = crawl(db, site)
    assert again.rejected == first.rejected and not site.gets()
    crawl(db, site, limits=Limits(seconds=30))
    assert set(site.gets()) == {"/m04.onnx"}
    site.files["/m04.onnx"] = site.files["/m05.onnx"]
    assert crawl(db, site).added == ["m04"]


def test_a_batch_of_rejected_files_does_not_stop_the_run(db: Path, site: Site) -> None:
    for name in NAMES[:4]:
        site.files[f"/{name}.onnx"] = b"junk"
    done = crawl(db, site)
    assert (done.added, list(done.rejected), sizes(done.database)) == (NAMES[4:], NAMES[:4], [3, 3])
    assert [str(model) for model in done.database.skipped["skipped_model"].values] == NAMES[:4]


def test_only_rejected_files(db: Path, site: Site) -> None:
    """The first one's error: a server that refuses is 74, junk is 65. No database is left."""
    for name in NAMES:
        site.files[f"/{name}.onnx"] = b"junk"
    with pytest.raises(InputError, match="not an ONNX model"):
        crawl(db, site)
    site.faults = {f"/{name}.onnx": 503 for name in NAMES}
    with pytest.raises(StoreError, match="503"):
        crawl(db, site)
    assert not db.exists()


def test_a_store_that_fails_ends_the_run(db: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of a model; what was committed stays, and the next run goes on after it."""
    real, calls = snapshots.commit, [0]

    def failing(*args: object) -> object:
        calls[0] += 1
        if calls[0] == 2:
            raise StoreError("writing db: the store refused or failed; run again")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshots, "commit", failing)
    with pytest.raises(StoreError, match="writing db"):
        crawl(db, site)
    assert fdb.open(db).counts["models"] == 3
    assert crawl(db, site).present == NAMES[:3]


def test_no_room_for_copies_ends_the_run(db: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every model would be rejected because this machine's disk is full."""
    import errno

    from filterdb.store import remote

    real = remote.call

    def full(url: str, method: str, *args: object, **kwargs: object) -> object:
        if method == "get_file":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(url, method, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(remote, "call", full)
    with pytest.raises(InterruptedRunError, match=r"No space left on device.*TMPDIR.*it resumes"):
        crawl(db, site)


def test_duplicates_across_batches(db: Path, site: Site) -> None:
    site.files["/m08.onnx"] = site.files["/m01.onnx"]
    done = crawl(db, site)
    twins = dict(zip(done.database.models["model"].values, done.database.models["duplicate_of"].values, strict=True))
    assert {str(model): str(twin) for model, twin in twins.items() if twin} == {"m08": "m01"}
    assert done.duplicates == ["m08"]


def test_the_same_id_twice(db: Path, site: Site) -> None:
    with pytest.raises(InputError, match="'m01' more than once"):
        crawl(db, site, ["m01", "m02", "m01"])
    assert not site.requests


def test_a_changed_row_is_refused_before_anything_is_fetched(db: Path, site: Site) -> None:
    crawl(db, site, NAMES[:6])
    site.requests.clear()
    with pytest.raises(InputError, match=r"model 'm00': .*task = 'other' instead of 'unknown'.*filterdb relabel"):
        fdb.ingest(db, catalog=catalog(db, site, task="other"), commit_every=3, chunk_rows=10)
    assert not site.requests
    fdb.relabel(db, catalog(db, site, NAMES[:6], task="other"))
    done = fdb.ingest(db, catalog=catalog(db, site, task="other"), commit_every=3, chunk_rows=10)
    assert (done.present, done.added) == (NAMES[:6], NAMES[6:])
    assert set(site.gets()) == {f"/{name}.onnx" for name in NAMES[6:]}


def rival(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], at: int) -> None:
    """Let another writer act before the `at`-th commit of a run."""
    real, calls = run.commit_models, [0]

    def meanwhile(*args: Any, **kwargs: Any) -> object:
        calls[0] += 1
        if calls[0] == at:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(run, "commit_models", real)
                act()
        return real(*args, **kwargs)

    monkeypatch.setattr(run, "commit_models", meanwhile)


def test_another_writer_between_batches(db: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its models are seen: as twins, and as stored already. Ours are committed after them."""
    monkeypatch.setattr(run, "READ_AHEAD", 1)
    (db.parent / "twin.onnx").write_bytes(site.files["/m09.onnx"])
    listed = db.parent / "rival.csv"
    listed.write_text(f"path,name\n{db.parent}/twin.onnx,twin\n{site.url}/m04.onnx,m04\n")
    rival(monkeypatch, lambda: fdb.ingest(db, catalog=listed, chunk_rows=10), 1)
    done = crawl(db, site)
    assert done.present == ["m04"] and done.added == [name for name in NAMES if name != "m04"]
    models = done.database.models
    assert [str(model) for model in models["model"].values][:2] == ["twin", "m04"]
    assert str(models["duplicate_of"].values[-1]) == "twin"


def test_a_conflict_with_another_writer(db: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of the batch that is just being committed: it is left out of the batch, or refused if it is another."""
    listed = db.parent / "rival.csv"
    (db.parent / "other.onnx").write_bytes(site.files["/m00.onnx"])
    listed.write_text(f"path,name\n{db.parent}/other.onnx,m03\n{site.url}/m04.onnx,m04\n")
    rival(monkeypatch, lambda: fdb.ingest(db, catalog=listed, chunk_rows=10), 2)
    done = crawl(db, site)
    assert done.present == ["m04"] and list(done.rejected) == ["m03"]
    assert "different content" in done.rejected["m03"]
    assert sorted(str(model) for model in done.database.models["model"].values) == NAMES


def test_a_conflict_in_a_single_commit_ends_the_run(db: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    rival(monkeypatch, lambda: fdb.ingest(db, [f"{site.url}/m04.onnx"], chunk_rows=10), 1)
    with pytest.raises(ConflictError, match="another ingest committed"):
        fdb.ingest(db, [f"{site.url}/m03.onnx", f"{site.url}/m04.onnx"], chunk_rows=10)


def test_external_data_is_part_of_what_identifies_a_model(db: Path, site: Site) -> None:
    """A model's own file is the same; its data changes, is missing, comes back."""
    import onnx

    proto = model([conv("x", "w", "y", "c")], [tensor("w", weights(2, 2))])
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "m.data")
    proto.graph.initializer[0].ClearField("raw_data")
    data = {i: weights(2, 2, seed=i).tobytes() for i in (1, 2)}
    site.files |= {"/big.onnx": proto.SerializeToString(), "/m.data": data[1]}
    names = ["m00", "big"]
    assert crawl(db, site, names).added == names
    site.requests.clear()
    assert crawl(db, site, names).present == names
    assert not site.gets()
    site.files["/m.data"] = data[2]
    assert "different content" in crawl(db, site, names).rejected["big"]
    del site.files["/m.data"]
    lost = crawl(db.parent / "two", site, names)
    assert "expected its external data" in lost.rejected["big"]
    site.files["/m.data"] = data[1]
    assert crawl(db.parent / "two", site, names).added == ["big"]


def test_a_new_name_is_a_new_model(db: Path, site: Site) -> None:
    """A record spares no fetch of a file that the database has under another id only."""
    crawl(db, site, ["m00"])
    list_ = db.parent / "again.csv"
    list_.write_text(f"path,name\n{site.url}/m00.onnx,again\n")
    done = fdb.ingest(db, catalog=list_, chunk_rows=10)
    assert done.added == done.duplicates == ["again"]


def test_a_removed_model_is_fetched_again(db: Path, site: Site) -> None:
    crawl(db, site)
    fdb.remove(db, "m02")
    site.requests.clear()
    assert crawl(db, site).added == ["m02"]
    assert set(site.gets()) == {"/m02.onnx"}


def test_records_survive_a_compaction(db: Path, site: Site) -> None:
    crawl(db, site)
    assert sizes(fdb.compact(db)) == [10]
    site.requests.clear()
    assert crawl(db, site).present == NAMES
    assert not site.gets()


def test_records_hold_no_secret(db: Path, site: Site) -> None:
    """A signed URL is recognised under another signature, and none is stored."""
    for signature in ("c0ffee99", "deadbeef"):
        (db.parent / "signed.csv").write_text(f"path,name\n{site.url}/m00.onnx?sig={signature},m\n")
        site.files[f"/m00.onnx?sig={signature}"] = site.files["/m00.onnx"]
        site.requests.clear()
        done = fdb.ingest(db, catalog=db.parent / "signed.csv")
    assert done.present == ["m"] and not site.gets()
    stored = b"".join(path.read_bytes() for path in (db / "sources").iterdir())
    assert stored and b"c0ffee99" not in stored and site.url.encode() not in stored


def test_a_url_of_a_commit_needs_no_request() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert download.identity(f"hf://org/repo@{commit}/model.onnx")
    assert download.identity(f"hf://org/repo@{commit}/a") != download.identity(f"hf://org/repo@{commit}/b")
    assert not download.identity("http://127.0.0.1:9/m.onnx")


@pytest.mark.parametrize(
    ("info", "is_known"),
    [
        ({"ETag": '"a"', "size": None}, True),
        ({"ETag": 'W/"a"', "size": 5}, True),
        ({"ETag": 'W/"a"', "size": None}, False),
        ({"size": 5}, False),
        ({"size": 5, "mtime": 3.5}, True),
        ({"size": None, "Last-Modified": "yesterday"}, False),
        ({"blob_id": "abc", "size": 5}, True),
    ],
)
def test_identities(info: dict[str, object], is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What file systems say of a file (fsspec's HTTP, S3 and Hugging Face ones use these names)."""
    from filterdb.store import remote

    monkeypatch.setattr(remote, "call", lambda *_, **__: info)
    identity = download.identity("http://host/m.onnx")
    assert bool(identity) == is_known
    record = fingerprint.SourceRecord({"": identity}, "hash")
    assert fingerprint.is_unchanged(record, "http://host/m.onnx", identity) == is_known
