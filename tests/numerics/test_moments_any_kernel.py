"""What follows from moments and histograms of filters of any shape, against SciPy: energies, angles, floors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn
from scipy.linalg import subspace_angles
from scipy.stats import entropy

from filterdb.numerics import eigen
from filterdb.numerics import layer as whole
from filterdb.numerics.divergence import symmetric_kl
from filterdb.numerics.eigen import decompose, variance_ratio
from filterdb.numerics.noise import sampling_floor
from filterdb.numerics.quality import variance_entropy
from filterdb.numerics.resampling import HistogramDivergence, SymmetricKL
from filterdb.numerics.sampling import SamplingFloor
from filterdb.numerics.spectrum import dct_energies, kept_energies

SIDES = st.tuples(st.integers(1, 16), st.integers(1, 16)).filter(lambda sides: 2 <= sides[0] * sides[1] <= 256)


def filters_of(kernel: tuple[int, int], number: int = 60) -> np.ndarray:
    rng = np.random.default_rng(kernel)
    weights = kernel[0] * kernel[1]
    drawn: np.ndarray = rng.standard_normal((number, weights)) @ rng.standard_normal((weights, weights)) + 0.3
    return drawn.astype(np.float32)


@given(kernel=SIDES)
@settings(max_examples=30, deadline=None)
def test_energies_are_those_of_scipys_dct(kernel: tuple[int, int]) -> None:
    filters = filters_of(kernel)
    coefficients = dctn(filters.reshape(-1, *kernel).astype(np.float64), axes=(1, 2), norm="ortho")
    expected = (coefficients.reshape(len(filters), -1) ** 2).mean(axis=0)
    energies = dct_energies(whole.moments(filters), kernel)
    np.testing.assert_allclose(energies, expected, rtol=1e-9, atol=1e-12 * expected.sum())


@pytest.mark.parametrize(("kernel", "strides", "dilations"), [((5, 5), (2, 2), (1, 1)), ((1, 7), (1, 3), (1, 2))])
def test_kept_energies_are_those_of_the_fourier_transform(
    kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> None:
    """The mean of |F(ω)|² over frequencies, on a grid of a zero-padded and dilated filter."""
    filters = filters_of(kernel, 20)
    grid = 720
    spread = np.zeros(
        (len(filters), *(dilation * (side - 1) + 1 for side, dilation in zip(kernel, dilations, strict=True)))
    )
    spread[:, :: dilations[0], :: dilations[1]] = filters.reshape(-1, *kernel)
    power = (np.abs(np.fft.fft2(spread, (grid, grid))) ** 2).mean(axis=0) / grid**2
    frequency = np.abs(np.fft.fftfreq(grid))
    rows, columns = (
        np.where(frequency < 0.5 / s - 1e-9, 1.0, np.where(frequency < 0.5 / s + 1e-9, 0.5, 0.0)) for s in strides
    )
    kept = float(rows @ power @ columns)
    assert float(kept_energies(whole.moments(filters), strides, dilations, kernel)) == pytest.approx(kept, rel=1e-3)


@given(kernel=SIDES.filter(lambda sides: sides[0] * sides[1] <= 64))
@settings(max_examples=15, deadline=None)
def test_pca_and_entropy_are_those_of_numpy(kernel: tuple[int, int]) -> None:
    filters = filters_of(kernel, 200).astype(np.float64)
    centred = filters - filters.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    states = whole.moments(filters.astype(np.float32))
    basis = decompose(states)
    np.testing.assert_allclose(basis.singular_values, values, rtol=1e-6, atol=1e-7 * values[0])
    rebuilt = (basis.components.T * basis.singular_values**2) @ basis.components
    np.testing.assert_allclose(rebuilt, centred.T @ centred, rtol=0, atol=1e-9 * values[0] ** 2)
    assert float(variance_entropy(variance_ratio(states))) == pytest.approx(entropy(values**2, base=10), abs=1e-9)


@pytest.mark.parametrize("weights", [2, 5, 25])
def test_principal_angles_are_those_of_scipy(weights: int) -> None:
    rng = np.random.default_rng(weights)
    a, b = (np.linalg.qr(rng.standard_normal((weights, weights)))[0] for _ in range(2))
    expected = [subspace_angles(a[:k].T, b[:k].T).max() for k in range(1, min(weights, eigen.DIMENSIONS + 1))]
    np.testing.assert_allclose(eigen.principal_angles(a, b), expected, atol=1e-7)


def test_angles_between_large_subspaces_are_left_out() -> None:
    identity = np.eye(80)
    assert eigen.principal_angles(identity, identity).tolist() == [0.0] * eigen.DIMENSIONS


@pytest.mark.parametrize("weights", [2, 25])
def test_drift_and_its_floor(weights: int) -> None:
    """The drift is the plain double sum; the floor by formula is the mean of multinomial draws."""
    rng = np.random.default_rng(weights)
    shares = rng.dirichlet(np.full(70, 2.0), weights)
    counts = np.stack([[rng.multinomial(n, share) for share in shares] for n in (4_000, 9_000)])
    importance = rng.dirichlet(np.ones(weights))
    total = counts.sum(axis=0)
    prior = (total + 0.5) / (total.sum(axis=1, keepdims=True) + 35)
    p, q = (counts + 35 * prior) / (counts.sum(axis=2, keepdims=True) + 35)
    plain = sum(importance[k] * ((p[k] - q[k]) * np.log(p[k] / q[k])).sum() for k in range(weights))
    assert float(symmetric_kl(p, q) @ importance) == pytest.approx(plain, rel=1e-12)
    statistic = SymmetricKL(counts, total, importance)
    assert float(statistic.pairs(statistic.states[:1].copy(), statistic.states[1:].copy())[0]) == pytest.approx(
        plain, rel=1e-5
    )
    drawn = sampling_floor(HistogramDivergence(counts, total, importance, symmetric_kl, is_square=True), draws=2_000)
    floor = SamplingFloor(total, importance).matrix(counts)
    assert floor.mean[0, 1] == pytest.approx(drawn.mean[0, 1], rel=0.05)
    assert floor.q95[0, 1] == pytest.approx(drawn.q95[0, 1], rel=0.1)
