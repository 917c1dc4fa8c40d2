"""The compiled loops against their NumPy twins: sizes around the block of 256, scales, edge layers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from filterdb.numerics import compiled, sketch
from filterdb.numerics.histogram import EDGE_TOLERANCE, bin_edges, edge_slack
from filterdb.numerics.scaling import scale
from tests.numerics import oracles

SIZES = [1, 2, 8, 9, 255, 256, 257, 1_000]


def filters(sizes: list[int], seed: int = 0, mean: float = 0.0) -> np.ndarray:
    """Correlated float32 filters of several layers, each with its own scale."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((9, 9))
    layers = [(rng.standard_normal((n, 9)) @ mix + mean) * 10.0 ** rng.integers(-3, 3) for n in sizes]
    return np.concatenate(layers).astype(np.float32)


def moments(columns: np.ndarray, starts: np.ndarray, stops: np.ndarray, thresholds: np.ndarray) -> list[np.ndarray]:
    """The loop on empty states."""
    n, weights = len(starts), len(columns)
    squares = np.zeros((n, 3, weights, weights))
    state = [np.zeros((n, 2), np.int64), np.zeros((n, 3, weights)), squares, np.zeros(n), np.zeros(n)]
    compiled.moments(columns, starts, stops, thresholds, *state)
    return state


def extremes(columns: np.ndarray, starts: np.ndarray, stops: np.ndarray, *axes: object) -> list[np.ndarray]:
    far = np.full((len(starts), len(columns)), np.finfo(float).max)
    state = [far, -far]
    compiled.extremes(columns, starts, stops, *axes, *state)
    return state


def histograms(
    columns: np.ndarray, starts: np.ndarray, stops: np.ndarray, *axes: object, slack: float | None = None
) -> list[np.ndarray]:
    """Counts, underflow, overflow and on_edge; the last of `axes` are the edges."""
    edges = np.asarray(axes[-1])
    n, weights = len(starts), len(columns)
    state = [np.zeros((n, weights, len(edges) - 1), np.int64), *np.zeros((3, n, weights), np.int64)]
    compiled.histograms(columns, starts, stops, *axes, edge_slack(edges) if slack is None else slack, *state)
    return state


def close(a: np.ndarray, b: np.ndarray, scale_of: np.ndarray | float, tolerance: float = 1e-12) -> None:
    """Equal to 1e-12 of the size of what was summed."""
    np.testing.assert_array_less(np.abs(a - b), tolerance * np.maximum(scale_of, np.finfo(float).tiny) + 1e-300)


@pytest.mark.parametrize("mean", [0.0, 3.0, -100.0])
def test_moments(mean: float) -> None:
    x = filters(SIZES, mean=mean)
    starts, stops = oracles.runs(SIZES)
    peaks = np.array([np.abs(x[a:b]).max() for a, b in zip(starts, stops, strict=True)], np.float64)
    # A hundredth of the peak finds few; a third of it splits every layer in two.
    for share in (100, 3):
        thresholds = peaks / share
        counts, means, m2, peak, spans = moments(oracles.columns(x), starts, stops, thresholds)
        np.testing.assert_array_equal(peak, peaks)
        for r, (a, b) in enumerate(zip(starts, stops, strict=True)):
            raw = x[a:b]
            sparse = (np.abs(raw) < thresholds[r]).all(axis=1)
            for s, part in enumerate((raw[~sparse], raw[sparse], oracles.scaled(raw))):
                n, expected_mean, expected_m2 = oracles.moments(part)
                if s < 2:
                    assert counts[r, s] == n
                size = np.abs(part).max(initial=0.0)
                close(means[r, s], expected_mean, size)
                close(m2[r, s], expected_m2, size**2 * max(n, 1), 1e-13)
                np.testing.assert_array_equal(m2[r, s], m2[r, s].T)
            np.testing.assert_allclose(spans[r], np.ptp(raw.astype(np.float64), axis=1).sum(), rtol=1e-12)


def test_moments_keep_their_digits_far_from_zero() -> None:
    """|mean| = 100 σ: an uncentred sum in the input's dtype is 15 % off, ours is exact to 1e-11 of the variance."""
    x = (np.random.default_rng(0).standard_normal((50_000, 9)) + 100).astype(np.float32)
    starts, stops = oracles.runs([len(x)])
    _, _, m2, _, _ = moments(oracles.columns(x), starts, stops, np.zeros(1))
    np.testing.assert_allclose(m2[0, 0], oracles.moments(x)[2], rtol=0, atol=1e-11 * len(x))


@pytest.mark.parametrize("value", [0.0, 1 / 3, -7.25, 1e30, 1e-30, 1e-45])
def test_equal_filters_have_exactly_no_variance(value: float) -> None:
    x = np.full((1_000, 9), value, np.float32)
    starts, stops = oracles.runs([1, 299, 700])
    counts, means, m2, peaks, spans = moments(oracles.columns(x), starts, stops, np.zeros(3))
    assert not m2.any()
    assert not spans.any()
    np.testing.assert_array_equal(means[:, 0], np.broadcast_to(np.float64(np.float32(value)), (3, 9)))
    np.testing.assert_array_equal(counts[:, 0], [1, 299, 700])
    np.testing.assert_array_equal(peaks, np.abs(np.float64(np.float32(value))))


@pytest.mark.parametrize("factor", [1e-30, 1e30, 1e-42], ids=["tiny", "huge", "denormal"])
def test_scaled_results_do_not_depend_on_the_scale(factor: float) -> None:
    """Huge, tiny and denormal weights (the latter keep few bits, the same ones for the twin)."""
    x = (filters([500]).astype(np.float64) * factor).astype(np.float32)
    starts, stops = oracles.runs([500])
    _, means, m2, _, _ = moments(oracles.columns(x), starts, stops, np.zeros(1))
    _, mean, expected = oracles.moments(oracles.scaled(x))
    close(means[0, 2], mean, 1.0)
    close(m2[0, 2], expected, 500.0)
    np.testing.assert_array_equal(scale(x), oracles.scaled(x))


def basis(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(axis=0), np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2]


@pytest.mark.parametrize("scaled", [True, False])
def test_extremes_and_histograms_equal_numpy(scaled: bool) -> None:
    """The same counts bin for bin, but for coefficients within 1e-12 of an edge."""
    x = filters(SIZES)
    values = oracles.scaled(x) if scaled else x.astype(np.float64)
    mean, components = basis(values)
    coefficients = (values - mean) @ components.T
    starts, stops = oracles.runs(SIZES)
    low, high = extremes(oracles.columns(x), starts, stops, mean, components, scaled)
    # A range narrower than the data: what lies outside is counted, not dropped.
    spread = np.abs(coefficients).max()
    edges = bin_edges(*np.quantile(coefficients, [0.03, 0.98]))
    counts, under, over, _ = histograms(oracles.columns(x), starts, stops, mean, components, scaled, edges)
    assert under.any() and over.any()
    for r, (a, b) in enumerate(zip(starts, stops, strict=True)):
        part = coefficients[a:b]
        np.testing.assert_allclose(low[r], part.min(axis=0), rtol=0, atol=1e-12 * spread)
        np.testing.assert_allclose(high[r], part.max(axis=0), rtol=0, atol=1e-12 * spread)
        for k in range(9):
            expected, _ = np.histogram(part[:, k], bins=70, range=(edges[0], edges[-1]))
            near = (np.abs(part[:, k, None] - edges) < 1e-12 * spread).any(axis=1).sum()
            assert np.abs(counts[r, k] - expected).sum() <= 2 * near
            assert counts[r, k].sum() + under[r, k] + over[r, k] == b - a
            np.testing.assert_allclose(under[r, k], (part[:, k] < edges[0]).sum(), atol=near)


def test_histogram_edges_are_numpys() -> None:
    """Values that lie exactly on edges, in a projection that does not touch them."""
    edges = bin_edges(-1.0, 1.0)
    np.testing.assert_array_equal(edges, np.histogram_bin_edges([], bins=70, range=(-1, 1)))
    x = np.zeros((len(edges), 9), np.float32)
    x[:, 0] = edges
    starts, stops = oracles.runs([len(x)])
    counts, under, over, on_edge = histograms(oracles.columns(x), starts, stops, np.zeros(9), np.eye(9), False, edges)
    expected, _ = np.histogram(x[:, 0].astype(np.float64), bins=70, range=(-1, 1))
    np.testing.assert_array_equal(counts[0, 0], expected)
    assert (under.sum(), over.sum()) == (0, 0)
    assert on_edge[0, 0] == 1  # float32 rounds the others off their edges by more than the tolerance
    assert on_edge[0, 1] == counts[0, 1, 35] == len(x)  # zero lies on the middle edge and belongs to the right


def test_extremes_stand_in_the_histogram_that_they_bound() -> None:
    """Extremes and histograms share one projection bit for bit: nothing lies outside the range of the extremes."""
    x = filters([5_000], seed=3)
    mean, components = basis(oracles.scaled(x))
    starts, stops = oracles.runs([len(x)])
    low, high = extremes(oracles.columns(x), starts, stops, mean, components, True)
    edges = bin_edges(low.min(), high.max())
    counts, under, over, _ = histograms(oracles.columns(x), starts, stops, mean, components, True, edges)
    assert (under.sum(), over.sum()) == (0, 0)
    assert (counts.sum(axis=-1) == len(x)).all()


def in_double(x: np.ndarray, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Coefficients of scaled filters, (n, 9), in the order of operations that the loops promise."""
    f = oracles.scaled(x) - mean
    total: np.ndarray = f[:, 0, None] * components[:, 0]
    for j in range(1, 9):
        total = total + f[:, j, None] * components[:, j]
    return total


def awkward() -> np.ndarray:
    """Filters of few values, as quantised and binary layers have them: the same coefficients again and again."""
    rng = np.random.default_rng(5)
    quantised = np.round(rng.standard_normal((4_000, 9)) * 2) / 2
    binary = rng.choice([-1.0, 1.0], (2_000, 9))
    zero = np.zeros((300, 9))
    single = np.eye(9)[rng.integers(0, 9, 700)] * rng.choice([-0.3, 0.7], (700, 1))
    return np.concatenate([quantised, binary, zero, single]).astype(np.float32)


@pytest.mark.parametrize("bins", [70, 7, 1_000, 100_000])
def test_single_precision_decides_nothing(bins: int) -> None:
    """Edges laid exactly on coefficients, and a hair beside: the counts are those of double precision, all of them."""
    x = awkward()
    mean, components = basis(oracles.scaled(x))
    coefficients = in_double(x, mean, components)
    starts, stops = oracles.runs([len(x)])
    low, high = extremes(oracles.columns(x), starts, stops, mean, components, True)
    np.testing.assert_array_equal(low[0], coefficients.min(axis=0))
    np.testing.assert_array_equal(high[0], coefficients.max(axis=0))
    popular = np.unique(coefficients.round(3), return_counts=True)
    on = coefficients.flat[np.abs(coefficients - popular[0][np.argmax(popular[1])]).argmin()]
    for origin in (on, np.nextafter(on, 9), np.nextafter(on, -9), on + 1e-7, on - 1e-7):
        edges = np.linspace(origin - 1.25, origin + 1.25, bins + 1)
        axes = (mean, components, True, edges)
        counts, under, over, _ = histograms(oracles.columns(x), starts, stops, *axes, slack=0.0)
        for k in range(9):
            expected, _ = np.histogram(coefficients[:, k], edges)
            np.testing.assert_array_equal(counts[0, k], expected)
            assert under[0, k] == (coefficients[:, k] < edges[0]).sum()
            assert over[0, k] == (coefficients[:, k] > edges[-1]).sum()


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("away", [-1.5, -0.5, -1e-4, 0.0, 1e-4, 0.5, 1.5])
def test_a_coefficient_near_an_edge_goes_up(away: float, scaled: bool) -> None:
    """At every edge, `away` tolerances from it: within one in the bin above, the ends in the outermost bins."""
    positions = np.arange(-1, 72)
    x = np.zeros((len(positions), 9), np.float32)
    x[:, 0] = positions
    x[:, 8] = 128  # the peak, a power of two, so that scaling is exact
    width = 1 / 128 if scaled else 1.0
    edges = bin_edges(0.0, 70 * width)
    mean = np.zeros(9)
    mean[0] = -away * EDGE_TOLERANCE * width
    columns = oracles.columns(x)
    (counts,), (under,), (over,), (on_edge,) = histograms(
        columns, *oracles.runs([len(x)]), mean, np.eye(9), scaled, edges
    )
    near = abs(away) < 1
    expected = np.ones(70, np.int64)
    # The outermost edges, 0 and 70, and their neighbours outside, −1 and 71.
    expected[69] += near  # edge 70 belongs to the last bin
    np.testing.assert_array_equal(counts[0], expected)
    assert under[0] == 1 + (away < -1)
    assert over[0] == 1 + (away > 1)
    assert on_edge[0] == (69 if near else 0)
    pairs, joint, outside = np.array([(0, 1)]), np.zeros((1, 1, 70, 70), np.int64), np.zeros((1, 1), np.int64)
    group = np.zeros(1, np.int64)
    axes = (mean, np.eye(9), scaled, edges, edge_slack(edges))
    compiled.densities(columns, *oracles.runs([len(x)]), group, *axes, pairs, joint, outside)
    np.testing.assert_array_equal(joint[0, 0].sum(axis=1), counts[0])
    assert outside[0, 0] == under[0] + over[0]


@pytest.mark.parametrize("scaled", [True, False])
def test_any_bits_are_survived(scaled: bool) -> None:
    """Whatever a chunk holds, NaN too, nothing is written out of place and every filter is counted."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (9, 3_000), dtype=np.uint32)
    bits[:, :600] = 0x7FC00000  # NaN
    bits[:, 600:900] = 0xFF800000  # -inf
    columns = bits.view(np.float32)
    columns.flags.writeable = False
    starts, stops = oracles.runs([1, 999, 2_000])
    edges = bin_edges(-3.2, 3.2)
    with np.errstate(all="ignore"):
        counts, under, over, _ = histograms(columns, starts, stops, np.zeros(9), np.eye(9), scaled, edges)
        extremes(columns, starts, stops, np.zeros(9), np.eye(9), scaled)
        moments(columns, starts, stops, np.ones(3))
    np.testing.assert_array_equal((counts.sum(axis=-1) + under + over), np.repeat([[1], [999], [2_000]], 9, axis=1))


def test_states_are_added_to() -> None:
    """Twice half of the rows is once all of them: counts exactly, moments to rounding."""
    x = filters([4_096], seed=7)
    mean, components = basis(oracles.scaled(x))
    edges = bin_edges(-3.2, 3.2)
    columns = oracles.columns(x)
    whole = oracles.runs([4_096])
    once = [*moments(columns, *whole, np.zeros(1)), *histograms(columns, *whole, mean, components, True, edges)]
    twice = [np.zeros_like(array) for array in once]
    for start in (0, 2_048):
        part = np.array([start]), np.array([start + 2_048])
        compiled.moments(columns, *part, np.zeros(1), *twice[:5])
        compiled.histograms(columns, *part, mean, components, True, edges, edge_slack(edges), *twice[5:])
    for a, b in zip(once, twice, strict=True):
        if a.dtype.kind == "i":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(a).max())


@pytest.mark.parametrize("weights", [9, 4])
def test_filters_in_memory_need_no_loops_of_their_own(weights: int) -> None:
    """Numba compiles for each type of the arguments; stored filters are read-only, those of a caller are not."""
    stored = np.random.default_rng(0).standard_normal((weights, 300)).astype(np.float32)
    stored.flags.writeable = False
    starts, stops, axes = np.array([0]), np.array([300]), (np.zeros(weights), np.eye(weights), True)
    edges, pair = np.linspace(-1.0, 1.0, 71), np.array([[0, 1]])
    numbers = []
    for columns in (stored, stored.copy()):
        moments(columns, starts, stops, np.zeros(1))
        extremes(columns, starts, stops, *axes)
        histograms(columns, starts, stops, *axes, edges)
        counted = np.zeros((1, 1, 70, 70), np.int64), np.zeros((1, 1), np.int64)
        compiled.densities(columns, starts, stops, np.array([0]), *axes, edges, edge_slack(edges), pair, *counted)
        sketch.add(np.zeros((1, 128)), columns, starts, stops, np.array([0]))
        loops = (
            [compiled._reduce_nine, compiled._densities_nine, sketch.add_nine]
            if weights == 9
            else [compiled._reduce_any, compiled._densities_any, sketch.add_any]
        )
        numbers.append([len(loop.signatures) for loop in loops])
    assert numbers[0] == numbers[1] and min(numbers[0]) >= 1


@pytest.mark.slow
def test_the_process_that_compiles_computes_what_the_others_do(tmp_path: Path) -> None:
    """Byte for byte, whether the loops were compiled in this process or taken from Numba's cache."""
    code = """
import sys, numpy as np
from tests.numerics import test_compiled as t
x = t.filters([5_000], seed=1)
columns, runs = t.oracles.columns(x), t.oracles.runs([5_000])
mean, components = t.basis(t.oracles.scaled(x))
found = t.moments(columns, *runs, np.array([np.abs(x).max() / 3.0]))
for scaled in (True, False):
    found += t.extremes(columns, *runs, mean, components, scaled)
    found += t.histograms(columns, *runs, mean, components, scaled, t.bin_edges(-3.2, 3.2))
sys.stdout.buffer.write(b"".join(array.tobytes() for array in found))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert list(tmp_path.rglob("*.nbc"))
    assert len(runs[0]) > 10_000
    assert runs[0] == runs[1]
