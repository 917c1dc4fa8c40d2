"""The compiled joint histogram: NumPy's counts on edges and beyond them, by group, the same however runs are cut."""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.numerics import compiled
from filterdb.numerics.histogram import bin_edges, edge_slack
from tests.numerics import oracles

PAIRS = np.array([(0, 1), (8, 3)], np.int64)


def densities(
    columns: np.ndarray, sizes: list[int], groups: list[int], components: np.ndarray, edges: np.ndarray, *, scaled: bool
) -> tuple[np.ndarray, np.ndarray]:
    number, bins = max(groups) + 1, len(edges) - 1
    counts = np.zeros((len(PAIRS), number, bins, bins), np.int64)
    outside = np.zeros((len(PAIRS), number), np.int64)
    starts, stops = oracles.runs(sizes)
    axes = (np.zeros(9), components, scaled, edges, edge_slack(edges))
    compiled.densities(columns, starts, stops, np.array(groups, np.int64), *axes, PAIRS, counts, outside)
    return counts, outside


@pytest.mark.parametrize("bins", [1, 7, 70, 300])
def test_values_on_and_beyond_the_edges_are_numpys(bins: int) -> None:
    """Every edge, its neighbours in float32, what lies outside, in each of both sides."""
    rng = np.random.default_rng(0)
    edges = bin_edges(-1.25, 2.0, bins)
    near = edges.astype(np.float32)
    values = np.concatenate([near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9)), [-3, 5]])
    x = rng.choice(values, (20_000, 9)).astype(np.float32)
    sizes, groups = [1, 5_000, 4_999, 10_000], [1, -1, 0, 1]
    counts, outside = densities(oracles.columns(x), sizes, groups, np.eye(9), edges, scaled=False)
    of = np.repeat(groups, sizes)
    for p, (first, second) in enumerate(PAIRS):
        for g in (0, 1):
            own = x[of == g].astype(np.float64)[:, [first, second]]
            places = [np.searchsorted(edges, side, "right") - 1 for side in own.T]
            for place, side in zip(places, own.T, strict=True):
                place[side == edges[-1]] = bins - 1  # closed on the right, as NumPy has it
            inside = ((own >= edges[0]) & (own <= edges[-1])).all(axis=1)
            expected = np.zeros((bins, bins), np.int64)
            np.add.at(expected, tuple(place[inside] for place in places), 1)
            np.testing.assert_array_equal(counts[p, g], expected)
            assert outside[p, g] == (~inside).sum() > 0


@pytest.mark.parametrize("scaled", [True, False])
def test_sides_are_the_histograms_bit_for_bit(scaled: bool) -> None:
    """Of rounded values and of zeros too, many of which have the same coefficients."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((50_000, 9)).astype(np.float32)
    x[::7] = np.round(x[::7] * 4) / 4
    x[::11] = 0
    components = np.linalg.qr(rng.standard_normal((9, 9)))[0]
    # Raw weights go further than scaled ones: here too nothing lies outside, so that the sides are whole.
    columns, edges = oracles.columns(x), bin_edges(-3.1, 3.1) if scaled else bin_edges(-20.0, 20.0)
    counts, outside = densities(columns, [20_000, 30_000], [0, 1], components, edges, scaled=scaled)
    state = [np.zeros((2, 9, 70), np.int64), *np.zeros((3, 2, 9), np.int64)]
    axes = (np.zeros(9), components, scaled, edges, edge_slack(edges))
    compiled.histograms(columns, *oracles.runs([20_000, 30_000]), *axes, *state)
    assert not outside.any()
    for p, (first, second) in enumerate(PAIRS):
        np.testing.assert_array_equal(counts[p].sum(axis=2), state[0][:, first])
        np.testing.assert_array_equal(counts[p].sum(axis=1), state[0][:, second])
    np.testing.assert_array_equal(counts.sum(axis=(2, 3)), [[20_000, 30_000]] * 2)


def test_runs_may_be_cut_anywhere() -> None:
    x = np.random.default_rng(2).standard_normal((3_000, 9)).astype(np.float32)
    columns, edges, components = oracles.columns(x), bin_edges(-3.1, 3.1), np.eye(9)[::-1].copy()
    whole = densities(columns, [3_000], [0], components, edges, scaled=True)
    cut = densities(columns, [1, 255, 257, 2_487], [0, 0, 0, 0], components, edges, scaled=True)
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one, other)
