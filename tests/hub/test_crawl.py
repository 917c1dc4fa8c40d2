"""A crawl of a hub: every layout, broken repositories, a busy hub, and runs that are killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from tests.hub.server import Fault, Hub, size
from tests.hub.zoo import filters, is_sound, repository

MODELS = 40
SOUND = [number for number in range(MODELS) if is_sound(number)]


def fill(hub: Hub, folder: Path) -> Path:
    """Add the repositories, and return a catalog of them."""
    for number in range(MODELS):
        hub.add(repository(number))
    rows = "".join(f"hf://zoo/net-{number:04},net-{number:04},classification\n" for number in range(MODELS))
    catalog = folder / "crawl.csv"
    catalog.write_text(f"path,name,task\n{rows}")
    return catalog


def assert_complete(db: fdb.Database) -> None:
    """Compare every stored filter with the weights from which the repositories were made."""
    names, bounds = db.layers["layer_name"].values.astype(str), np.cumsum([0, *db.layers["row_size"].values])
    values, owner = db.dataset["filters"].values, db.layers["model"].values.astype(str)
    for number in SOUND:
        expected = filters(number)
        here = np.flatnonzero(owner == f"net-{number:04}")
        assert sorted(names[here]) == sorted(expected)
        for layer in here:
            np.testing.assert_array_equal(values[bounds[layer] : bounds[layer + 1]], expected[names[layer]])


@pytest.mark.slow
def test_a_busy_hub_with_broken_repositories(hub: Hub, tmp_path: Path) -> None:
    catalog = fill(hub, tmp_path)
    hub.faults += [
        Fault("cdn/", times=3, status=429, headers={"Retry-After": "0"}, skip=7),
        Fault("hub/api", times=2, status=503, skip=5),
        Fault("cdn/", times=2, cut=5_000, skip=20),
    ]
    done = fdb.ingest(tmp_path / "db", catalog=catalog, commit_every=15, kernels="3x3")
    assert (len(done.added), sorted(done.rejected)) == (len(SOUND), ["net-0019", "net-0039"])
    assert_complete(done.database)
    whole = sum(size(data) for place in hub.repositories.values() for data in place.files.values())
    assert hub.sent() < 0.5 * whole
    asked = len(hub.asked)
    again = fdb.ingest(tmp_path / "db", catalog=catalog, commit_every=15, kernels="3x3")
    assert (len(again.present), again.segment) == (len(SOUND), None)
    # A request for the commit of each repository, and the broken ones once more.
    assert len(hub.asked) - asked < MODELS + 20 and not any("/cdn" in entry.path for entry in hub.asked[asked:])


@pytest.mark.slow
def test_a_killed_crawl_goes_on(hub: Hub, tmp_path: Path) -> None:
    catalog = fill(hub, tmp_path)
    command = [sys.executable, "-m", "filterdb", "ingest", tmp_path / "db", "--catalog", catalog, "--commit-every", "5"]
    moments = random.Random(0)
    for _ in range(4):
        run = subprocess.Popen([*map(str, command), "--threads", "2"], stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(2, 8))
        run.send_signal(signal.SIGKILL)
        run.wait()
    done = fdb.ingest(tmp_path / "db", catalog=catalog, commit_every=5, kernels="3x3")
    assert sorted([*done.added, *done.present]) == [f"net-{number:04}" for number in SOUND]
    assert_complete(done.database)
