"""Hostile files of Keras cost their own layer or file and nothing else, judged as the ONNX ones are."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
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
from tests.hostile.keras_files import BOMBS, CONFIG, GOOD_KERNEL, ODD_KERNEL, TREE, write_keras_corpus
from tests.models.keras.files import tree, write_h5, write_keras

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured by Linux's /proc"),
]

HEAVY = ("one compressed kernel in 300 layers", "a million members")
"""Bombs that end by the limit of time, or take as long."""


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


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.soak] if n in HEAVY else []) for n in BOMBS])
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


@pytest.mark.parametrize("kind", ["h5", "keras", "weights"])
def test_flipped_bytes_end_in_a_rejection_or_a_model(tmp_path: Path, kind: str) -> None:
    """HDF5 is written in C: what it does with damage, it does in the child process."""
    path = tmp_path / ("m.keras" if kind == "keras" else "m.h5")
    if kind == "h5":
        write_h5(path, CONFIG, {"good": {"good/kernel:0": GOOD_KERNEL}, "odd": {"odd/kernel:0": ODD_KERNEL}})
    elif kind == "keras":
        write_keras(path, CONFIG, tree(TREE))
    else:
        path.write_bytes(tree(TREE))
    whole = path.read_bytes()
    filled = np.flatnonzero(np.frombuffer(whole, np.uint8))
    ends = {"rejected": 0, "skipped": 0, "stored": 0}
    rng = np.random.default_rng(3)
    for position in rng.choice(filled, 80, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        found = scan(ModelSource("m", str(path)), None, Limits())
        end = "rejected" if found.rejected is not None else "skipped" if found.skipped else "stored"
        assert found.rejected is None or (found.rejected.strip() and len(found.rejected) < REASON)
        ends[end] += 1
    # An archive has a checksum, which notices all damage to the weights.
    assert ends["rejected"] > (70 if kind == "keras" else 5), ends
