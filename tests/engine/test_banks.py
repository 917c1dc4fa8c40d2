"""Passes over banks of other kernel shapes: chunks that cut layers, against NumPy and Zarr, on every scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr

from filterdb import schema
from filterdb.engine.graph import build
from filterdb.engine.moments import SCALED, MomentsReduction, raw_state, state
from filterdb.engine.parts import Part
from filterdb.numerics.histogram import bin_edges
from filterdb.reduce.reductions import Axes, ExtremesReduction, HistogramsReduction
from filterdb.store import summary
from filterdb.store.files import Files
from filterdb.store.segment import Segment
from filterdb.store.zarr_group import group_objects

KERNELS: list[schema.Kernel] = [(5, 5), (1, 3), (3, 1), (7, 7), (1, 16)]
SIZES = [40, 1, 300, 7, 652]

pytestmark = pytest.mark.slow


def bank(folder: Path, kernel: schema.Kernel, chunk_rows: int = 128) -> tuple[Segment, dict[str, Any], np.ndarray]:
    """A bank of random layers in chunks that cut them, its tables, and its filters."""
    rng = np.random.default_rng(kernel)
    filters = rng.standard_normal((sum(SIZES), kernel[0] * kernel[1])).astype(np.float32)
    filters[::9] *= 1e-4
    segment = Segment(Files.at(str(folder)), "a" * 20, len(filters), chunk_rows, kernel)
    tables = {variable.name: np.full(len(SIZES), 0) for variable in schema.TABLES if variable.dtype != "str"}
    tables |= {v.name: np.array(["x"] * len(SIZES), np.dtypes.StringDType()) for v in schema.TABLES if v.dtype == "str"}
    tables["row_size"] = np.array(SIZES)
    tables["peak"] = np.array([float(np.abs(layer).max()) for layer in np.split(filters, np.cumsum(SIZES)[:-1])])
    segment.files.put({f"{segment.name}/{name}": data for name, data in group_objects(segment, tables).items()})
    for chunk in range(segment.chunks):
        segment.write_chunk(chunk, filters[slice(*segment.bounds(chunk))])
    return segment, tables, filters


@pytest.mark.parametrize("kernel", KERNELS, ids=schema.kernel_name)
def test_passes_equal_numpy(tmp_path: Path, kernel: schema.Kernel) -> None:
    segment, tables, filters = bank(tmp_path, kernel)
    weights = segment.weights
    stored = zarr.open_array(segment.files.url(f"{segment.name}/filters"), mode="r")
    np.testing.assert_array_equal(np.asarray(stored[:]), filters)
    components = np.linalg.qr(np.random.default_rng(1).standard_normal((weights, weights)))[0]
    axes = Axes.of(np.linspace(-0.1, 0.1, weights), components, scaled=True)
    high = float(np.sqrt(weights)) + 1
    reductions = [MomentsReduction(weights), ExtremesReduction(axes), HistogramsReduction(axes, -high, high)]

    def run(scheduler: str) -> list[Part]:
        parts: list[Part] = dask.compute(build(segment, tables, reductions).delayed, scheduler=scheduler)[0]
        return parts

    results = {scheduler: run(scheduler) for scheduler in ("synchronous", "threads", "processes")}
    moments, extremes, histograms = (part.arrays for part in results["threads"])
    for others in results.values():
        for part, other in zip(results["threads"], others, strict=True):
            assert all(part.arrays[name].tobytes() == other.arrays[name].tobytes() for name in part.arrays)
    for i, layer in enumerate(np.split(filters.astype(np.float64), np.cumsum(SIZES)[:-1])):
        scaled = layer / np.abs(layer).max(axis=1, keepdims=True)
        for found, own in ((raw_state(moments), layer), (state(moments, SCALED), scaled)):
            centred = own - own.mean(axis=0)
            np.testing.assert_allclose(found.mean[i], own.mean(axis=0), rtol=0, atol=1e-13)
            np.testing.assert_allclose(found.m2[i], centred.T @ centred, rtol=1e-11, atol=1e-11)
        coefficients = (scaled - axes.arrays[0]) @ components.T
        np.testing.assert_allclose(extremes["smallest"][i], coefficients.min(axis=0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(extremes["largest"][i], coefficients.max(axis=0), rtol=0, atol=1e-12)
        counts = [np.histogram(column, bin_edges(-high, high))[0] for column in coefficients.T]
        np.testing.assert_array_equal(histograms["counts"][i], counts)


def test_banks_of_a_segment_have_places_of_their_own(tmp_path: Path) -> None:
    """The 3×3 bank is where it always was; kernels with as many weights do not share a name."""
    files = Files.at(str(tmp_path))
    segments = [Segment(files, "x", 10, 10, kernel) for kernel in ((3, 3), (1, 9), (9, 1), (5, 5))]
    assert [segment.name for segment in segments] == [
        "segments/x.zarr", "segments/x.zarr/1x9", "segments/x.zarr/9x1", "segments/x.zarr/5x5",
    ]  # fmt: skip
    names = [summary.name_of(segment.summarised_as, MomentsReduction(segment.weights).key) for segment in segments]
    assert names[0].startswith("summaries/x/moments-v3-")
    assert len(set(names)) == 4 and all(name.startswith("summaries/x/") for name in names)
