"""Loops over filters of other shapes than 3×3 against plain NumPy, for numbers of weights on either side of threes."""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.numerics import compiled, sketch, without_numba
from filterdb.numerics.histogram import bin_edges, edge_slack
from tests.numerics import oracles

SIZES = [1, 50, 0, 700]
WEIGHTS = (2, 3, 4, 5, 6, 8, 10, 25, 49, 121)

pytestmark = pytest.mark.slow


@pytest.fixture(params=WEIGHTS)
def columns(request: pytest.FixtureRequest) -> np.ndarray:
    """Filters of so many weights, among them sparse, equal and all-zero ones."""
    rng = np.random.default_rng(request.param)
    filters = (rng.standard_normal((request.param, sum(SIZES))) + 0.5).astype(np.float32)
    filters[:, ::7] *= 1e-4
    filters[:, ::11] = 0
    filters[:, -5:] = filters[:, -1:]
    return filters


def axes(weights: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(weights)
    return rng.standard_normal(weights) / 10, np.linalg.qr(rng.standard_normal((weights, weights)))[0]


def scaled(filters: np.ndarray) -> np.ndarray:
    peaks = np.abs(filters).max(axis=0).astype(np.float64)
    return filters / np.where(peaks > 0, peaks, 1.0)


def test_moments(columns: np.ndarray) -> None:
    """Twice, so that runs are added to moments of other filters."""
    starts, stops = oracles.runs(SIZES)
    layers, weights = len(SIZES), len(columns)
    peaks = np.array([np.abs(columns[:, a:b]).max(initial=0) for a, b in zip(starts, stops, strict=True)], np.float64)
    counts, means, m2 = (
        np.zeros((layers, 2), np.int64),
        np.zeros((layers, 3, weights)),
        np.zeros((layers, 3, weights, weights)),
    )
    found_peaks, spans = np.zeros((2, layers))
    for _ in range(2):
        compiled.moments(columns, starts, stops, peaks / 100, counts, means, m2, found_peaks, spans)
    np.testing.assert_array_equal(found_peaks, peaks)
    for layer, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        filters = np.tile(columns[:, start:stop].astype(np.float64), 2)
        is_sparse = np.abs(filters).max(axis=0) < peaks[layer] / 100
        assert counts[layer].tolist() == [(~is_sparse).sum(), is_sparse.sum()]
        assert spans[layer] == pytest.approx(np.ptp(filters, axis=0).sum() if filters.size else 0, rel=1e-12)
        for state, own in enumerate((filters[:, ~is_sparse], filters[:, is_sparse], scaled(filters))):
            if own.shape[1]:
                np.testing.assert_allclose(means[layer, state], own.mean(axis=1), rtol=0, atol=1e-13)
                centred = own - own.mean(axis=1, keepdims=True)
                np.testing.assert_allclose(m2[layer, state], centred @ centred.T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("is_scaled", [True, False])
def test_coefficients(columns: np.ndarray, is_scaled: bool) -> None:
    """Extremes, histograms and densities have the bytes of the loops in NumPy, which round in the same order."""
    starts, stops = oracles.runs(SIZES)
    layers, weights = len(SIZES), len(columns)
    mean, components = axes(weights)
    edges = bin_edges(-np.sqrt(weights) - 1, np.sqrt(weights) + 1)
    groups, pairs = np.array([0, 1, 1, 0]), np.array([[0, 1], [weights - 1, weights - 1]])
    results = []
    for loops in (compiled, without_numba):
        extremes = np.full((layers, weights), np.inf), np.full((layers, weights), -np.inf)
        counts, rest = np.zeros((layers, weights, 70), np.int64), np.zeros((3, layers, weights), np.int64)
        states = {"extremes": extremes, "histograms": (edges, edge_slack(edges), counts, *rest)}
        loops.reduce_together(columns, starts, stops, (mean, components, is_scaled), **states)
        squares, outside = np.zeros((2, 2, 70, 70), np.int64), np.zeros((2, 2), np.int64)
        loops.densities(
            columns,
            starts,
            stops,
            groups,
            mean,
            components,
            is_scaled,
            edges,
            edge_slack(edges),
            pairs,
            squares,
            outside,
        )
        results.append([*extremes, counts, rest, squares, outside])
    for ours, theirs in zip(*results, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    own = scaled(columns) if is_scaled else columns.astype(np.float64)
    coefficients = components @ (own[:, starts[3] :] - mean[:, None])
    np.testing.assert_allclose(results[0][0][3], coefficients.min(axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(results[0][1][3], coefficients.max(axis=1), rtol=0, atol=1e-12)


def test_sketches(columns: np.ndarray) -> None:
    """The compiled sketch has the bytes of NumPy's; its products estimate those of the weights."""
    starts, stops = oracles.runs(SIZES)
    firsts = np.array([0, 5, 0, 123_456])
    ours, theirs = np.zeros((2, len(SIZES), sketch.BUCKETS))
    sketch.add(ours, columns, starts, stops, firsts)
    without_numba.add_any(theirs, columns, starts, stops, firsts)
    assert ours.tobytes() == theirs.tobytes()
    norm = float((columns[:, starts[3] :].astype(np.float64) ** 2).sum())
    assert float(ours[3] @ ours[3]) == pytest.approx(norm, rel=0.7)
