"""Intervals of drift against a plain loop over draws with scipy's quantiles and root search."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm, t

from filterdb.numerics import intervals as module
from filterdb.numerics import noise
from filterdb.numerics.intervals import intervals
from tests.numerics.distributions import models
from tests.numerics.test_noise import kl, kl_of, statistic_of, whole_of


def interval_of(
    counts: np.ndarray, group: np.ndarray, model: np.ndarray, metric: str = "kl", draws: int = 500
) -> tuple[np.ndarray, noise.Permuted]:
    """Return the interval of two groups and what the permutations of their models are."""
    statistic = statistic_of(metric, counts)
    drift = whole_of(metric, np.stack([counts[group == side].sum(axis=0) for side in (0, 1)]))
    permuted = noise.model_floor(statistic, group, model, 2, draws)
    return intervals(drift, statistic, group, model, permuted, draws), permuted


def by_loop(sides: list[np.ndarray], draws: int) -> tuple[float, float]:
    """Return the interval of docs/explanation/noise.md without the permutations' part, from a loop over draws."""
    rng = np.random.default_rng(8)
    drawn, own = [], []
    for _ in range(draws):
        sums = [side[rng.integers(0, len(side), len(side))].sum(axis=0) for side in sides]
        drawn.append(kl(*sums))
        own.append([kl(new, side.sum(axis=0)) for new, side in zip(sums, sides, strict=True)])
    drift = kl(*(side.sum(axis=0) for side in sides))
    shares = [side[:, 0].sum(axis=1) / side[:, 0].sum() for side in sides]
    known = sum(float((w**2).sum()) for w in shares)
    c = known / sum(float((w**2 * (1 - 2 * w + (w**2).sum())).sum()) for w in shares)
    freedom = known**2 / sum(float((w**4).sum()) for w in shares) - 2
    excess = np.mean(drawn) - drift
    relative = np.std(own, axis=0).sum() / np.mean(own, axis=0).sum()
    b, v = c * excess, (c * relative * excess) ** 2
    a = max(c * (np.var(drawn) - (relative * excess) ** 2) / 4 - 0.5 * v / 2, 0)
    along = (a + 0.2 * b * np.sqrt(v / 2)) / (max(drift - 0.5 * b, 0) + 0.2 * b)

    def quantile(delta: float, above: bool) -> float:
        near = min(delta / b, 1)
        z = 1.281552 + 0.363302 * near if above else -np.sqrt(1.644854**2 - 1.64 * np.log(max(near, 1e-300)))
        variance = 4 * delta * along + v
        share = 4 * delta * along / variance
        z = np.sign(z) * np.sqrt(share * t.ppf(norm.cdf(z), freedom) ** 2 + (1 - share) * z**2)
        mean = delta + b
        scatter = mean - np.sqrt(mean**2 - variance / 2)
        return float(max(np.sqrt(mean - scatter) + z * np.sqrt(scatter), 0) ** 2)

    low, high = (
        0.0 if quantile(0, above) >= drift else brentq(lambda d: quantile(d, above) - drift, 0, 9)  # noqa: B023
        for above in (True, False)
    )
    return low, high


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.6, 1.2])
def test_interval_equals_a_loop_over_draws(shift: float) -> None:
    """Groups of six and eight models of unequal size."""
    rng = np.random.default_rng(9)
    sides = [models(6, 5_000, rng), models(8, 4_000, rng, shift)]
    sides[1][:2] *= 2
    low, high = by_loop(sides, 3_000)
    group = np.repeat([0, 1], [6, 8])
    interval, permuted = interval_of(np.concatenate(sides), group, np.arange(14), draws=3_000)
    drift = kl_of(np.concatenate(sides), group.tolist())
    differ = permuted.p_value[0, 1] <= 0.1
    assert differ == (shift > 0)
    low = max(low, (np.sqrt(drift) - np.sqrt(permuted.q90[0, 1])) ** 2) if differ else 0
    np.testing.assert_allclose(interval[0, 1], (low, high), rtol=0.06, atol=0.1 * drift if not shift else 0)
    np.testing.assert_array_equal(interval[0, 1], interval[1, 0])
    assert np.isnan(interval[0, 0]).all()


@pytest.mark.parametrize("metric", ["kl", "hellinger", "wasserstein"])
def test_interval_excludes_0_exactly_if_the_permutations_do(metric: str) -> None:
    rng = np.random.default_rng(14)
    group, differ = np.repeat([0, 1], 5), []
    for _ in range(12):
        counts = np.concatenate([models(5, 3_000, rng), models(5, 3_000, rng, 0.25)])
        interval, permuted = interval_of(counts, group, np.arange(10), metric, draws=252)
        differ.append(bool(permuted.p_value[0, 1] <= 0.1))
        assert (interval[0, 1, 0] > 0) == differ[-1]
    assert 0 < sum(differ) < 12


def test_student_equals_scipy() -> None:
    for freedom in (5.0, 8, 12, 20, 500):
        for p in (0.9, 0.95, 0.975):
            assert module.student(norm.ppf(p), np.array(freedom)) == pytest.approx(t.ppf(p, freedom), rel=4e-3)


def test_equal_models_have_the_textbook_inflation_and_freedom() -> None:
    """k/(k − 1) and 2k − 2 for two groups of k models; k − 1 if both have the same k models."""
    group = np.repeat([0, 1], 6)
    for model, expected in ((np.arange(12), 10), (np.tile(np.arange(6), 2), 5)):
        inflation, freedom = module._replication(np.full(12, 40.0), group, model, np.array([0, 1]))
        assert inflation == pytest.approx(6 / 5) and freedom == pytest.approx(expected, rel=1e-5)


def test_under_five_models_have_no_interval() -> None:
    counts = models(15, 1_000, np.random.default_rng(10))
    group, model = np.repeat([0, 1, 2], [5, 4, 6]), np.arange(15)
    drift = whole_of("kl", np.stack([counts[group == g].sum(axis=0) for g in range(3)]))
    statistic = statistic_of("kl", counts)
    permuted = noise.model_floor(statistic, group, model, 3, draws=50)
    interval = intervals(drift, statistic, group, model, permuted, draws=50)
    assert np.isfinite(interval[0, 2]).all()
    assert np.isnan(interval[1]).all() and np.isnan(interval[:, 1]).all()


def test_groups_that_share_models_are_drawn_together() -> None:
    """Both groups have nearly the same filters of the same models: whatever is drawn, they are alike."""
    rng = np.random.default_rng(11)
    own = models(6, 30_000, rng)
    counts = np.concatenate([own, own])
    counts[6:, 0] = np.roll(counts[6:, 0], 3, axis=1)
    group = np.repeat([0, 1], 6)
    together, _ = interval_of(counts, group, np.tile(np.arange(6), 2))
    apart, _ = interval_of(counts, group, np.arange(12))
    assert np.diff(together[0, 1]) < 0.5 * np.diff(apart[0, 1])
    drift = kl_of(counts, group.tolist())
    assert together[0, 1, 0] < drift < together[0, 1, 1] * 1.01
