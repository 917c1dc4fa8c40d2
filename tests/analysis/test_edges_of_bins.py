"""Coefficients that lie on the edge of a bin: the same counts whatever the chunks, the files' order, the scheduler.

The filters have coefficients that are fractions known exactly, so that the right counts come from rational arithmetic.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import filterdb as fdb
from filterdb.reduce.basis import projection
from tests.models import chain

Files = Callable[[Path], list[Path]]

PEAKS = (1, 3, 5, 7)
"""Of 70 bins over [−1, 1] fifths and sevenths lie on edges, thirds between them."""


def symmetric(integers: np.ndarray) -> np.ndarray:
    """Filters (n, 9) of up to three non-zero entries, each with every combination of signs: no mean, no covariance."""
    filters = []
    for row in integers:
        places = np.flatnonzero(row)
        for signs in itertools.product([1, -1], repeat=len(places)):
            copy = row.copy()
            copy[places] *= signs
            filters.append(copy)
    return np.array(filters)


def fractions(seed: int) -> np.ndarray:
    """Filters whose scaled coefficients are fractions, a quarter of them all-zero, some of them twice, as int64."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((25, 9), np.int64)
    for row in rows:
        peak = rng.choice(PEAKS)
        # Each place has a probability of its own, so that the nine variances differ.
        places = rng.choice(9, 3, replace=False, p=np.arange(1, 10) / 45)
        row[places] = rng.integers(0, peak + 1, 3)
        row[places[0]] = peak
    filters = symmetric(np.concatenate([rows, rows[:6]]))
    filters = np.concatenate([filters, np.zeros((len(filters) // 4, 9), np.int64)])
    return rng.permutation(filters)


def files_of_fractions(folder: Path) -> list[Path]:
    """Three models of two layers each, every layer in other units."""
    return [
        chain(folder / f"m{i}.onnx", *(layer(fractions(10 * i + j) * 2.0 ** (j - i)) for j in range(2)))
        for i in range(3)
    ]


def files_of_noise(folder: Path) -> list[Path]:
    """Pairs of filters ±v, a third of them zero; quantised and repeated ones among them."""
    rng = np.random.default_rng(1)
    files = []
    for i in range(3):
        layers = []
        for j in range(2):
            v = rng.standard_normal((150, 9)) * (1 + (np.arange(9) == i))
            v[rng.random(150) < 0.3] = 0
            v[50:100] = np.round(v[50:100] * 4) / 4
            v[125:] = v[:25]
            layers.append(layer(np.concatenate([v, -v]) * 10.0**j))
        files.append(chain(folder / f"m{i}.onnx", *layers))
    return files


def files_of_equal_variances(folder: Path) -> list[Path]:
    """Every axis as often as every other: nine equal eigenvalues, whose vectors rounding would choose."""
    axes = np.concatenate([np.eye(9), -np.eye(9), np.zeros((6, 9))])
    return [chain(folder / f"m{i}.onnx", layer(np.tile(axes, (10 + i, 1)) * 3.0**i)) for i in range(3)]


def layer(filters: np.ndarray) -> np.ndarray:
    return filters.astype(np.float32).reshape(len(filters), 1, 3, 3)


def drifts(files: list[Path], folder: Path, chunk_rows: int) -> dict[str, xr.Dataset]:
    """Drift by layer in each mode, in the order of labels whatever the order of the files."""
    db = fdb.ingest(folder / "db", files, chunk_rows=chunk_rows).database
    results = {}
    for mode in ("paper", "sound"):
        result = fdb.drift(db, "layer", mode=mode, noise=False)
        labels = ["/".join(str(label).rsplit("/", 2)[-2:]) for label in result["group"].values]
        results[mode] = result.assign_coords(group=labels, other=labels).sortby("group").sortby("other")
    return results


def assert_same(found: dict[str, xr.Dataset], expected: dict[str, xr.Dataset]) -> None:
    for mode, result in expected.items():
        for name in ("counts", "outside", "on_edge", "count"):
            np.testing.assert_array_equal(found[mode][name], result[name], err_msg=f"{mode} {name}")
        np.testing.assert_allclose(found[mode]["drift"], result["drift"], rtol=1e-12, atol=1e-13)


KINDS = pytest.mark.parametrize("files", [files_of_fractions, files_of_noise, files_of_equal_variances])


@KINDS
def test_counts_do_not_depend_on_chunks_or_order(files: Files, tmp_path: Path) -> None:
    models = files(tmp_path)
    one_chunk = drifts(models, tmp_path / "one", 2**20)
    assert all(result["on_edge"].values.any() for result in one_chunk.values())
    orders = list(itertools.permutations(models))
    for chunk_rows, order in zip((7, 100, 1_000, 4_096, 2**20), orders[1:], strict=True):
        assert_same(drifts(list(order), tmp_path / str(chunk_rows), chunk_rows), one_chunk)


@pytest.mark.slow
@KINDS
def test_counts_do_not_depend_on_the_scheduler(files: Files, tmp_path: Path, two_workers: Client) -> None:
    models = files(tmp_path)
    with dask.config.set(scheduler="synchronous"):
        expected = drifts(models, tmp_path / "synchronous", 100)
    with dask.config.set(scheduler="threads", num_workers=4):
        assert_same(drifts(models, tmp_path / "threads", 100), expected)
    with two_workers.as_current():
        assert_same(drifts(models[::-1], tmp_path / "processes", 70), expected)


@pytest.mark.parametrize("chunk_rows", [100, 2**20])
def test_counts_are_those_of_exact_arithmetic(chunk_rows: int, tmp_path: Path) -> None:
    """Sums are zero, axes are those of the weights and the ends are ±1 or ±3, all exactly: bins by fractions."""
    of_group = [fractions(10 * i + j) for i in range(3) for j in range(2)]
    every = np.concatenate(of_group)
    scaled = every / np.maximum(np.abs(every).max(axis=1, keepdims=True), 1)
    axes = np.argsort(-scaled.var(axis=0))
    results = drifts(files_of_fractions(tmp_path), tmp_path, chunk_rows)
    for result, reach in zip(results.values(), (1, 3), strict=True):
        np.testing.assert_allclose(result.attrs["range"], [-reach, reach], rtol=1e-11)
        ties = 0
        for group, filters in enumerate(of_group):
            for component, axis in enumerate(axes):
                expected, on_edge = exact_bins(filters, axis, reach)
                np.testing.assert_array_equal(result["counts"][group, component], expected)
                assert result["on_edge"][group, component] == on_edge
                ties += on_edge
        assert ties > 1_000
        assert not result["outside"].values.any()


def exact_bins(filters: np.ndarray, axis: int, reach: int) -> tuple[np.ndarray, int]:
    """Counts of filters' entries on one axis, divided by their peaks, in 70 bins over [−reach, reach]; ties go up."""
    counts, on_edge = np.zeros(70, np.int64), 0
    for row in filters.tolist():
        place = (Fraction(row[axis], max(map(abs, row)) or 1) + reach) * 70 / (2 * reach)
        counts[min(int(place), 69)] += 1
        on_edge += place.denominator == 1 and 0 < place < 70
    return counts, on_edge


def test_a_tie_of_the_ends_keeps_the_sign_of_sound(tmp_path: Path) -> None:
    """With filters ±v both ends are equally far from zero: rounding must not turn a component round."""
    db = fdb.ingest(tmp_path / "db", files_of_noise(tmp_path), chunk_rows=100).database
    paper, sound = (projection(db, mode)[1] for mode in ("paper", "sound"))
    np.testing.assert_allclose(-paper.low, paper.high, rtol=1e-12)
    np.testing.assert_allclose(paper.axes.components, sound.axes.components, rtol=0, atol=1e-12)
