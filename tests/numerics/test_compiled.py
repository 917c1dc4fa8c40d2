"""The compiled loops against their NumPy twins: sizes around the block of 256, scales, edge layers."""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.numerics import compiled
from filterdb.numerics.histogram import bin_edges
from filterdb.numerics.scaling import scale
from tests.numerics import oracles

SIZES = [1, 2, 8, 9, 255, 256, 257, 1_000]


def filters(sizes: list[int], seed: int = 0, mean: float = 0.0) -> np.ndarray:
    """Correlated float32 filters of several layers, each with its own scale."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((9, 9))
    layers = [(rng.standard_normal((n, 9)) @ mix + mean) * 10.0 ** rng.integers(-3, 3) for n in sizes]
    return np.concatenate(layers).astype(np.float32)


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
        counts, means, m2, peak, spans = compiled.moments(oracles.columns(x), starts, stops, thresholds)
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
    _, _, m2, _, _ = compiled.moments(oracles.columns(x), starts, stops, np.zeros(1))
    np.testing.assert_allclose(m2[0, 0], oracles.moments(x)[2], rtol=0, atol=1e-11 * len(x))


@pytest.mark.parametrize("value", [0.0, 1 / 3, -7.25, 1e30, 1e-30, 1e-45])
def test_equal_filters_have_exactly_no_variance(value: float) -> None:
    x = np.full((1_000, 9), value, np.float32)
    starts, stops = oracles.runs([1, 299, 700])
    counts, means, m2, peaks, spans = compiled.moments(oracles.columns(x), starts, stops, np.zeros(3))
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
    _, means, m2, _, _ = compiled.moments(oracles.columns(x), starts, stops, np.zeros(1))
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
    low, high = compiled.extremes(oracles.columns(x), starts, stops, mean, components, scaled)
    # A range narrower than the data: what lies outside is counted, not dropped.
    spread = np.abs(coefficients).max()
    edges = bin_edges(*np.quantile(coefficients, [0.03, 0.98]))
    counts, under, over = compiled.histograms(oracles.columns(x), starts, stops, mean, components, scaled, edges)
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
    counts, under, over = compiled.histograms(oracles.columns(x), starts, stops, np.zeros(9), np.eye(9), False, edges)
    expected, _ = np.histogram(x[:, 0].astype(np.float64), bins=70, range=(-1, 1))
    np.testing.assert_array_equal(counts[0, 0], expected)
    assert (under.sum(), over.sum()) == (0, 0)
    assert counts[0, 1, 35] == len(x)  # zero lies on the middle edge and belongs to the right


def test_extremes_stand_in_the_histogram_that_they_bound() -> None:
    """Extremes and histograms share one projection bit for bit: nothing lies outside the range of the extremes."""
    x = filters([5_000], seed=3)
    mean, components = basis(oracles.scaled(x))
    starts, stops = oracles.runs([len(x)])
    low, high = compiled.extremes(oracles.columns(x), starts, stops, mean, components, True)
    edges = bin_edges(low.min(), high.max())
    counts, under, over = compiled.histograms(oracles.columns(x), starts, stops, mean, components, True, edges)
    assert (under.sum(), over.sum()) == (0, 0)
    assert (counts.sum(axis=-1) == len(x)).all()
