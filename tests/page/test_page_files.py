"""The files beside a page, drawn in several processes."""

from __future__ import annotations

import os
from pathlib import Path

import dask
import pytest

import filterdb as fdb
from filterdb.page import page_files
from filterdb.page.page_files import draw, drawing_processes
from filterdb.page.report import compute_sections
from filterdb.page.results import gather
from tests.models import chain, weights


def drawing_children() -> list[int]:
    """The processes that this one has started to draw."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if b"loky.backend.popen" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
def test_processes_draw_the_same_bytes_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        chain(tmp_path / f"{number}.onnx", weights(12, 12, number), weights(12, 12, 10 + number))
    with dask.config.set(scheduler="threads"):
        results = gather(fdb.ingest(tmp_path / "db", str(tmp_path)).database, "sound")
        pictures = [picture for section in compute_sections(results) for picture in section.pictures()][:6]
    alone = draw(pictures)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    monkeypatch.setattr(page_files, "FEWEST_FIGURES", 3)
    with drawing_processes():
        together = draw(pictures)
        workers = drawing_children()
    assert len(workers) == 2
    assert together == alone and len(alone) == 12
    assert drawing_children() == []
