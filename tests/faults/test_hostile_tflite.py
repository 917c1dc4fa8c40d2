"""Hostile TensorFlow Lite models cost their own layer or file and nothing else, in time and in memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from filterdb.errors import ModelError
from filterdb.models.catalog import ModelSource
from filterdb.models.model import Request
from filterdb.models.parse_errors import PARSE_ERRORS, NotStoredError
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan
from filterdb.models.tflite.reading import TfliteFile
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
from tests.hostile.tflite import write_corpus
from tests.models import weights
from tests.models.tflite.writing import G, Op, T, Writer, conv, ohwi

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return write_corpus(tmp_path_factory.mktemp("hostile-tflite"))


def test_what_is_harmless_by_design(corpus: dict[str, Case], tmp_path: Path) -> None:
    """In one ingest: it must go on."""
    cases = {name: case for name, case in corpus.items() if not case.bomb}
    assert len(cases) > 80
    seconds = (START_SECONDS + SECONDS + 0.2 * len(cases)) * _slowness()
    _report(_judge(cases, tmp_path, 1, seconds, MEMORY + START_MEMORY))


def test_bombs_are_read_within_bounds(corpus: dict[str, Case]) -> None:
    """Each alone: its time, the memory of the process that reads it, and what is said about it."""
    bombs = {name: case for name, case in corpus.items() if case.bomb}
    assert len(bombs) == 7
    for name, case in bombs.items():
        run, slowness = Run(), _slowness()
        with _measured(run):
            result = scan(ModelSource(name, str(case.path)), None, Limits())
        end = "rejected" if result.rejected is not None else "skipped" if result.skipped else "stored"
        reasons = [result.rejected or "", *(skip.reason for skip in result.skipped if skip.layer == case.layer)]
        summary = f"{name}: {end} ({reasons}) after {run.seconds:.1f} s with {run.peak // 2**20} MiB"
        assert end == case.end and max(map(len, reasons)) <= REASON, summary
        assert end == "stored" or any(reasons), summary
        assert run.seconds <= SECONDS * max(slowness, _slowness()), summary
        assert run.peak <= MEMORY + START_MEMORY, summary


def _damaged(data: bytes) -> Iterator[bytes]:
    """A file with every 16-bit number replaced, one at a time, by those that break most, and every byte flipped."""
    for place in range(0, len(data) - 2, 2):
        for number in (0, 1, 4, 0x7FFF, 0x8000, 0xFFFF):
            yield data[:place] + struct.pack("<H", number) + data[place + 2 :]
    for place in range(len(data)):
        yield data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def test_any_damage_is_an_expected_error(tmp_path: Path) -> None:
    """Every error is one that `reading.serve` turns into a reason, whichever number of the file is wrong."""
    small = ohwi(weights(1, 1))
    half = small.astype(np.float16)
    tensors = [T("x", (1, 4, 4, 1)), T("w", small.shape), T("h", half.shape, half), T("y", (1, 4, 4, 1))]
    tensors += [T("q", small.shape, small.astype(np.int8), scale=[0.5]), T("z", (1, 4, 4, 1))]
    graph = G(tensors, [Op("DEQUANTIZE", ["h"], ["w"]), conv("w"), conv("q", "y", "z")])
    path = tmp_path / "m.tflite"
    whole = Writer([graph], metadata={"min_runtime_version": b"1.5.0"}).finish()
    stored = 0
    for data in (whole, *_damaged(whole)):
        path.write_bytes(data)
        with suppress(ModelError, *PARSE_ERRORS):
            parsed = TfliteFile.parse(path, Request("m.tflite", 2**28))
            for layer in parsed.model().layers:
                with suppress(NotStoredError, *PARSE_ERRORS):
                    layer.weight()
                    stored += 1
    assert stored > 1_000
