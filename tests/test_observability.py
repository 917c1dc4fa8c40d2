"""What a machine sees of a run: counters on a worker's /metrics, a JSON line for each event."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

import filterdb as fdb
from tests.models import conv, model, save, tensor, weights

pytestmark = pytest.mark.slow

ROWS = 4 * 3


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Two models of one layer, and a file that is none."""
    found = []
    for seed in range(2):
        proto = model([conv("x", "w", "y")], [tensor("w", weights(seed=seed))])
        found.append(save(tmp_path / f"{seed}.onnx", proto))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    return [*found, tmp_path / "broken.onnx"]


def scraped(port: int) -> dict[str, float]:
    """The counters of ours on a process' /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("filterdb_") and "_created" not in line]
    return {name: float(value) for name, value in pairs}


def test_a_worker_counts(sources: list[Path], tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        fdb.refit(fdb.ingest(tmp_path / "db", sources, chunk_rows=5).database)
        fdb.drift(fdb.open(tmp_path / "db"), by="model")
        worker = next(iter(client.scheduler_info()["workers"].values()))
        found = scraped(worker["services"]["dashboard"])
    assert found["filterdb_quarantined_models_total"] == 1
    for label in ("ingest", "histograms"):
        assert found[f'filterdb_filters_total{{pass="{label}"}}'] == 2 * ROWS, found
        assert found[f'filterdb_bytes_total{{pass="{label}"}}'] == 2 * ROWS * 36


def test_threads_make_a_counter_once() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from filterdb import metrics\nimport prometheus_client as p\n"
        "list(ThreadPoolExecutor(16).map(lambda _: metrics.count(metrics.RETRIES), range(64)))\n"
        "print(p.REGISTRY.get_sample_value(metrics.RETRIES + '_total'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "64.0\n"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "filterdb", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_json_lines(sources: list[Path], tmp_path: Path) -> None:
    """Every line of stderr but the command's own is an object, with the ids that name what happened."""
    done = run("ingest", tmp_path / "db", *sources, "--threads", 1, "--json", FILTERDB_LOG="json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [line for line in done.stderr.splitlines() if not line.startswith(("{", "filterdb: rejected"))] == []
    found = {event["event"]: event for event in events}
    assert [event["event"] for event in events if event["event"] != "computed"] == [
        "rejected", "writing", "reduced", "reduced", "committed",
    ]  # fmt: skip
    assert found["rejected"]["model"].endswith("broken.onnx")
    segment = found["writing"]["segment"]
    assert found["committed"]["segments"] == [segment]
    assert found["committed"]["snapshot"] == answer["snapshot"] == 0
    reduced = [event for event in events if event["event"] == "reduced"]
    assert [event["summary"] for event in reduced] == ["moments", "sketch"]
    assert all(event["segment"] == segment and event["filters"] == 2 * ROWS for event in reduced)
    assert {event["label"] for event in events if event["event"] == "computed"} == {"scan", "write"}


def test_words_and_silence(sources: list[Path], tmp_path: Path) -> None:
    done = run("ingest", tmp_path / "db", *sources, "--threads", 1, FILTERDB_LOG="info")
    assert "INFO filterdb.store.snapshot: committed url=" in done.stderr
    done = run("ingest", tmp_path / "other", *sources[:2], "--threads", 1)
    assert done.stderr == ""
