"""The test of 1×1 layers: against scipy, on initialisations, on weights that are no noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, chi2, ortho_group

from filterdb.numerics.layer import filter_peaks, moments
from filterdb.numerics.pointwise import LONGEST, channel_p_value, number_of_runs, run_length
from filterdb.numerics.sphericity import freedom, statistic


def as_filters(weight: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(weight.reshape(-1, 1), np.float32)


def test_runs_have_equal_length_and_leave_few_channels_over() -> None:
    inside = np.arange(2, 2_000)
    length, runs = run_length(inside), number_of_runs(inside)
    assert (length <= LONGEST).all() and (length >= 2).all()
    assert (inside - length * runs < runs).all() and (runs == np.ceil(inside / LONGEST)).all()


@pytest.mark.parametrize(("out", "inside"), [(64, 20), (128, 96)])
def test_p_value_equals_scipy(out: int, inside: int) -> None:
    """The runs of channels are filters of as many weights, and 1 − p is χ² of their statistic, in the limit of many."""
    weight = np.random.default_rng(0).normal(size=(out, inside)).astype(np.float32)
    length = int(run_length(inside))
    rows = np.concatenate([weight[:, i : i + length] for i in range(0, inside, length)])
    q = float(statistic(moments(rows, filter_peaks(rows))))
    scaled = rows.astype(np.float64) / np.abs(rows).max(axis=1, keepdims=True)
    second = scaled.T @ scaled / len(rows)
    departure = second / np.trace(second) - np.eye(length) / length
    assert 0.5 < q / (len(rows) * length**2 / 2 * (departure**2).sum()) < 2
    assert channel_p_value(as_filters(weight), out) == pytest.approx(chi2.sf(q, freedom(length)), abs=0.03)


@pytest.mark.parametrize("inside", [8, 96])
@pytest.mark.parametrize("kind", ["normal", "uniform", "scaled channels"])
def test_initialisations_are_rejected_as_often_as_stated(kind: str, inside: int) -> None:
    rng, trials = np.random.default_rng(inside), 200
    rejected = 0
    for _ in range(trials):
        weight = rng.uniform(-1, 1, (64, inside)) if kind == "uniform" else rng.normal(size=(64, inside))
        if kind == "scaled channels":  # as a folded batch normalisation leaves them
            weight *= rng.lognormal(0, 1, (64, 1))
        rejected += channel_p_value(as_filters(weight), 64) < 0.01
    assert binom.sf(rejected - 1, trials, 0.02) > 1e-4, rejected


def test_orthogonal_channels_are_noise_and_structured_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(128, 64))
    assert channel_p_value(as_filters(ortho_group.rvs(128, random_state=2)[:, :64]), 128) > 0.001
    for weight in (
        noise * rng.lognormal(0, 0.3, 64),  # input channels that matter more or less
        noise + 0.3 * rng.normal(size=64),  # a mean
        noise @ (np.eye(64) + 0.1 * rng.normal(size=(64, 64))),  # input channels that go together
    ):
        assert channel_p_value(as_filters(weight), 128) < 1e-6


def test_what_cannot_be_tested() -> None:
    weight = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    assert np.isfinite(channel_p_value(as_filters(weight), 32))
    assert np.isnan(channel_p_value(as_filters(np.zeros_like(weight)), 32))
    assert np.isnan(channel_p_value(as_filters(weight[:, :1]), 32))  # one input channel
    assert np.isnan(channel_p_value(as_filters(weight[:8]), 8))  # eight runs
    assert np.isnan(channel_p_value(weight.reshape(-1, 2), 32))  # filters of two weights
    weight[0, 0] = np.inf
    assert np.isnan(channel_p_value(as_filters(weight), 32))
