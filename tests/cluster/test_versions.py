"""Which differences between client, scheduler and workers are refused, and what is said of the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from distributed import Client, LocalCluster, node
from distributed.versions import get_versions

import filterdb as fdb
from filterdb.cluster import versions
from filterdb.errors import UsageError
from tests.cluster.test_places import scheduler
from tests.models import chain, weights

pytestmark = pytest.mark.slow

Case = tuple[str, str | None, str | None]

REFUSED: list[Case] = [
    ("python", "3.12.4.final.0", "3.13.4.final.0"),
    ("dask", "2026.8.0", "2026.8.1"),
    ("distributed", "2026.8.0", "2026.9.0"),
    ("filterdb", "1.2.3", "1.2.4"),
    ("filterdb", "1.2.3", None),
    ("msgpack", "1.1.2", "2.0.0"),
    ("cloudpickle", "3.1.2", "4.0.0"),
    ("numpy", "2.4.1", "3.0.0"),
    ("numpy", "2.4.1", None),
]
"""What breaks the protocol or changes results, between this client (first) and a scheduler or a worker."""

REFUSED_BY_WORKERS: list[Case] = [
    *REFUSED,
    ("zarr", "3.4.2", "4.0.0"),
    ("zarr", "3.4.2", None),
    ("onnx", "1.19.0", "2.0.0"),
]

WARNED: list[Case] = [
    ("msgpack", "1.1.2", "1.2.0"),
    ("cloudpickle", "3.1.2", "3.1.1"),
    ("cloudpickle", "3.1.2", "3.2.0"),
    ("numpy", "2.4.1", "2.5.0"),
]

WARNED_BY_WORKERS: list[Case] = [
    *WARNED,
    ("zarr", "3.4.2", "3.4.3"),
    ("onnx", "1.19.0", "1.20.0"),
    ("xarray", "2025.9.0", "2026.1.0"),
    ("numba", "0.63.0", "0.64.0"),
    ("numba", "0.63.0", None),
    ("numba", None, "0.63.0"),
]

SILENT: list[Case] = [
    ("python", "3.12.4.final.0", "3.12.11.final.0"),
    ("toolz", "1.0.0", "2.0.0"),
    ("pandas", "2.3.0", None),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def set_versions(monkeypatch: pytest.MonkeyPatch, name: str, mine: str | None, other: str | None) -> None:
    """Let this client have one version of a package, and the scheduler and the workers another."""

    def answer(version: str | None) -> Any:
        def changed(packages: Any = None) -> dict[str, Any]:
            real = get_versions(packages=packages)
            real["packages"]["filterdb"] = fdb.__version__
            if name == "python":
                return {**real, "host": {**real["host"], "python": version}}
            return {**real, "packages": {**real["packages"], name: version}}

        return changed

    monkeypatch.setattr(versions, "get_versions", answer(mine))
    monkeypatch.setattr(node, "get_versions", answer(other))
    if name == "filterdb":
        monkeypatch.setattr(versions, "__version__", mine)
    monkeypatch.setattr(versions, "_checked", {})
    monkeypatch.setattr(versions, "_warned", {})


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that are warned of from now on."""
    lines: list[str] = []
    monkeypatch.setattr(versions.log, "warning", lambda text, *arguments: lines.append(text % arguments))
    return lines


def check(client: Client, who: str) -> None:
    if who == "scheduler":
        versions.check_scheduler(client, "tcp://there")
    else:
        versions.check_workers(client)


def pairs(scheduler_cases: list[Case], worker_cases: list[Case]) -> list[tuple[str, str, str | None, str | None]]:
    """Cases of a scheduler, and cases of a worker."""
    return [("scheduler", *case) for case in scheduler_cases] + [("worker", *case) for case in worker_cases]


@pytest.mark.parametrize(("who", "name", "mine", "other"), pairs(REFUSED, REFUSED_BY_WORKERS))
def test_what_breaks_is_refused(
    who: str, name: str, mine: str | None, other: str | None, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_versions(monkeypatch, name, mine, other)
    with pytest.raises(UsageError, match=rf"^{who} \w+://.*: expected {name} \S+ as on this client, got ") as caught:
        check(client, who)
    line = str(caught.value)
    if name == "python":
        assert "expected python 3.12 as on this client, got 3.13" in line and line.endswith("or here: Python 3.13")
    else:
        assert (f"pip install '{name}=={other}'" in line) == (other is not None)
    assert "\n" not in line and len(line) < 200


@pytest.mark.parametrize(("who", "name", "mine", "other"), pairs(WARNED, WARNED_BY_WORKERS))
def test_the_rest_is_a_warning(
    who: str,
    name: str,
    mine: str | None,
    other: str | None,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[str],
) -> None:
    set_versions(monkeypatch, name, mine, other)
    check(client, who)
    if who == "worker":
        check(client, who)
    (line,) = warnings
    assert f"{name} {other or 'none'} (here {mine or 'none'})" in line
    assert ("last bits" in line) == (name in {"numpy", "numba"})
    assert (f"pip install '{name}=={other}'" in line) == (other is not None)


@pytest.mark.parametrize(("name", "mine", "other"), SILENT)
@pytest.mark.parametrize("who", ["scheduler", "worker"])
def test_the_harmless_is_not_mentioned(
    who: str,
    name: str,
    mine: str | None,
    other: str | None,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[str],
) -> None:
    set_versions(monkeypatch, name, mine, other)
    check(client, who)
    assert not warnings


def test_every_rule_is_tried() -> None:
    tried = {name for name, *_ in (*REFUSED_BY_WORKERS, *WARNED_BY_WORKERS)}
    assert tried == set(versions.RULES) == set(versions.WORKERS) >= set(versions.SCHEDULER)


def test_a_run_stops_before_its_first_task(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    set_versions(monkeypatch, "filterdb", "0.0.1", fdb.__version__)
    with client.as_current(), pytest.raises(UsageError, match=r"worker inproc://.*: expected filterdb 0\.0\.1 "):
        fdb.cluster.run([fdb.cluster.task("one", int)], "test")


def test_a_connection_that_is_refused_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scheduler(tmp_path) as address:
        set_versions(monkeypatch, "dask", "2020.1", None)
        with pytest.raises(UsageError, match=r"scheduler .*expected dask 2020\.1"):
            fdb.connect(address)
        with pytest.raises(ValueError, match="No clients found"):
            Client.current()


def test_processes_with_another_patch_of_cloudpickle_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    """A real scheduler and worker whose metadata name another version; the code of it is the same."""
    metadata = tmp_path / "other" / "cloudpickle-3.99.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: cloudpickle\nVersion: 3.99.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"), prepend=os.pathsep)
    chain(tmp_path / "m.onnx", weights(8, 4, 1))
    here = fdb.ingest(tmp_path / "here", tmp_path / "m.onnx").database
    with (
        scheduler(tmp_path, ["--nthreads", "1"]) as address,
        fdb.connect(address) as client,
    ):
        client.wait_for_workers(1, timeout=30)
        there = fdb.ingest(tmp_path / "there", tmp_path / "m.onnx").database
    lines = [line for line in warnings if "cloudpickle 3.99.0" in line]
    assert len(lines) == 2 and all(f"(here {cloudpickle.__version__}); no effect is known" in line for line in lines)
    assert [line.partition(" ")[0] for line in lines] == ["scheduler", "worker"]
    np.testing.assert_array_equal(there.dataset["filters"].values, here.dataset["filters"].values)
