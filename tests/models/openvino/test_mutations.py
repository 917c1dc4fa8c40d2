"""A file that OpenVINO wrote, damaged at random: it is rejected with a reason, or each of its layers is."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from filterdb.errors import ModelError
from filterdb.models.model import Request
from filterdb.models.openvino.reading import OpenVinoFile
from filterdb.models.parse_errors import NotStoredError

WRITTEN = Path(__file__).parent / "written"
WORDS = (
    b"-1", b"0", b"1", b"7", b"99", b"9223372036854775808", b"x", b"", b"1, 2, 3", b"Const", b"Convolution",
    b"Parameter", b"Reshape", b"FakeQuantize", b"Multiply", b"If", b"f16", b"i4",
)  # fmt: skip


def mutated(text: bytes, rng: np.random.Generator) -> bytes:
    """Change some attributes, or remove or repeat a stretch of bytes."""
    if rng.random() < 0.2:
        first, last = sorted(rng.integers(0, len(text), 2))
        return text[:first] + text[last:] if rng.random() < 0.5 else text[:last] + text[first:]
    places = [match.span(1) for match in re.finditer(rb'="([^"]*)"', text)]
    for place in sorted(rng.choice(len(places), rng.integers(1, 6), replace=False), reverse=True):
        first, last = places[place]
        text = text[:first] + WORDS[rng.integers(len(WORDS))] + text[last:]
    return text


@pytest.mark.parametrize("name", ["every_form", "bodies"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(3)
    text = gzip.decompress((WRITTEN / f"{name}.xml.gz").read_bytes())
    path = tmp_path / "m.xml"
    path.with_suffix(".bin").write_bytes((WRITTEN / f"{name}.bin").read_bytes())
    ends: Counter[str] = Counter()
    for _ in range(100):
        path.write_bytes(mutated(text, rng))
        try:
            file = OpenVinoFile.parse(path, Request("m.xml", 2**31))
            assert all(size >= 0 for size in file.external_files().values())
            model = file.model()
        except ModelError as error:
            assert "\n" not in str(error)
            ends["rejected"] += 1
            continue
        ends.update(skip.code for skip in model.skipped)
        for layer in model.layers:
            try:
                assert layer.weight().filters.shape == (layer.filters, 9)
                ends["stored"] += 1
            except NotStoredError as error:
                ends[error.code] += 1
    assert ends["rejected"] > 10 and ends["stored"] > 10, ends
