"""Hostile files of Keras cost their own layer or file and nothing else, judged as the ONNX ones are."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from filterdb.models.catalog import ModelSource
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan
from tests.faults.test_hostile_models import (
    MEMORY,
    REASON,
    SECONDS,
    START_MEMORY,
    START_SECONDS,
    Run,
    _judge,
    _measured,
    _report,
    _slowness,
)
from tests.hostile.case import Case
from tests.hostile.keras_files import BOMBS, write_keras_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured by Linux's /proc"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    folder = tmp_path_factory.mktemp("hostile-keras")
    yield write_keras_corpus(folder)
    shutil.rmtree(folder)


def test_what_is_harmless_by_design(corpus: dict[str, Case], tmp_path: Path) -> None:
    """In one batch: it must go on, and no file outside is read."""
    cases = {name: case for name, case in corpus.items() if not case.bomb}
    assert len(cases) > 40
    _report(_judge(cases, tmp_path, 1, START_SECONDS + SECONDS + 0.2 * len(cases), MEMORY + START_MEMORY))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_read_within_bounds(corpus: dict[str, Case], name: str) -> None:
    """Each alone, only read: its time, the memory of the process that reads it, and what is said of it."""
    case, run = corpus[name], Run()
    slowness = _slowness()
    with _measured(run):
        found = scan(ModelSource(name, str(case.path)), None, Limits())
    reasons = [skip.reason for skip in found.skipped if skip.layer == case.layer]
    if found.rejected is not None:
        reasons = [found.rejected]
    end = "rejected" if found.rejected is not None else "skipped" if found.skipped else "stored"
    told = f"{end} ({' | '.join(reasons)[:300]}) after {run.seconds:.1f} s with {run.peak // 2**20} MiB"
    assert end in {case.end, *case.or_else}, told
    assert end == "stored" or reasons, told
    assert all(reason.strip() and len(reason.replace(str(case.path), "")) <= REASON for reason in reasons), told
    assert end != case.end or all(re.search(case.reason, reason, re.IGNORECASE) for reason in reasons), told
    assert run.seconds <= SECONDS * max(slowness, _slowness()), told
    assert run.peak <= MEMORY + START_MEMORY, told
