"""Permutations and draws of models against plain loops, exact enumeration and scipy; and a small simulation."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import rel_entr
from scipy.stats import entropy

from filterdb.numerics import divergence, noise
from filterdb.numerics.histogram import sound_probabilities
from filterdb.numerics.intervals import intervals
from filterdb.numerics.moments import Moments, pool
from filterdb.numerics.resampling import FrechetDistance, HistogramDivergence, Statistic, SymmetricKL
from filterdb.numerics.sampling import SamplingFloor
from tests.numerics.distributions import WEIGHTS, bells, models

WHOLE = np.random.default_rng(0).multinomial(10_000_000, bells(np.linspace(1.1, 0.3, 9)))
FUNCTIONS = {
    "js": divergence.jensen_shannon,
    "hellinger": lambda p, q: divergence.of_roots(np.sqrt(p), np.sqrt(q)),
    "wasserstein": lambda p, q: 0.1 * divergence.of_sums(np.cumsum(p, axis=-1), np.cumsum(q, axis=-1)),
}


def kl(one: np.ndarray, other: np.ndarray) -> float:
    """D of two histograms (9, 70), by scipy."""
    p, q = sound_probabilities(np.stack([one, other]), WHOLE)
    return float(WEIGHTS @ (entropy(p, q, axis=-1) + entropy(q, p, axis=-1)))


def symmetric(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL_sym of each component, by scipy."""
    found: np.ndarray = rel_entr(p, q).sum(axis=-1) + rel_entr(q, p).sum(axis=-1)
    return found


def statistic_of(metric: str, counts: np.ndarray) -> Statistic:
    if metric == "kl":
        return SymmetricKL(counts, WHOLE, WEIGHTS)
    return HistogramDivergence(counts, WHOLE, WEIGHTS, FUNCTIONS[metric], is_square=metric == "js")


def whole_of(metric: str, counts: np.ndarray) -> np.ndarray:
    p = sound_probabilities(counts, WHOLE)
    if metric == "kl":
        return divergence.whole(len(p), divergence.kl(p, WEIGHTS))
    return divergence.whole(len(p), divergence.by_rows(p, WEIGHTS, FUNCTIONS[metric]))


@pytest.mark.parametrize("metric", ["kl", *FUNCTIONS])
def test_drift_of_sums_is_the_drift(metric: str) -> None:
    """Sums of cells, in pairs and as matrices, single and double precision, bins empty in all cells among them."""
    rng = np.random.default_rng(1)
    counts = np.concatenate([models(6, 3_000, rng), models(1, 60, rng)])
    assert (counts.sum(axis=0) == 0).any()
    statistic = statistic_of(metric, counts)
    groups = np.array([[1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 2, 0]], np.float64)
    expected = whole_of(metric, np.einsum("gc,ckb->gkb", groups, counts).astype(np.int64))
    sums = groups @ statistic.states
    np.testing.assert_allclose(statistic.matrices(np.stack([sums, sums]))[1], expected, rtol=1e-9, atol=1e-12)
    for dtype, rtol in ((np.float64, 1e-9), (np.float32, 2e-5)):
        left, right = (sums[[i for i, _ in PAIRS]].astype(dtype), sums[[j for _, j in PAIRS]].astype(dtype))
        np.testing.assert_allclose(statistic.pairs(left, right), [expected[pair] for pair in PAIRS], rtol=rtol)


PAIRS = [(0, 1), (2, 0), (1, 2)]


def test_frechet_of_sums_is_that_of_merged_moments() -> None:
    rng = np.random.default_rng(2)
    filters = [rng.standard_normal((n, 9)) @ rng.standard_normal((9, 9)) + 5 for n in (40, 300, 7, 90)]
    cells = Moments(
        np.array([len(f) for f in filters]),
        np.array([f.mean(axis=0) for f in filters]),
        np.array([np.cov(f, rowvar=False) * (len(f) - 1) for f in filters]),
    )
    statistic = FrechetDistance(cells)
    merged = pool(cells, np.array([0, 1, 0, 1]), 2)
    expected = divergence.whole(2, divergence.frechet(merged.mean, merged.covariance))[0, 1]
    sums = np.array([[1.0, 0, 1, 0], [0, 1, 0, 1]]) @ statistic.states
    assert statistic.pairs(sums[:1], sums[1:])[0] == pytest.approx(expected, rel=1e-9)
    assert statistic.matrices(sums[None])[0, 1, 0] == pytest.approx(expected, rel=1e-9)


def every_permutation(
    counts: np.ndarray, group: list[int], model: list[int], measure: Callable[[np.ndarray, np.ndarray], float]
) -> list[float]:
    """Drift after each way to deal models out again, the slow way: each set of models that may be on the left."""
    have = {side: {m for g, m in zip(group, model, strict=True) if g == side} for side in (0, 1)}
    both = have[0] & have[1]
    alone = sorted(have[0] ^ have[1])
    found = []
    for left in itertools.combinations(alone, len(have[0] - both)):
        for swapped in itertools.chain.from_iterable(itertools.combinations(both, r) for r in range(len(both) + 1)):
            sides = [np.zeros(counts.shape[1:], np.int64), np.zeros(counts.shape[1:], np.int64)]
            for c, g, m in zip(counts, group, model, strict=True):
                side = (g + (m in swapped)) % 2 if m in both else int(m not in left)
                sides[side] += c
            found.append(measure(*sides))
    return found


def kl_of(counts: np.ndarray, group: list[int]) -> float:
    """D of the two groups of cells."""
    return kl(*(counts[np.array(group) == side].sum(axis=0) for side in (0, 1)))


CASES = {
    "three and three": ([0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5], 20),
    "two and five, unsorted": ([1, 0, 1, 1, 0, 1, 1], [9, 3, 8, 1, 4, 0, 7], 21),
    "shared": ([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 4, 2, 0, 3, 1], 32),
    "two and two, and three shared": ([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2, 5, 6, 7, 8], 48),
}


@pytest.mark.parametrize("case", CASES)
def test_all_permutations_are_enumerated(case: str) -> None:
    group, model, number = CASES[case]
    counts = models(len(group), 2_000, np.random.default_rng(3))
    expected = every_permutation(counts, group, model, kl)
    assert len(expected) == number
    floor, ways, p_value, reach, q90 = noise.model_floor(
        statistic_of("kl", counts), np.array(group), np.array(model), 2
    )
    assert ways[0, 1] == ways[1, 0] == number
    assert floor.mean[0, 1] == floor.mean[1, 0] == pytest.approx(np.mean(expected), rel=1e-5)
    quantile = np.quantile(expected, 0.95, method="inverted_cdf")
    assert floor.q95[0, 1] == floor.q95[1, 0] == pytest.approx(quantile, rel=1e-5)
    assert q90[0, 1] == pytest.approx(np.quantile(expected, 0.9, method="inverted_cdf"), rel=1e-5)
    assert np.isnan([floor.mean[0, 0], floor.q95[1, 1], q90[1, 1]]).all()
    assert p_value[0, 1] == np.mean(np.array(expected) >= kl_of(counts, group) * (1 - 1e-6))
    assert reach[0, 1] == min(np.mean(np.array(expected) >= value * (1 - 1e-6)) for value in expected)
    # At most one in twenty of the permutations exceeds it, which is what makes the verdict's 5 %.
    assert (np.array(expected) > quantile * (1 + 1e-9)).mean() <= 0.05


@pytest.mark.parametrize(
    ("own", "other", "shared"), [(1, 1, 0), (0, 0, 1), (2, 3, 0), (1, 18, 0), (0, 0, 4), (1, 2, 2)]
)
def test_too_few_permutations_have_no_floor(own: int, other: int, shared: int) -> None:
    """One model a group, one shared by both, …"""
    group = [0] * own + [1] * other + [0] * shared + [1] * shared
    model = [*range(own + other), *range(100, 100 + shared), *range(100, 100 + shared)]
    counts = models(len(group), 2_000, np.random.default_rng(4))
    floor, ways, p_value, *_ = noise.model_floor(statistic_of("kl", counts), np.array(group), np.array(model), 2)
    assert ways[0, 1] == len(every_permutation(counts, group, model, kl)) < 20 and np.isnan(p_value).all()
    assert np.isnan(floor.mean).all() and np.isnan(floor.q95).all()


def test_sampled_permutations_are_permutations() -> None:
    left, right = noise._sides(7, 9, 3, 500)
    np.testing.assert_array_equal(left + right, 1)
    assert left.shape == (500, 7 + 9 + 2 * 3)
    np.testing.assert_array_equal(left[0], [1] * 7 + [0] * 9 + [1] * 3 + [0] * 3)  # the groups as they are
    np.testing.assert_array_equal(left[:, :16].sum(axis=1), 7)
    np.testing.assert_array_equal(left[:, 16:19], right[:, 19:])  # a shared model's two cells never meet
    assert len(np.unique(left, axis=0)) > 490
    assert np.abs(left[1:, :16].mean(axis=0) - 7 / 16).max() < 0.1
    assert np.abs(left[1:, 16:].mean(axis=0) - 0.5).max() < 0.1


def test_sampled_permutations_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample of 900 has the mean of all 924 to 1.2 % (a standard error): thirty of them, by 4 of their errors."""
    counts = models(12, 5_000, np.random.default_rng(5))
    group, model = np.repeat([0, 1], 6), np.arange(12)
    every = every_permutation(counts, group.tolist(), model.tolist(), kl)
    means, quantiles = [], []
    for seed in range(30):
        monkeypatch.setattr(noise, "SEED", seed)
        noise._sides.cache_clear()
        floor, ways, *_ = noise.model_floor(statistic_of("kl", counts), group, model, 2, draws=900)
        assert ways[0, 1] == len(every) == 924
        means.append(floor.mean[0, 1])
        quantiles.append(floor.q95[0, 1])
    noise._sides.cache_clear()
    assert abs(np.mean(means) - np.mean(every)) < 4 * np.std(every) / np.sqrt(30 * 900)
    # A sample's quantile stands between the quantiles of all two binomial errors (√(0.05·0.95/900)) either side.
    low, high = np.quantile(every, [0.95 - 0.015, 0.95 + 0.015])
    assert np.mean([low <= quantile <= high for quantile in quantiles]) > 0.8
    assert len(set(means)) == 30


def test_hundreds_of_models_overflow_nothing() -> None:
    counts = np.random.default_rng(6).multinomial(50, bells(np.ones(9)), size=(1_600, 9))
    group, model = np.tile([0, 1], 800), np.repeat(np.arange(800), 2)
    floor, ways, *_ = noise.model_floor(statistic_of("kl", counts), group, model, 2, draws=50)
    assert np.isfinite([floor.q95[0, 1], ways[0, 1]]).all() and ways[0, 1] > 1e200


@pytest.mark.parametrize("metric", ["kl", "wasserstein"])
def test_the_same_bytes_again_and_beside_other_groups(metric: str) -> None:
    counts = models(24, 2_000, np.random.default_rng(7))
    group, model = np.repeat(np.arange(4), 6), np.arange(24)
    drift = whole_of(metric, counts.reshape(4, 6, 9, 70).sum(axis=1))

    def both(*chosen: int) -> tuple[np.ndarray, np.ndarray]:
        cells = np.isin(group, chosen)
        own, groups = np.searchsorted(chosen, group[cells]), len(chosen)
        statistic = statistic_of(metric, counts[cells])
        permuted = noise.model_floor(statistic, own, model[cells], groups, draws=100)
        part = drift[np.ix_(chosen, chosen)]
        return permuted.floor.q95, intervals(part, statistic, own, model[cells], permuted, draws=100)

    once, again = both(0, 1, 2, 3), both(0, 1, 2, 3)
    for a, b in zip(once, again, strict=True):
        assert a.tobytes() == b.tobytes()
    for chosen in ((0, 1), (1, 3), (0, 2, 3)):
        for a, part in zip(once, both(*chosen), strict=True):
            np.testing.assert_allclose(a[np.ix_(chosen, chosen)], part, rtol=1e-4)


def test_sampling_floor_by_draws_agrees_with_the_one_without() -> None:
    rng = np.random.default_rng(12)
    counts = np.concatenate([models(2, 4_000, rng), models(1, 300, rng)])
    both = HistogramDivergence(counts, WHOLE, WEIGHTS, symmetric, is_square=True)
    drawn = noise.sampling_floor(both, draws=800)
    exact = SamplingFloor(WHOLE, WEIGHTS).matrix(counts)
    np.testing.assert_allclose(drawn.mean, exact.mean, rtol=0.03)
    np.testing.assert_allclose(drawn.q95, exact.q95, rtol=0.05)
    assert noise.sampling_floor(both, draws=800).q95.tobytes() == drawn.q95.tobytes()


def true_drift(shift: float) -> float:
    """D of the populations of `models`, from many of them."""
    rng = np.random.default_rng(15)
    p, q = (models(20_000, 2_000, rng, at).sum(axis=0) for at in (0.0, shift))
    return kl(p, q)


@pytest.mark.slow
def test_error_rate_coverage_and_power_of_a_small_simulation() -> None:
    """250 pairs of groups of 5 models: 5 % false alarms at most (12 of them are no surprise, 25 would be one)."""
    rng = np.random.default_rng(13)
    group, model = np.repeat([0, 1], 5), np.arange(10)
    floor_of_filters = SamplingFloor(WHOLE, WEIGHTS)
    alarms = by_filters = found = 0
    truth, holds = {0.0: 0.0, 0.9: true_drift(0.9)}, {0.0: 0, 0.9: 0}
    for _ in range(250):
        for shift in (0.0, 0.9):
            cells = np.concatenate([models(5, 2_000, rng), models(5, 2_000, rng, shift)])
            sums = np.stack([cells[:5].sum(axis=0), cells[5:].sum(axis=0)])
            drift = kl(*sums)
            statistic = statistic_of("kl", cells)
            permuted = noise.model_floor(statistic, group, model, 2, draws=252)
            different = drift > permuted.floor.q95[0, 1] * (1 + 1e-4)
            found += different and shift > 0
            if not shift:
                alarms += different
                by_filters += drift > floor_of_filters.between(sums[0], sums[1:]).q95[0]
            matrix = np.array([[0, drift], [drift, 0]])
            low, high = intervals(matrix, statistic, group, model, permuted, draws=200)[0, 1]
            holds[shift] += low <= truth[shift] <= high
    assert 2 <= alarms <= 22
    assert by_filters > 225  # which is why filters alone do not judge
    assert found > 225
    # 90 % of 250 is 225, its standard error 5.
    assert 210 <= holds[0.0] <= 240 and holds[0.9] >= 210
