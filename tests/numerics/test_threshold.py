"""The fit against SciPy's, the layers drawn against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit, least_squares

from filterdb.numerics.quality import P1, Sigmoid, randomness_threshold, variance_entropy
from filterdb.numerics.threshold import INITS, channels, fit, smallest_entropy

SIZES = [2**i for i in range(1, 15)]


def test_an_exact_sigmoid_is_found_again() -> None:
    for wanted in (P1, Sigmoid(2.0, 0.5, 1.0, -1.0), Sigmoid(0.8, 2.5, 6.0, 0.1)):
        found = fit(SIZES, randomness_threshold(np.array(SIZES), wanted))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_the_fit_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noisy = randomness_threshold(np.array(SIZES)) + rng.normal(0, 0.01, len(SIZES))

    def curve(x: np.ndarray, span: float, rate: float, centre: float, offset: float) -> np.ndarray:
        return span / (1 + np.exp(-rate * (x - centre))) + offset

    expected, _ = curve_fit(curve, np.log2(SIZES), noisy, p0=list(P1), maxfev=50_000, xtol=1e-12, ftol=1e-12)
    np.testing.assert_allclose(fit(SIZES, noisy), expected, rtol=1e-3, atol=1e-4)
    left = [float(((noisy - curve(np.log2(SIZES), *one)) ** 2).sum()) for one in (fit(SIZES, noisy), expected)]
    assert left[0] <= left[1] * (1 + 1e-9)


@pytest.mark.parametrize("entropy", [np.zeros(14), np.linspace(0, 1, 14), np.repeat([0.0, 1.0], 7), -np.ones(14)])
def test_what_is_no_sigmoid_ends(entropy: np.ndarray) -> None:
    """Flat, straight or with a jump: some finite curve, as near as it gets."""
    found = fit(SIZES, entropy)
    assert np.isfinite(found).all()
    assert np.abs(randomness_threshold(np.array(SIZES), found) - entropy).max() < 0.05


@pytest.mark.parametrize("init", ["normal", "kaiming", "uniform", "orthogonal"])
@pytest.mark.parametrize("filters", [2, 18, 256, 300])
def test_moments_are_those_of_layers(init: str, filters: int) -> None:
    """Symmetric, of rank min(n − 1, 9), on average (n − 1)·variance of a weight on the diagonal."""
    draws = 4_000
    m2 = INITS[init](filters, draws, np.random.default_rng(filters))
    assert m2.shape == (draws, 9, 9)
    np.testing.assert_allclose(m2, np.swapaxes(m2, 1, 2), atol=1e-9)
    assert (np.linalg.matrix_rank(m2[:50], tol=1e-8 * m2.max()) == min(filters - 1, 9)).all()
    out, into = channels(filters)
    variance = {"uniform": 1 / 3, "orthogonal": 1 / max(out, into * 9)}.get(init, 1.0)
    diagonal = np.diagonal(m2, axis1=1, axis2=2).mean()
    # An orthonormal layer's filters are not independent: their mean is further from zero, or nearer, by a trifle.
    assert diagonal == pytest.approx((filters - 1) * variance, rel=0.03 if init != "orthogonal" else 0.1)


def test_large_normal_layers_are_those_drawn_whole() -> None:
    """Above 256 filters only the covariance is drawn: the entropies have one distribution (Kolmogorov–Smirnov)."""
    rng = np.random.default_rng(0)
    layers = rng.standard_normal((2_000, 300, 9))
    layers -= layers.mean(axis=1, keepdims=True)
    entropies = []
    for m2 in (np.swapaxes(layers, 1, 2) @ layers, INITS["normal"](300, 2_000, rng)):
        values = np.linalg.eigvalsh(m2)
        entropies.append(variance_entropy(values / values.sum(axis=1, keepdims=True)))
    assert stats.ks_2samp(*entropies).pvalue > 0.01


def test_orthogonal_layers_are_orthogonal() -> None:
    """Seen through the moments: with 9·in rows and more the uncentred second moment is the identity on each channel."""
    rng = np.random.default_rng(1)
    m2 = INITS["orthogonal"](97, 50, rng)  # prime: 97 output channels of one input channel, orthonormal columns
    values = np.linalg.eigvalsh(m2)
    # Centring takes one direction's share away, the other eight keep theirs.
    np.testing.assert_allclose(values[:, 1:], 1.0, atol=1e-9)
    assert (values[:, 0] < 1).all()


@pytest.mark.parametrize("filters", [1, 2, 7, 12, 97, 128, 4096])
def test_channels(filters: int) -> None:
    out, into = channels(filters)
    assert out * into == filters and out >= into
    assert not any(filters % i == 0 for i in range(into + 1, int(filters**0.5) + 1))


def test_smallest_entropy_is_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all batches, whatever their size."""
    from filterdb.numerics import threshold

    rng = np.random.default_rng(5)
    layers = rng.standard_normal((30, 20, 9))
    expected = min(_entropy(layer) for layer in layers)
    assert smallest_entropy("normal", 20, 30, np.random.default_rng(5)) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(threshold, "BATCH", 7 * 20 * 9)
    assert smallest_entropy("normal", 20, 30, np.random.default_rng(5)) == pytest.approx(expected, rel=1e-12)
    assert smallest_entropy("uniform", 2, 5, rng) == pytest.approx(0, abs=1e-12)


def _entropy(layer: np.ndarray) -> float:
    singular = np.linalg.svd(layer - layer.mean(axis=0), compute_uv=False)
    return float(stats.entropy(singular**2 / (singular**2).sum(), base=10))


@pytest.mark.parametrize("weights", [3, 25, 49])
def test_the_fit_is_scipys_for_other_kernels(weights: int) -> None:
    """To entropies of drawn layers of K weights, from many starting points of SciPy's."""
    rng = np.random.default_rng(weights)
    sizes = np.array([2**i for i in range(1 + max(round(np.log2(weights / 9)), 0), 15)])
    entropy = np.array([smallest_entropy("normal", int(size), 20, rng, weights) for size in sizes])

    def residual(constants: np.ndarray) -> np.ndarray:
        left: np.ndarray = randomness_threshold(sizes, Sigmoid(*constants)) - entropy
        return left

    starts = [(span, rate, centre, entropy[0]) for span in (0.5, 2) for rate in (0.4, 1) for centre in (2, 4, 6)]
    best = min(least_squares(residual, start, xtol=1e-12, ftol=1e-12, gtol=1e-12).cost for start in starts)
    found = fit(sizes, entropy, weights)
    assert 0.5 * (residual(np.array(found)) ** 2).sum() <= best * (1 + 1e-6)
    assert np.abs(residual(np.array(found))).max() < 0.12
    assert entropy[-1] == pytest.approx(np.log10(weights), abs=0.02)
