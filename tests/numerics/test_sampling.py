"""The sampling floor against multinomial draws and scipy's Poisson law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy, norm, poisson

from filterdb.analysis.noise import FEW
from filterdb.numerics import sampling
from filterdb.numerics.histogram import sound_probabilities
from filterdb.numerics.sampling import Z_RELATED, SamplingFloor
from tests.numerics.distributions import WEIGHTS, bells

pytestmark = pytest.mark.slow

P = bells(np.linspace(1.0, 0.35, 9))
WHOLE = np.random.default_rng(0).multinomial(40_000_000, bells(np.linspace(1.1, 0.3, 9), 0.1))


def drawn(n: int, m: int, p: np.ndarray, draws: int = 1_500) -> np.ndarray:
    """Drift of so many pairs of samples of p (9, 70)."""
    rng = np.random.default_rng([n, m])
    sides = [sound_probabilities(rng.multinomial(size, p, size=(draws, 9)), WHOLE) for size in (n, m)]
    both = entropy(*sides, axis=-1) + entropy(*reversed(sides), axis=-1)
    found: np.ndarray = both @ WEIGHTS
    return found


@pytest.mark.parametrize(
    ("n", "m"), [(10, 10), (30, 30), (200, 200), (200, 5_000), (1_000, 100_000), (10_000, 10_000), (10**6, 10**6)]
)
def test_equals_multinomial_draws(n: int, m: int) -> None:
    rng = np.random.default_rng(1)
    one, other = (rng.multinomial(size, P) for size in (n, m))
    expected = drawn(n, m, (one + other) / (n + m))
    floor = SamplingFloor(WHOLE, WEIGHTS).between(one, other[None])
    assert floor.mean[0] == pytest.approx(expected.mean(), rel=0.015 if n > 10 else 0.03)
    assert floor.q95[0] == pytest.approx(np.quantile(expected, 0.95), rel=0.03 if n > 10 else 0.06)


@pytest.mark.parametrize(("n", "m", "off"), [(1, 1, 0.2), (2, 2, 0.1), (3, 3, 0.08), (5, 5, 0.05)])
def test_below_ten_filters_it_is_low(n: int, m: int, off: float) -> None:
    """By as much as docs/explanation/noise.md says: bins are no longer rare events. Such groups have no verdict."""
    rng = np.random.default_rng(1)
    one, other = (rng.multinomial(size, P) for size in (n, m))
    expected = drawn(n, m, (one + other) / (n + m))
    floor = SamplingFloor(WHOLE, WEIGHTS).between(one, other[None])
    assert 1 - off < floor.mean[0] / expected.mean() < 1.02
    assert n < FEW


def test_bins_that_no_group_has_filters_in_count_as_well() -> None:
    """Shrinking pulls a small group toward π more than a large one, in those bins too."""
    narrow = bells(np.full(9, 0.08))
    one, other = (np.random.default_rng(2).multinomial(size, narrow) for size in (300, 50_000))
    assert (one + other == 0).mean() > 0.7
    expected = drawn(300, 50_000, (one + other) / 50_300)
    floor = SamplingFloor(WHOLE, WEIGHTS).between(one, other[None])
    assert floor.mean[0] == pytest.approx(expected.mean(), rel=0.015)
    assert floor.q95[0] == pytest.approx(np.quantile(expected, 0.95), rel=0.03)


def test_all_pairs_are_the_pairs() -> None:
    rng = np.random.default_rng(3)
    counts = rng.multinomial(np.array([100, 2_000, 50_000, 7])[:, None], P)
    floor = SamplingFloor(WHOLE, WEIGHTS)
    found = floor.matrix(counts)
    assert np.isnan(np.diag(found.mean)).all() and np.isnan(np.diag(found.q95)).all()
    for matrix in found:
        np.testing.assert_array_equal(matrix, matrix.T)
    for i in range(4):
        others = [j for j in range(4) if j != i]
        one = floor.between(counts[i], counts[others])
        np.testing.assert_allclose(found.mean[i, others], one.mean, rtol=1e-5)
        np.testing.assert_allclose(found.q95[i, others], one.q95, rtol=1e-5)
    assert (found.q95 > found.mean)[~np.eye(4, dtype=bool)].all()
    assert np.isnan(floor.matrix(counts[:1]).mean).all()


def test_the_table_is_the_poisson_law() -> None:
    mu, s = np.array([1e-3, 0.4, 3.0, 63.0, 65.0, 500.0]), np.array([1e-6, 0.02, 1.0, 30.0])
    covariance, log = sampling._fluctuation(mu, s)
    for i, mean in enumerate(mu):
        c = np.arange(2_000)
        law = poisson.pmf(c, mean)
        for j, pseudo in enumerate(s):
            logs = np.log(c + pseudo)
            assert log[i, j] == pytest.approx(law @ logs - np.log(mean + pseudo), rel=2e-3, abs=1e-6)
            expected = law @ ((c - mean) * logs) * (mean + pseudo) / mean
            assert covariance[i, j] == pytest.approx(expected, rel=1e-3)


def test_what_method_md_measured() -> None:
    """About 69 degrees of freedom a component at most: 2·(1/n)·bins, and half of it where the bins are half empty."""
    counts = np.full((9, 70), 10_000)
    floor = SamplingFloor(counts * 100, WEIGHTS).between(counts, counts[None])
    # Equal bins, no shrinking to speak of: (1/n + 1/m)·χ²₆₉ in every component.
    assert floor.mean[0] == pytest.approx(69 * 2 / 700_000, rel=0.01)


@pytest.mark.parametrize(("n", "m"), [(1_000, 1_000), (1_000, 100_000), (20_000, 20_000)])
def test_low_quantiles(n: int, m: int) -> None:
    """Of 21,000 independent pairs, about 1 % are below the 1 % quantile, about 0.1 % below that of related groups."""
    rng = np.random.default_rng(1)
    one, other = (rng.multinomial(size, P) for size in (n, m))
    expected = np.concatenate([drawn(n + i, m, (one + other) / (n + m)) for i in range(14)])
    floor = SamplingFloor(WHOLE, WEIGHTS).between(one, other[None])
    assert floor.quantile(1.6448536269514722) == pytest.approx(floor.q95)
    assert (expected < floor.quantile(norm.ppf(0.01))).mean() == pytest.approx(0.01, abs=0.004)
    assert (expected < floor.quantile(Z_RELATED)).mean() < 0.002
    assert norm.cdf(Z_RELATED) == pytest.approx(0.001)
