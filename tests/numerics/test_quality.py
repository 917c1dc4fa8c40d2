"""Entropy, threshold, orthogonality: against plain definitions and the published constants."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from filterdb.numerics.quality import orthogonality, randomness_threshold, variance_entropy


def test_entropy_equals_scipy() -> None:
    ratios = np.random.default_rng(0).dirichlet(np.ones(9), 20)
    np.testing.assert_allclose(variance_entropy(ratios), [entropy(r, base=10) for r in ratios], rtol=1e-12)
    assert variance_entropy(np.full(9, 1 / 9)) == pytest.approx(np.log10(9))
    assert variance_entropy(np.eye(9)[0]) == 0
    assert variance_entropy(np.zeros(9)) == 0


def test_threshold_against_known_points() -> None:
    """At n = 2^x₀ half of L plus b; for large n L + b; negative below three filters."""
    assert randomness_threshold(np.array(2**2.30436435)) == pytest.approx(1.2618047 / 2 - 0.31050834)
    assert randomness_threshold(np.array(10**9)) == pytest.approx(1.2618047 - 0.31050834)
    assert randomness_threshold(np.array(2)) < 0 < randomness_threshold(np.array(3))


@pytest.mark.parametrize("n", [64, 256, 2_048])
def test_normal_layers_lie_above_the_threshold(n: int) -> None:
    """P1's experiment: the threshold is a fit of the smallest entropies of random layers, so most exceed it."""
    rng = np.random.default_rng(n)
    above = 0
    for _ in range(50):
        values = np.linalg.eigvalsh(np.cov(rng.standard_normal((n, 9)).T))
        above += int(variance_entropy(values / values.sum()) >= randomness_threshold(np.array(n)))
    assert above >= 40


@pytest.mark.parametrize("rows", [2, 3, 1024])
def test_orthogonality_equals_its_definition(rows: int) -> None:
    rng = np.random.default_rng(0)
    filters = rng.standard_normal((5 * 4, 9)).astype(np.float32)
    filters[4:8] = 0  # channel 1 is dead: its row stays zero
    w = filters.reshape(5, 36).astype(np.float64)
    norm = np.linalg.norm(w, axis=1, keepdims=True)
    unit = np.divide(w, norm, out=np.zeros_like(w), where=norm > 0)
    expected = 1 - np.abs(unit @ unit.T - np.eye(5)).sum() / (5 * 4)
    assert orthogonality(filters, 5, rows) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("channels", [2, 7, 64, 200])
def test_orthogonality_has_all_its_digits(channels: int) -> None:
    """Against extended precision, to the last digits of float64; no decimal is rounded off."""
    filters = np.random.default_rng(channels).standard_normal((channels * 6, 9)).astype(np.float32)
    wide = filters.reshape(channels, -1).astype(np.longdouble)
    wide /= np.sqrt((wide**2).sum(axis=1, keepdims=True))
    cosines = np.abs(wide @ wide.T)
    expected = 1 - (cosines.sum() - np.trace(cosines)) / (channels * (channels - 1))
    found = orthogonality(filters, channels)
    assert abs(found - float(expected)) < 1e-15
    assert found != round(found, 12)


def test_orthogonality_of_extremes() -> None:
    assert orthogonality(np.eye(9, dtype=np.float32)[:4], 4) == pytest.approx(1)
    assert orthogonality(np.ones((4, 9), np.float32), 4) == pytest.approx(0)
    assert np.isnan(orthogonality(np.ones((7, 9), np.float32), 1))
    for factor in (1e-38, 1e38):
        one = np.random.default_rng(0).standard_normal((6, 9))
        scaled = (one * factor / np.abs(one).max()).astype(np.float32)
        assert orthogonality(scaled, 3) == pytest.approx(orthogonality(one.astype(np.float32), 3), abs=1e-6)
