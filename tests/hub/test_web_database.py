"""A database on a plain web server, which lists no folder, opens for reading and refuses what would write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import DamageError, ReadOnlyStoreError, StoreMissingError
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from tests.commands.running import run
from tests.hub.server import Fault, Hub
from tests.models import chain, weights


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    for name in "ab":
        chain(folder / f"{name}.onnx", weights(16, 16, seed=ord(name)), weights(32, 16, seed=ord(name) + 9))
        fdb.ingest(folder / "db", folder / f"{name}.onnx")
    fdb.refit(folder / "db")
    fdb.tag(folder / "db", "paper")
    return folder / "db"


@pytest.fixture
def url(hub: Hub, database: Path) -> Iterator[str]:
    publish(hub, database)
    yield f"{hub.web}/db"
    assert all(asked.method in {"GET", "HEAD"} for asked in hub.asked)


def publish(hub: Hub, database: Path) -> None:
    hub.static = {f"db/{path.relative_to(database).as_posix()}": path for path in database.rglob("*") if path.is_file()}


def test_answers_are_those_of_the_folder(url: str, database: Path) -> None:
    here, there = fdb.open(database), fdb.open(url)
    assert (there.snapshot, there.counts) == (here.snapshot, here.counts)
    np.testing.assert_array_equal(there.dataset["filters"].values, here.dataset["filters"].values)
    for name in ("components", "explained_variance"):
        np.testing.assert_array_equal(fdb.pca(there)[name].values, fdb.pca(here)[name].values)
    np.testing.assert_array_equal(
        fdb.drift(there, by="layer")["drift"].values, fdb.drift(here, by="layer")["drift"].values
    )
    assert fdb.open(url, snapshot="paper").snapshot == here.snapshot - 1
    assert fdb.open(url, snapshot=0).counts["models"] == 1


def test_commands_read_it(url: str) -> None:
    for command in ("info", "models", "layers", "snapshots"):
        assert run(command, url).stdout
    assert run("verify", url, "--deep").returncode == 0


def test_results_that_are_not_stored_are_computed(url: str, hub: Hub, database: Path) -> None:
    expected = fdb.degeneration(fdb.open(database))
    hub.static = {name: path for name, path in hub.static.items() if "/summaries/" not in name}
    got = fdb.degeneration(fdb.open(url))
    np.testing.assert_allclose(got["variance_entropy"].values, expected["variance_entropy"].values, rtol=1e-12)


def test_what_writes_is_refused(url: str, tmp_path: Path) -> None:
    model = chain(tmp_path / "c.onnx", weights(4, 4))
    for change in (
        lambda: fdb.ingest(url, model),
        lambda: fdb.tag(url, "mine"),
        lambda: fdb.remove(url, str(fdb.open(url).models["model"].values[0])),
        lambda: fdb.refit(url),
        lambda: fdb.compact(url),
        lambda: fdb.gc(url),
        lambda: fdb.ingest(url.replace("/db", "/other"), model),
    ):
        with pytest.raises(ReadOnlyStoreError, match="got a web server, which can only be read") as error:
            change()
        assert error.value.exit_code == 74
    assert "can only be read" in run("tag", url, "mine", code=74).stderr


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 10, 63, 64, 65, 71, 200, 1000])
def test_the_newest_snapshot_is_found_without_a_list(hub: Hub, count: int) -> None:
    hub.static = {f"db/{snapshots.name_of(number)}": b"{}" for number in range(count)}
    assert snapshots.numbers(Files.at(f"{hub.web}/db")) == (list(range(count)), [])
    assert len(hub.asked) <= 16 * 8


def test_a_lost_snapshot_is_noticed(url: str, hub: Hub, database: Path) -> None:
    newest = fdb.open(database).snapshot
    del hub.static[f"db/{snapshots.name_of(newest)}"]
    with pytest.raises(DamageError, match=f"the committed snapshot {newest} is missing"):
        fdb.open(url)


def test_a_missing_database(hub: Hub) -> None:
    with pytest.raises(StoreMissingError, match="expected a filterdb database, found no snapshot"):
        fdb.open(f"{hub.web}/none")
    hub.faults.append(Fault("web", status=403, times=1000))
    with pytest.raises(StoreMissingError, match="found no snapshot"):
        fdb.open(f"{hub.web}/none")


def test_a_busy_server_is_asked_again(url: str, hub: Hub, database: Path) -> None:
    hub.faults += [Fault("web", status=429, headers={"Retry-After": "1"}, times=2), Fault("web", status=503, times=3)]
    hub.faults.append(Fault("web", cut=5, times=2))
    assert fdb.open(url).counts == fdb.open(database).counts
