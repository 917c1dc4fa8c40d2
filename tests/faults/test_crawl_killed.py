"""Kill −9 of a crawl at random moments: it resumes, fetches nothing that is committed, and ends as if undisturbed."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import StoreMissingError
from filterdb.store.files import Files
from tests import site as sites
from tests.models import chain, weights

NAMES = [f"m{i:02}" for i in range(13)]


def committed(url: str) -> list[str]:
    try:
        return [str(model) for model in fdb.open(url).models["model"].values]
    except StoreMissingError:
        return []


def objects(url: str) -> dict[str, str]:
    """Return the digest of every object of what is stored and of what was computed while it was written.

    Snapshots and leases have the time and a nonce. `sources` has what each run has read.
    """
    files = Files.at(url)
    names = [name for folder in ("segments", "summaries") for name in files.list(folder)]
    return {name: hashlib.sha256(files.read(name)).hexdigest() for name in names}


def crawling(url: str, catalog: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "filterdb", "ingest", url, "--catalog", str(catalog), "--commit-every", "2"]
    return subprocess.Popen(
        [*command, "--threads", "2", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("where", ["folder", "s3"])
def test_killed_again_and_again(where: str, tmp_path: Path, s3: Callable[[], str]) -> None:
    """Twelve models and one that is missing, junk and a twin among them; killed a moment after some GET of each run."""
    rng = np.random.default_rng(14)
    root = s3() if where == "s3" else str(tmp_path)
    with sites.serving() as site:
        for i, name in enumerate(NAMES):
            site.files[f"/{name}.onnx"] = chain(tmp_path / f"{name}.onnx", weights(seed=i)).read_bytes()
        site.files["/m05.onnx"] = b"junk"
        site.files["/m11.onnx"] = site.files["/m02.onnx"]
        del site.files["/m08.onnx"]
        catalog = tmp_path / "crawl.csv"
        catalog.write_text(site.catalog(NAMES))
        _, errors = (whole := crawling(f"{root}/whole", catalog)).communicate(timeout=300)
        assert whole.returncode == 0, errors
        url, kills = f"{root}/db", 0
        while True:
            stored = committed(url)
            site.requests.clear()
            process = crawling(url, catalog)
            # A model takes one or two requests. The pause reaches into writing and committing.
            at, pause = int(rng.integers(1, 3 * (len(NAMES) - len(stored)) + 1)), float(rng.uniform(0, 0.5))

            def strike(
                number: int, at: int = at, pause: float = pause, kill: Callable[[], None] = process.kill
            ) -> None:
                if number == at:
                    threading.Timer(pause, kill).start()

            site.on_get = strike
            _, errors = process.communicate(timeout=300)
            fetched = set(site.gets())
            assert not fetched & {f"/{name}.onnx" for name in stored}, (stored, fetched)
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, errors
            kills += 1
            assert kills < 60
        assert kills >= 3
        assert committed(url) == committed(f"{root}/whole") == [n for n in NAMES if n not in {"m05", "m08"}]
        assert objects(url) == objects(f"{root}/whole")
        ended, expected = fdb.open(url), fdb.open(f"{root}/whole")
        assert ended.state.segments == expected.state.segments
        assert [entry.models for entry in ended.state.segments] == [2, 2, 2, 2, 2, 1]
        np.testing.assert_array_equal(ended.dataset.filters.values, expected.dataset.filters.values)
        ledger = ended.skipped
        assert sorted(map(str, ledger["skipped_model"].values)) == ["m05", "m08"]
        assert not fdb.verify(ended, deep=True).problems
