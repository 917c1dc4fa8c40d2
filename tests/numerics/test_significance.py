"""p-values, their correction for many pairs, the detectable drift and the largest of a matrix, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, gamma

from filterdb.numerics import largest, noise
from filterdb.numerics.resampling import SymmetricKL
from filterdb.numerics.sampling import Floor
from filterdb.numerics.significance import benjamini_yekutieli, detectable, harmonic, p_above, p_below
from tests.numerics.distributions import WEIGHTS, bells, models

WHOLE = np.random.default_rng(0).multinomial(10_000_000, bells(np.linspace(1.1, 0.3, 9)))


def test_q_values_equal_scipy() -> None:
    rng = np.random.default_rng(1)
    for number in (1, 2, 7, 300):
        p = rng.random(number) ** 4
        p[: number // 3] = p[0]  # ties
        np.testing.assert_allclose(benjamini_yekutieli(p), false_discovery_control(p, method="by"), rtol=1e-12)
    with_gaps = np.array([np.nan, 0.01, np.nan, 0.5])
    expected = [np.nan, *false_discovery_control([0.01, 0.5], method="by")]
    np.testing.assert_allclose(benjamini_yekutieli(with_gaps)[[0, 1, 3]], expected)
    assert np.isnan(benjamini_yekutieli(with_gaps)[2]) and not len(benjamini_yekutieli(np.empty(0)))
    assert harmonic(4) == pytest.approx(25 / 12)


@pytest.mark.parametrize("shape", [30, 100, 400])
def test_tails_equal_those_of_a_gamma_distribution(shape: float) -> None:
    law = gamma(shape, scale=0.3 / shape)
    floor = Floor(np.array(law.mean()), np.array(law.ppf(0.95)))
    for probability in (0.5, 0.05, 1e-3, 1e-5):
        above, below = law.isf(probability), law.ppf(probability)
        assert float(p_above(np.array(above), floor)) == pytest.approx(probability, rel=0.25)
        assert float(p_below(np.array(below), floor)) == pytest.approx(probability, rel=0.25)
    assert np.isnan(p_above(np.array(1.0), Floor(np.array(np.nan), np.array(np.nan))))


def test_a_detectable_drift_is_found_in_four_of_five_cases() -> None:
    """Two samples of 20,000 filters; the second population shifted until the drift is the detectable one."""
    rng = np.random.default_rng(2)
    law = gamma(60, scale=0.1 / 60)
    floor = Floor(np.array(law.mean()), np.array(law.ppf(0.95)))
    drift = float(detectable(floor, 0.05))
    # √D varies by as much as under the floor, about the root of both together.
    deviation = np.sqrt(law.rvs(100_000, random_state=rng)).std()
    observed = rng.normal(np.sqrt(drift + law.mean()), deviation, 100_000) ** 2
    assert (observed > law.ppf(0.95)).mean() == pytest.approx(0.8, abs=0.02)
    assert float(detectable(floor, 0.001)) > drift > 0
    assert np.isnan(detectable(Floor(np.array(np.nan), np.array(np.nan)), 0.05))


def test_p_values_of_a_matrix_are_fine_enough_for_all_its_pairs() -> None:
    """One of 28 pairs differs: with 1,000 permutations its p-value could not be small enough."""
    rng = np.random.default_rng(3)
    counts = np.concatenate([models(8, 20_000, rng) for _ in range(7)] + [models(8, 20_000, rng, 3.0)])
    statistic = SymmetricKL(counts, WHOLE, WEIGHTS)
    group = np.repeat(np.arange(8), 8)
    permuted = noise.model_floor(statistic, group, np.arange(64), 8, draws=200)
    pairs = np.triu_indices(8, 1)
    q = benjamini_yekutieli(permuted.p_value[pairs])
    assert permuted.reach[0, 1] == pytest.approx(2 / 12_870)
    assert (q[pairs[1] == 7] <= 0.05).all() and (q[pairs[1] < 7] > 0.05).all()


def test_the_largest_of_a_null_matrix_is_no_finding_and_a_shift_is() -> None:
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(6), 6)
    found = 0
    for trial in range(25):
        counts = models(36, 3_000, rng)
        if trial == 0:
            counts[30:] = models(6, 3_000, rng, 3.0)
        statistic = SymmetricKL(counts, WHOLE, WEIGHTS)
        p = largest.largest_p_values(statistic, group, np.arange(36), 6, np.arange(6))
        np.testing.assert_array_equal(p, p.T)
        assert np.isnan(np.diag(p)).all() and np.nanmin(p) >= 1 / (largest.PERMUTATIONS + 1)
        if trial == 0:
            assert (p[5, :5] <= 0.05).all() and (p[:5, :5][~np.eye(5, dtype=bool)] > 0.05).all()
        else:
            found += int(np.nanmin(p) <= 0.05)
    assert found <= 4  # of 24, expected 1.2


def test_units_in_several_groups_change_places_inside_themselves() -> None:
    group, unit = np.array([0, 1, 2, 0, 1, 2]), np.array([5, 5, 6, 7, 8, 8])
    labels = largest._permuted(group, unit)
    assert labels.shape == (largest.PERMUTATIONS + 1, 6) and (labels[0] == group).all()
    assert {tuple(sorted(row)) for row in labels[:, :2].tolist()} == {(0, 1)}
    assert {tuple(sorted(row)) for row in labels[:, 4:].tolist()} == {(1, 2)}
    assert {tuple(row) for row in labels[:, 2:4].tolist()} == {(0, 2), (2, 0)}
