"""Databases where they are only read, or by others: plain web servers, file systems without links, Zarr's readers."""

from __future__ import annotations

import errno
import json
import os
import threading
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

import filterdb as fdb
from filterdb import schema
from filterdb.commands import info, snapshots
from filterdb.errors import DamageError, StoreError, StoreMissingError
from tests.models import chain, weights

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(autouse=True)
def synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    folder = tmp_path_factory.mktemp("readers")
    for seed, name in enumerate("ab"):
        chain(folder / f"{name}.onnx", weights(6, 5, seed), weights(7, 6, seed + 9))
    with dask.config.set(scheduler="synchronous"):
        return fdb.ingest(folder / "db", [folder / "a.onnx", folder / "b.onnx"], chunk_rows=20).database


class Quiet(SimpleHTTPRequestHandler):
    """A folder's files and listings; it tells no sizes in a listing, and writes nothing."""

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """As many connections may wait as a reader opens at once: the kernel answers those beyond after seconds."""

    request_queue_size = 128


@pytest.fixture
def web(db: fdb.Database) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), partial(Quiet, directory=db.url))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_plain_web_server(db: fdb.Database, web: str) -> None:
    there = fdb.open(web)
    assert info.to_answer(there)["segments"] == info.to_answer(db)["segments"]
    np.testing.assert_array_equal(there.dataset.filters.values, db.dataset.filters.values)
    np.testing.assert_array_equal(fdb.pca(there)["covariance"].values, fdb.pca(db)["covariance"].values)
    by_web = fdb.drift(there, by="model")  # before any basis is in the store: in memory
    np.testing.assert_array_equal(by_web["drift"].values, fdb.drift(db, by="model")["drift"].values)
    assert fdb.verify(there, deep=True).problems == []
    assert fdb.gc(web, grace=-1) == []
    assert [row["action"] for row in snapshots.to_answer(there)["rows"]] == ["ingest", "reduce"]


def test_damage_and_writes_on_a_plain_web_server(db: fdb.Database, web: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="got a web server, which can only be read"):
        fdb.ingest(web, [chain(tmp_path / "c.onnx", weights())])
    with pytest.raises(StoreMissingError):
        fdb.open(f"{web}/nowhere")
    path = Path(db.url) / db.segments[0].chunk_name(1)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:300])
        with pytest.raises(DamageError, match="chunk 1"):
            fdb.open(web).dataset.filters.values  # noqa: B018
        path.unlink()
        assert [problem.chunk for problem in fdb.verify(fdb.open(web)).problems] == [1]
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("code", ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"])
def test_a_file_system_without_hard_links(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT, some network and FUSE mounts: refused before a model is read, nothing is left behind."""

    def link(*_: object) -> None:
        number = getattr(errno, code)
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreError, match=r"refuses hard links .*keep the database on a local disk") as info:
        fdb.ingest(tmp_path / "db", [chain(tmp_path / "a.onnx", weights())])
    assert (info.value.exit_code, len(str(info.value).splitlines())) == (74, 1)
    assert not [path for path in (tmp_path / "db").rglob("*") if path.is_file()]


def unknown_objects(path: Path) -> list[str]:
    """List a group the slow way, member by member; return what Zarr says it does not know."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        members = {name for name, _ in group.members()}
        xr.open_zarr(path, consolidated=False).load()
    written_as = group.attrs["filterdb_format"]
    assert isinstance(written_as, int)
    tables = {v.name for v in schema.tables_of(written_as) if written_as < 5 or v.name in schema.IN_GROUP}
    alike = {v.name for v in schema.TABLES if not (path / v.name).exists()}  # fill values, in the consolidated metadata
    assert members == {schema.FILTERS.name, *tables} - (alike if written_as >= 5 else set())
    return [str(warning.message) for warning in caught if "not recognized" in str(warning.message)]


def test_zarr_knows_every_object_of_a_segment(db: fdb.Database, tmp_path: Path) -> None:
    """The pack lies beside the group. In databases of format 2 it lies inside: they are listed with a warning."""
    assert unknown_objects(Path(db.url) / db.segments[0].name) == []
    with zipfile.ZipFile(DATA / "format-2.zip") as archive:
        archive.extractall(tmp_path)
    old = fdb.open(tmp_path / "format-2")
    assert any("manifest.json" in text for text in unknown_objects(Path(old.url) / old.segments[0].name))


def test_xarray_and_zarr_read_every_variable(db: fdb.Database) -> None:
    """What docs/reference/store.md says of readers; tensorstore reads what is not text."""
    path = Path(db.url) / db.segments[0].name
    opened = xr.open_zarr(path)
    group = zarr.open_group(path, mode="r")
    text = set()
    for variable in (schema.FILTERS, *(v for v in schema.TABLES if v.name in schema.IN_GROUP)):
        expected = db.dataset.filters.values if variable is schema.FILTERS else db.tables[0][variable.name]
        np.testing.assert_array_equal(opened[variable.name].values, expected)
        array = group[variable.name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(np.asarray(array[:]), expected)
        if (path / variable.name).exists():
            metadata = json.loads((path / variable.name / "zarr.json").read_text())
            if metadata["data_type"] == "string":
                assert [codec["name"] for codec in metadata["codecs"]] == ["vlen-utf8", "zstd", "crc32c"]
                text.add(variable.name)
    assert "model" in text
