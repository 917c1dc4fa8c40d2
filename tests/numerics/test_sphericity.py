"""The test of sphericity: its error rate, what it ignores and what it notices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from filterdb.numerics import layer as whole
from filterdb.numerics.moments import Moments
from filterdb.numerics.sphericity import FREEDOM, SMALLEST, chi_squared_tail, p_value, relative_spread, statistic
from tests.filters import trained
from tests.numerics import oracles


def p_of(filters: np.ndarray) -> float:
    """The p-value of filters (n, 9), as `check` computes it."""
    single = filters.astype(np.float32)
    return float(p_value(whole.moments(single, whole.filter_peaks(single))))


def many(draws: np.ndarray) -> Moments:
    """The moments of max-scaled layers (draws, n, 9)."""
    values = draws / np.abs(draws).max(axis=2, keepdims=True)
    centred = values - values.mean(axis=1, keepdims=True)
    count = np.full(len(draws), draws.shape[1])
    return Moments(count, values.mean(axis=1), np.swapaxes(centred, 1, 2) @ centred)


def test_the_tail_is_that_of_scipy() -> None:
    values = np.concatenate([[0.0], np.geomspace(1e-3, 1_200, 200)])
    np.testing.assert_allclose(chi_squared_tail(values), chi2.sf(values, FREEDOM), rtol=1e-11)
    assert np.isnan(chi_squared_tail(np.array([np.nan]))).all()
    assert chi_squared_tail(np.array([1e4, 1e9])).tolist() == [0, 0]


@pytest.mark.parametrize("size", [16, 70, 300])
def test_p_equals_the_plain_formula(size: int) -> None:
    filters = np.random.default_rng(size).normal(0.1, 1, (size, 9))
    filters[3] = 0
    assert p_of(filters) == pytest.approx(oracles.sphericity(filters.astype(np.float32)), rel=1e-9)


@pytest.mark.parametrize("size", [SMALLEST, 64, 256])
@pytest.mark.parametrize("kind", ["normal", "uniform", "laplace", "t3"])
def test_p_is_uniform_for_noise(kind: str, size: int) -> None:
    """For any distribution of weights, and whatever the scale of each filter."""
    rng = np.random.default_rng(7)
    shape = (3_000, size, 9)
    draws = {
        "normal": lambda: rng.standard_normal(shape),
        "uniform": lambda: rng.uniform(-1, 1, shape),
        "laplace": lambda: rng.laplace(size=shape),
        "t3": lambda: rng.standard_t(3, shape),
    }[kind]()
    draws *= rng.lognormal(0, 2, (*shape[:2], 1))
    p = p_value(many(draws))
    assert kstest(p, "uniform").statistic < 0.06
    assert 0.006 < (p < 0.01).mean() < 0.0155  # 30 expected, 18 to 46 allowed: 1 ± 3 standard errors
    assert (p < 1e-3).sum() <= 10


def test_the_scale_of_a_filter_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    filters = rng.standard_normal((200, 9)).astype(np.float32)
    powers = np.float32(2) ** rng.integers(-40, 40, (200, 1)).astype(np.float32)
    assert p_of(filters) == p_of(filters * powers)


def test_structure_is_noticed() -> None:
    rng = np.random.default_rng(4)
    noise = rng.standard_normal((1_024, 9))
    assert p_of(noise) > 0.001
    assert p_of(noise + 0.3) < 1e-9  # a mean
    assert p_of(noise * np.linspace(0.8, 1.2, 9)) < 1e-9  # weights of unequal size
    assert p_of(noise + 0.5 * np.roll(noise, 1, axis=1)) < 1e-9  # neighbours alike
    assert p_of(trained(32, 32).reshape(-1, 9)) < 1e-9


def test_without_an_answer() -> None:
    assert np.isnan(p_of(np.random.default_rng(0).standard_normal((SMALLEST - 1, 9))))
    assert np.isnan(p_of(np.zeros((100, 9))))
    assert np.isnan(statistic(Moments(np.array(0), np.zeros(9), np.zeros((9, 9)))))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_relative_spread_at_any_scale(scale: float) -> None:
    filters = (scale * (1 + 0.1 * np.random.default_rng(1).standard_normal((100, 9)))).astype(np.float32)
    values = filters.astype(np.float64)
    expected = np.sqrt(values.var(axis=0).sum()) / np.linalg.norm(values.mean(axis=0))
    assert relative_spread(whole.moments(filters)) == pytest.approx(expected, rel=1e-9)
    zeros = Moments(np.array(3), np.zeros(9), np.zeros((9, 9)))
    assert np.isnan(relative_spread(zeros))
    assert np.isinf(relative_spread(Moments(np.array(3), np.zeros(9), np.eye(9))))
