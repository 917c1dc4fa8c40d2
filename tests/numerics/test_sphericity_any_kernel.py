"""The test of sphericity for filters of any number of weights: its constants, its tail and its error rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr, ndtri
from scipy.stats import binom, chi2, kstest, norm, truncnorm

from filterdb.numerics import layer as whole
from filterdb.numerics.max_scaled import LIMITS, variances
from filterdb.numerics.moments import Moments
from filterdb.numerics.sphericity import (
    DIAGONAL,
    OFF,
    SQUARED_NORM,
    chi_squared_tail,
    freedom,
    p_value,
    smallest_filters,
    statistic,
)
from filterdb.numerics.threshold import channels
from tests.numerics import oracles

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

NORMAL = -len(LIMITS)
"""The place of normal weights among the knots of `variances`."""


def truncated(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    low = ndtr(-2.0)
    drawn: np.ndarray = ndtri(low + rng.random(size) * (1 - 2 * low))
    return drawn


def orthogonal(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Rows of (out, in·K) matrices with orthonormal rows, or columns where there are more rows than columns."""
    layers, filters, weights = size
    out, into = channels(filters)
    is_tall = out > into * weights
    matrix = rng.standard_normal((layers, max(out, into * weights), min(out, into * weights)))
    q = np.linalg.qr(matrix)[0]
    return (q if is_tall else np.swapaxes(q, 1, 2)).reshape(size)


INITS: dict[str, Draw] = {
    "normal": lambda rng, size: rng.standard_normal(size),  # Kaiming and Xavier differ from these two in scale only
    "uniform": lambda rng, size: rng.uniform(-1, 1, size),
    "truncated": truncated,
    "orthogonal": orthogonal,
}


def p_values(draw: Draw, shape: tuple[int, int], layers: int, rng: np.random.Generator, spread: float) -> np.ndarray:
    """The p-values of layers of (n, weights), whose channels have log-normal scales of this spread."""
    filters, weights = shape
    parts, step = [], max(1, 2**22 // (weights * max(filters, weights)))
    for start in range(0, layers, step):
        size = (min(step, layers - start), filters, weights)
        values = draw(rng, size) * rng.lognormal(0, spread, (*size[:2], 1))
        values /= np.abs(values).max(axis=2, keepdims=True)
        mean = values.mean(axis=1)
        centred = values - mean[:, None]
        count = np.full(len(values), filters)
        parts.append(p_value(Moments(count, mean, np.swapaxes(centred, 1, 2) @ centred)))
    return np.concatenate(parts)


@given(weights=st.integers(2, 256), share=st.lists(st.floats(0, 4), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_tail_is_that_of_scipy(weights: int, share: list[float]) -> None:
    values = np.array(share) * freedom(weights)
    expected = chi2.sf(values, freedom(weights))
    seen = expected > 1e-280
    np.testing.assert_allclose(chi_squared_tail(values, freedom(weights))[seen], expected[seen], rtol=1e-9)


def test_the_tail_at_its_ends() -> None:
    for weights in (3, 25, 256):
        tail = chi_squared_tail(np.array([[-1.0, 0.0], [np.nan, 1e9]]), freedom(weights))
        np.testing.assert_array_equal(tail, [[1, 1], [np.nan, 0]])


@pytest.mark.parametrize("weights", [2, 3, 5, 25, 49, 121, 256])
def test_constants_of_uniform_weights(weights: int) -> None:
    """Given its largest weight, the others of a uniform filter are uniform, so the moments are rational numbers."""
    knots = variances(weights)
    norm_, square = (1 + (weights - 1) / 3) / weights, (1 + (weights - 1) / 5) / weights
    mixed = (2 / 3 + (weights - 2) / 9) / weights
    assert knots.squared_norm[-1] == pytest.approx(weights * norm_, rel=3e-5)
    assert knots.off[-1] == pytest.approx(mixed / norm_**2, rel=3e-5)
    assert knots.diagonal[-1] == pytest.approx((square - mixed) / (2 * norm_**2), rel=3e-4)
    assert (np.diff(knots.squared_norm) > 0).all()


@pytest.mark.parametrize("weights", [2, 9, 49])
def test_constants_of_normal_weights_by_quadrature(weights: int) -> None:
    def over_largest(of: Callable[[float], float]) -> float:
        def integrand(m: float) -> float:
            return float(of(m) * weights * (2 * norm.cdf(m) - 1) ** (weights - 1) * 2 * norm.pdf(m))

        return float(quad(integrand, 0, 12, limit=200)[0])

    def second(m: float) -> float:
        """E (w/m)² of a normal weight within ± m."""
        return float(truncnorm.moment(2, -m, m)) / m**2 if m > 0.05 else 1 / 3

    a2, b = over_largest(second), over_largest(lambda m: second(m) ** 2)
    knots = variances(weights)
    assert knots.squared_norm[NORMAL] == pytest.approx(1 + (weights - 1) * a2, rel=1e-5)
    mixed = (2 * a2 + (weights - 2) * b) / weights
    assert knots.off[NORMAL] == pytest.approx(mixed / ((1 + (weights - 1) * a2) / weights) ** 2, rel=1e-5)


def test_the_theory_has_the_constants_simulated_for_nine_weights() -> None:
    knots = variances(9)
    common = SQUARED_NORM > 2.6  # normal and lighter tails: for heavier ones the distributions differ
    np.testing.assert_allclose(np.interp(SQUARED_NORM, knots.squared_norm, knots.off)[common], OFF[common], rtol=0.008)
    theory = np.interp(SQUARED_NORM, knots.squared_norm, knots.diagonal)
    np.testing.assert_allclose(theory[common], DIAGONAL[common], rtol=0.05)


@pytest.mark.parametrize("weights", [2, 3, 25, 49])
def test_p_equals_the_plain_formula(weights: int) -> None:
    filters = np.random.default_rng(weights).normal(0.02, 1, (90, weights)).astype(np.float32)
    filters[3] = 0
    p = float(p_value(whole.moments(filters, whole.filter_peaks(filters))))
    assert p == pytest.approx(oracles.sphericity(filters), rel=1e-8)


@pytest.mark.parametrize("weights", [3, 5, 25, 49])
@pytest.mark.parametrize("kind", ["normal", "uniform", "truncated"])
def test_p_is_uniform_for_noise(kind: str, weights: int) -> None:
    p = p_values(INITS[kind], (64, weights), 1_500, np.random.default_rng(weights), 1.0)
    assert kstest(p, "uniform").statistic < 0.06
    assert 2 < (p < 0.01).sum() < 31  # 15 expected, ± 4 standard deviations
    assert (p < 1e-3).sum() <= 7


def test_a_singular_covariance_has_an_answer() -> None:
    """64 filters of 121 weights span at most 64 directions."""
    p = p_values(INITS["normal"], (64, 121), 400, np.random.default_rng(5), 0.0)
    assert kstest(p, "uniform").statistic < 0.1
    trained = np.random.default_rng(6).standard_normal((64, 20)) @ np.random.default_rng(7).standard_normal((20, 121))
    filters = trained.astype(np.float32)
    assert float(p_value(whole.moments(filters, whole.filter_peaks(filters)))) < 1e-12


@pytest.mark.parametrize(("weights", "smallest"), [(2, 16), (9, 16), (25, 16), (49, 25), (121, 61), (256, 128)])
def test_too_few_filters_have_no_answer(weights: int, smallest: int) -> None:
    assert smallest_filters(weights) == smallest
    filters = np.random.default_rng(0).standard_normal((smallest, weights)).astype(np.float32)
    few = filters[1:]
    assert np.isnan(p_value(whole.moments(few, whole.filter_peaks(few))))
    assert np.isfinite(p_value(whole.moments(filters, whole.filter_peaks(filters))))
    zeros = np.zeros_like(filters)
    assert np.isnan(statistic(whole.moments(zeros, whole.filter_peaks(zeros))))


@pytest.mark.soak
@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("weights", [3, 5, 9, 25, 49, 121, 256])
def test_noise_is_rejected_as_often_as_stated(weights: int, spread: float) -> None:
    """About 0.1 % of noise layers of each size and initialisation are rejected: 0.05 to 0.2 %, and chance.

    Weights that depend on each other as those of orthogonal layers do are rejected less often.
    """
    smallest = max(64, smallest_filters(weights))
    for filters, most in ((smallest, 20_000), (512, 5_000), (4_096, 1_000), (100_000, 40)):
        layers = max(10, min(most, 10**10 // (filters * weights**2)))
        for kind, draw in INITS.items():
            if kind == "orthogonal" and filters > 4_096:  # its decomposition takes minutes
                continue
            rng = np.random.default_rng([weights, filters])
            p = p_values(draw, (filters, weights), layers // 4 if kind == "orthogonal" else layers, rng, spread)
            rejected = int((p < 1e-3).sum())
            assert rejected <= binom.isf(1e-4, len(p), 0.002), (kind, filters, rejected)
            if kind != "orthogonal":
                assert rejected >= binom.ppf(1e-4, len(p), 0.0005), (kind, filters, rejected)
                assert kstest(p, "uniform").pvalue > 1e-6 or kstest(p, "uniform").statistic < 0.05, (kind, filters)
