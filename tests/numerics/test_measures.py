"""The measures of a layer against whole-array formulas, and against the loops that databases use."""

from __future__ import annotations

import math

import numpy as np
import pytest

from filterdb.numerics import layer, measures
from filterdb.numerics.eigen import variance_ratio
from filterdb.numerics.quality import variance_entropy
from filterdb.numerics.sphericity import p_value


def filters(kernel: tuple[int, int], number: int = 500) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 0.05, (number, kernel[0] * kernel[1])) * 10.0 ** rng.uniform(-3, 0, (number, 1))
    return values.astype(np.float32)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 2), (2, 4), (7, 7)])
@pytest.mark.parametrize("block", [100, 147_456])
def test_measures_equal_formulas(kernel: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "BLOCK", block)
    values = filters(kernel)
    result = measures.measure(values, kernel)
    exact = values.astype(np.float64)
    peaks = np.abs(exact).max(axis=1)
    assert result.filters == 500
    assert result.sparsity == np.mean(peaks < peaks.max() / 100) > 0
    assert result.norm == pytest.approx(np.linalg.norm(exact), rel=1e-14)
    centre = exact.reshape(-1, *kernel)[:, kernel[0] // 2, kernel[1] // 2]
    assert result.centre_energy == pytest.approx((centre**2).sum() / (exact**2).sum(), rel=1e-13)
    shares = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False) ** 2
    shares /= shares.sum()
    assert result.variance_entropy == pytest.approx(-(shares * np.log10(shares)).sum(), rel=1e-11)
    raw, scaled = layer.moments(values), layer.moments(values, layer.filter_peaks(values))
    assert result.variance_entropy == pytest.approx(float(variance_entropy(variance_ratio(raw))), rel=1e-12)
    assert result.p_value == pytest.approx(float(p_value(scaled)), rel=1e-9)


def test_equal_filters_have_no_spread() -> None:
    result = measures.measure(np.full((99, 9), 0.1, np.float32), (3, 3))
    assert (result.variance_entropy, result.sparsity) == (0.0, 0.0)
    assert result.centre_energy == pytest.approx(1 / 9)


def test_a_large_first_filter_costs_no_digits() -> None:
    """Sums about the first filter would lose them."""
    values = filters((3, 3), 60_000)
    values[0] = 1e4
    exact = np.cov(values.astype(np.float64), rowvar=False)
    result = measures.measure(values, (3, 3))
    shares = np.linalg.eigvalsh(exact) / np.trace(exact)
    assert result.variance_entropy == pytest.approx(
        -(shares[shares > 0] * np.log10(shares[shares > 0])).sum(), abs=1e-7
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_have_no_numbers(bad: float) -> None:
    values = filters((3, 3))
    values[7, 3] = bad
    result = measures.measure(values, (3, 3))
    assert result.filters == 500 and all(math.isnan(number) for number in result[1:])


def test_an_all_zero_layer() -> None:
    result = measures.measure(np.zeros((32, 9), np.float32), (3, 3))
    assert (result.sparsity, result.variance_entropy, result.norm) == (1.0, 0.0, 0.0)
    assert math.isnan(result.p_value) and math.isnan(result.centre_energy)
    assert layer.norm(np.zeros((32, 1), np.float32)) == 0.0


def test_the_norm_of_single_weights() -> None:
    values = filters((1, 2), 300_000)[:, :1]
    assert layer.norm(values) == pytest.approx(np.linalg.norm(values.astype(np.float64)), rel=1e-13)
    assert math.isnan(layer.norm(np.array([[np.nan]], np.float32)))
