"""Models behind https and s3 are read in parts; the filters are those of the file, and few of its bytes are fetched."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import cycle
from pathlib import Path

import fsspec
import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import InputError, StoreError, StoreMissingError
from filterdb.store import http, ranged
from filterdb.store.ranged import ChangedError
from tests.hub.nets import filter_bytes, kernels, resnet50, safetensors
from tests.hub.server import Fault, Hub, Repository
from tests.models import chain, weights

pytestmark = pytest.mark.slow

DIVISOR = 4
TENSORS = resnet50(DIVISOR)
FILE = safetensors(TENSORS)


def stored(db: fdb.Database) -> dict[str, np.ndarray]:
    """Return the filters of each layer of a database with one model."""
    names = [str(name) for name in db.layers["layer_name"].values]
    values = db.dataset["filters"].values
    bounds = np.cumsum([0, *db.layers["row_size"].values])
    return {name: values[first:last] for name, first, last in zip(names, bounds[:-1], bounds[1:], strict=True)}


def assert_stored(db: fdb.Database, tensors: dict[str, np.ndarray]) -> None:
    got, expected = stored(db), kernels(tensors)
    assert got.keys() == expected.keys()
    for name, filters in expected.items():
        np.testing.assert_array_equal(got[name], filters)


def test_http_is_read_in_parts(hub: Hub, tmp_path: Path) -> None:
    hub.static["net.safetensors"] = FILE
    done = fdb.ingest(tmp_path / "db", f"{hub.web}/net.safetensors", kernels="3x3")
    assert done.added == [f"{hub.web}/net.safetensors"]
    assert_stored(done.database, TENSORS)
    # Once for the scan and the write, which find them in the cache.
    assert filter_bytes(DIVISOR) <= hub.sent("web") < 0.55 * len(FILE)
    assert all(asked.status == 206 for asked in hub.asked if asked.method != "HEAD")


def test_a_check_reads_only_the_filters(hub: Hub) -> None:
    hub.static["net.safetensors"] = FILE
    fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")
    assert hub.sent() < 0.55 * len(FILE)
    assert hub.count("web/net") <= 18


def test_the_content_decides_the_hash(hub: Hub, tmp_path: Path) -> None:
    hub.static |= {"a.safetensors": FILE, "b.safetensors": FILE, "c.safetensors": safetensors(resnet50(DIVISOR, 1))}
    urls = [f"{hub.web}/{name}.safetensors" for name in "abc"]
    done = fdb.ingest(tmp_path / "db", urls, kernels="3x3")
    assert done.duplicates == [urls[1]]
    again = fdb.ingest(tmp_path / "db", urls, kernels="3x3")
    assert (again.added, sorted(again.present)) == ([], urls)


def test_onnx_and_its_external_data_are_fetched_whole(hub: Hub, tmp_path: Path) -> None:
    import onnx

    path = chain(tmp_path / "big.onnx", weights(256, 256), weights(256, 256, seed=1))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="big.data", size_threshold=0)
    hub.static |= {"m/big.onnx": path.read_bytes(), "m/big.data": (tmp_path / "big.data").read_bytes()}
    hub.static["m/one.onnx"] = chain(tmp_path / "one.onnx", weights(256, 256)).read_bytes()
    done = fdb.ingest(tmp_path / "db", [f"{hub.web}/m/big.onnx", f"{hub.web}/m/one.onnx"], kernels="3x3")
    assert len(done.added) == 2
    local = fdb.ingest(tmp_path / "local", [path, tmp_path / "one.onnx"], kernels="3x3")
    for db in (done.database, local.database):
        assert db.counts["filters"] == 3 * 65536
    assert list(done.database.models["file_hash"].values) == list(local.database.models["file_hash"].values)


def test_external_data_that_looks_like_another_format_is_fetched_whole(hub: Hub, tmp_path: Path) -> None:
    """The ONNX reader knows no parts: it would take what is missing for zeros."""
    import onnx

    filters = weights(640, 640)
    path = chain(tmp_path / "a.onnx", filters)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.data", size_threshold=0)
    changed = onnx.load(path, load_external_data=False)
    header = safetensors({"x": np.zeros((600, 600), np.float32)})[:128]
    data = (header + bytes(4096))[:4096] + (tmp_path / "a.data").read_bytes()
    for entry in changed.graph.initializer[0].external_data:
        entry.value = "4096" if entry.key == "offset" else entry.value
    if not any(entry.key == "offset" for entry in changed.graph.initializer[0].external_data):
        changed.graph.initializer[0].external_data.add(key="offset", value="4096")
    hub.static |= {"a.onnx": changed.SerializeToString(), "a.data": data}
    db = fdb.ingest(tmp_path / "db", f"{hub.web}/a.onnx", kernels="3x3").database
    np.testing.assert_array_equal(db.dataset["filters"].values, filters.reshape(-1, 9))


@pytest.mark.parametrize("fault", ["whole", "no version", "weak"])
def test_a_server_without_parts_is_read_whole(hub: Hub, tmp_path: Path, fault: str) -> None:
    hub.static["net.safetensors"] = FILE
    etag = {"no version": "none", "weak": 'W/"1"'}.get(fault)
    hub.faults.append(Fault("web", times=100, whole=fault == "whole", etag=etag))
    assert_stored(fdb.ingest(tmp_path / "db", f"{hub.web}/net.safetensors", kernels="3x3").database, TENSORS)


def test_rate_limits_are_obeyed(hub: Hub) -> None:
    hub.static["net.safetensors"] = FILE
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2))
    hub.faults += [
        Fault("web", status=429, headers={"Retry-After": "1"}),
        Fault("web", status=503, headers={"Retry-After": soon}),
        *(Fault("web", status=status) for status in (429, 500, 502, 503)),
        Fault("web", cut=1000, times=2, skip=3),
    ]
    began = time.monotonic()
    fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")
    assert time.monotonic() - began >= 1
    assert not any(fault.times for fault in hub.faults)


def test_a_rate_limit_that_is_too_long_is_an_error(hub: Hub) -> None:
    hub.static["net.safetensors"] = FILE
    hub.faults.append(Fault("web", times=99, status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(StoreError, match=r"HTTP 429, it asks to wait 3,600 s") as error:
        fdb.check(f"{hub.web}/net.safetensors?token=hf_secret", kernel="3x3")
    assert "hf_secret" not in str(error.value)
    assert hub.count("web") == 1


def test_time_is_limited(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TOTAL_SECONDS", 2.5)
    hub.static["net.safetensors"] = FILE
    hub.faults.append(Fault("web", times=99, status=503, headers={"Retry-After": "1"}))
    with pytest.raises(StoreError, match="HTTP 503"):
        fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")
    assert 2 <= hub.count("web") <= 3


@pytest.mark.parametrize(("status", "kind", "message"), [
    (404, InputError, "expected a file at .*, found none"),
    (403, StoreError, "HTTP 403.*check the credentials"),
    (500, StoreError, "HTTP 500"),
])  # fmt: skip
def test_errors_are_of_one_line(hub: Hub, tmp_path: Path, status: int, kind: type[Exception], message: str) -> None:
    hub.faults.append(Fault("web", times=99, status=status))
    with pytest.raises(kind, match=message) as error:
        fdb.ingest(tmp_path / "db", f"{hub.web}/net.safetensors", kernels="3x3")
    assert "\n" not in str(error.value)


def test_a_file_that_changes_is_read_again_once(hub: Hub, tmp_path: Path) -> None:
    other = resnet50(DIVISOR, seed=1)
    versions = cycle([safetensors(other), FILE])
    hub.static["net.safetensors"] = FILE

    def change() -> None:  # before every answer
        hub.static["net.safetensors"] = next(versions)

    hub.faults.append(Fault("web", change=change, skip=1))
    assert_stored(fdb.ingest(tmp_path / "db", f"{hub.web}/net.safetensors", kernels="3x3").database, other)
    versions = cycle([safetensors(resnet50(DIVISOR, seed)) for seed in (2, 3)])
    hub.faults.append(Fault("web", times=99, change=change))
    with pytest.raises(ChangedError, match="expected one version of the file, it changed on the server"):
        fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")


def test_an_unreachable_host_is_an_error(hub: Hub) -> None:
    hub.static["net.safetensors"] = FILE
    for url in ("http://127.0.0.1:9/net.safetensors", "http://host.invalid/net.safetensors"):
        with pytest.raises(StoreError) as error:
            fdb.check(url, kernel="3x3")
        assert error.value.exit_code == 74
        assert "\n" not in str(error.value)


def test_s3_is_read_in_parts(s3: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{s3()}/net.safetensors"
    fsspec.filesystem("s3").pipe(url, FILE)
    parts: list[int] = []
    plain = ranged._get_s3

    async def counted(url: str, start: int, stop: int, **conditions: str) -> tuple[bytes, object]:
        parts.append(stop - start)
        return await plain(url, start, stop, **conditions)

    monkeypatch.setattr(ranged, "_get_s3", counted)
    done = fdb.ingest(tmp_path / "db", url, kernels="3x3")
    assert_stored(done.database, TENSORS)
    assert filter_bytes(DIVISOR) <= sum(parts) < 0.55 * len(FILE)


def test_an_object_that_changes_on_s3(s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{s3()}/net.safetensors"
    files = fsspec.filesystem("s3")
    files.pipe(url, FILE)
    source = ranged.open_source(url)
    assert source is not None
    assert ranged.read_parts(source, [(0, 100)], lambda start, data: None) == [(0, 100)]
    files.pipe(url, safetensors(resnet50(DIVISOR, seed=1)))
    with pytest.raises(ChangedError):
        ranged.read_parts(source, [(0, 100)], lambda start, data: None)
    with pytest.raises(StoreMissingError):
        ranged.open_source(f"{url}.none")


def test_a_password_is_not_sent_to_another_host(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add(Repository("org/net", {"model.safetensors": FILE}))
    hub.static["net.safetensors"] = FILE
    url = hub.web.replace("://", "://me:secret@") + "/net.safetensors"
    fdb.check(url, kernel="3x3")
    assert {asked.authorization for asked in hub.asked} == {f"Basic {b64encode(b'me:secret').decode()}"}
    hub.asked.clear()
    there = f"{hub.endpoint}/org/net/resolve/{repository.commit(repository.files)}/model.safetensors"
    hub.faults.append(Fault("web/moved", status=302, headers={"Location": there}, times=99))
    assert_stored(fdb.ingest(tmp_path / "db", url.replace("net.safe", "moved.safe"), kernels="3x3").database, TENSORS)
    assert {asked.authorization for asked in hub.asked if asked.host != "web"} == {""}


def test_redirects_stay_with_https_and_end(hub: Hub) -> None:
    for target in ("http://host/x", "file:///etc/passwd", "ftp://host/x"):
        with pytest.raises(StoreError, match="expected a redirect to https"):
            http._redirected("https://host/a", target)
    assert http._redirected("https://host/a/b?c", "/d?e") == "https://host/d?e"
    hub.faults.append(Fault("web", status=302, headers={"Location": "/again"}, times=99))
    with pytest.raises(StoreError, match="more than 10 redirects"):
        fdb.check(f"{hub.web}/net.safetensors", kernel="3x3")


@pytest.mark.parametrize("name", ["..", "...", "a" * 300 + ".safetensors", "ä b%20c.safetensors", ""])
def test_any_name(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.static[f"x/{name.replace('%20', ' ')}"] = FILE
    url = f"{hub.web}/x/{name}"
    if not name.strip("."):  # a client takes dots away
        hub.static |= {"x/": FILE, "": FILE, "x/...": FILE}
    assert_stored(fdb.ingest(tmp_path / "db", url, kernels="3x3").database, TENSORS)
