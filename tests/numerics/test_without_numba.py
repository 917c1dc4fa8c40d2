"""The loops in NumPy against the compiled ones: the same bytes, but for moments, whose sums have another order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from filterdb.numerics import alignment, compiled, sketch, without_numba
from filterdb.numerics.histogram import bin_edges, edge_slack

ROOT = Path(__file__).parents[2]

SIZES = (1, 300, 0, 70_000, 5)


@pytest.fixture(scope="module")
def block() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of five runs, with sparse, all-zero and equal filters, and where the runs start and stop."""
    rng = np.random.default_rng(1)
    columns = rng.standard_normal((9, sum(SIZES))).astype(np.float32)
    columns[:, ::7] *= 1e-4
    columns[:, ::11] = 0
    columns[:, -5:] = columns[:, -1:]
    stops = np.cumsum(SIZES)
    return columns, stops - SIZES, stops


@pytest.fixture(scope="module")
def axes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.standard_normal(9) / 10, np.linalg.qr(rng.standard_normal((9, 9)))[0]


def test_moments(block: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Twice, so that a run is added to one that has filters."""
    shapes: tuple[tuple[int, ...], ...] = ((5, 3, 9), (5, 3, 9, 9), (5,), (5,))
    results = []
    for loops in (compiled, without_numba):
        counts, states = np.zeros((5, 2), np.int64), [np.zeros(shape) for shape in shapes]
        for _ in range(2):
            loops.moments(*block, np.full(5, 0.01), counts, *states)
        results.append((counts, *states))
    for ours, theirs in zip(*reversed(results), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-10)
    assert (results[0][0] == results[1][0]).all() and (results[0][3] == results[1][3]).all()
    assert (results[1][2][4, 0] == 0).all()  # equal filters have no spread


@pytest.mark.slow
@pytest.mark.parametrize("scaled", [True, False])
def test_coefficients(
    scaled: bool, block: tuple[np.ndarray, np.ndarray, np.ndarray], axes: tuple[np.ndarray, np.ndarray]
) -> None:
    edges = bin_edges(-1.0, 1.0)
    groups, pairs = np.array([0, 1, 1, -1, 0]), np.array([[0, 1], [3, 3]])
    results = []
    for loops in (compiled, without_numba):
        smallest, largest = np.full((5, 9), np.inf), np.full((5, 9), -np.inf)
        loops.extremes(*block, *axes, scaled, smallest, largest)
        counts = [np.zeros((5, 9, 70), np.int64), *np.zeros((3, 5, 9), np.int64)]
        loops.histograms(*block, *axes, scaled, edges, edge_slack(edges), *counts)
        joint = np.zeros((2, 2, 70, 70), np.int64), np.zeros((2, 2), np.int64)
        loops.densities(*block, groups, *axes, scaled, edges, edge_slack(edges), pairs, *joint)
        results.append((smallest, largest, *counts, *joint))
    for ours, theirs in zip(*results, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert results[0][2].sum() > 100_000 and results[0][5].sum() >= 0


def test_sketches(block: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    columns, starts, stops = block
    firsts = np.array([0, 5, 0, 123_456, 7])
    ours, theirs = np.zeros((2, 5, sketch.BUCKETS))
    sketch.add(theirs, columns, starts, stops, firsts)
    without_numba.add_nine(ours, columns, starts, stops, firsts)
    assert ours.tobytes() == theirs.tobytes()
    signs, expected = np.zeros((2, 9, sketch.BUCKETS))
    sketch.add_signs(expected, np.ones((9, 1000), np.float32), 3)
    without_numba.add_signs(signs, np.ones((9, 1000), np.float32), 3)
    assert signs.tobytes() == expected.tobytes()


def test_commands_without_extras(tmp_path: Path) -> None:
    """An ingest, a pass, `nearest` and `check` where neither Numba nor Dask nor a client of a store is installed."""
    code = (
        "import sys, json\n"
        "names = ('numba', 'dask', 'distributed', 'bokeh', 'aiohttp', 'botocore', 's3fs', 'matplotlib')\n"
        "sys.modules.update(dict.fromkeys(names))\n"
        "from pathlib import Path; from tests.filters import trained; from tests.models import chain\n"
        "from filterdb import commands\n"
        "for name, seed in (('a', 0), ('b', 5)): chain(Path(f'{name}.onnx'), trained(16, 16, seed))\n"
        "for line in json.loads(sys.argv[1]): print(commands.run(line.split()))\n"
    )
    lines = [
        "ingest db a.onnx", "reduce db", "nearest db b.onnx", "check a.onnx --db db", "drift db --by model",
        "info s3://bucket/db", "layers db --figure x.svg", "reduce db --raw --workers 2",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/bin"},
    )  # fmt: skip
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == [*"00000222"], done.stderr
    assert all(f"filterdb[{extra}]" in done.stderr for extra in ("s3", "report", "cluster"))


def test_sums_of_pairs_of_models() -> None:
    rng = np.random.default_rng(3)
    left, right = (
        alignment.Side(
            np.sort(rng.permutation(9)[:size]),
            rng.random(size),
            rng.random(size),
            rng.random(size),
            rng.integers(0, 3, size),
        )
        for size in (5, 7)
    )
    products = rng.standard_normal((5, 7))
    for number in (alignment.OF_COSINES, alignment.ALL):
        sums = np.ones((2, number, 9, 9))
        alignment.add_pairs(sums[0], products, left, right, 0.7)
        without_numba.add_pairs(sums[1], products, left, right, 0.7)
        np.testing.assert_allclose(sums[0], sums[1], rtol=1e-14)
    common = rng.integers(0, 4, (5, 7)).astype(np.float32)
    sums = np.ones((2, 2, 9, 9), np.float32)
    for own, loops in zip(sums, (alignment, without_numba), strict=True):
        loops.add_cosines(own, products.astype(np.float32), common, left.position, right.position, np.float32(0.7))
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-6)
