"""The eigendecomposition against numpy.linalg.svd, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from sklearn.decomposition import PCA

from filterdb.numerics.eigen import decompose, fix_signs, principal_angles
from filterdb.numerics.moments import Moments
from tests.numerics import oracles


def states(values: np.ndarray) -> Moments:
    count, mean, m2 = oracles.moments(values)
    return Moments(np.array(count), mean, m2)


@pytest.mark.parametrize("n", [10, 500, 20_000])
def test_equals_the_full_rank_svd(n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.standard_normal((n, 9)) @ rng.standard_normal((9, 9)) + rng.standard_normal(9)
    found = decompose(states(values))
    components, singular, ratio = oracles.svd_pca(values)
    np.testing.assert_allclose(found.components, components, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.singular_values, singular, rtol=1e-9)
    np.testing.assert_allclose(found.explained_variance_ratio, ratio, rtol=1e-9)
    peer = PCA(svd_solver="full").fit(values)
    np.testing.assert_allclose(found.explained_variance, peer.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(found.components, peer.components_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 8])
def test_fewer_filters_than_weights(n: int) -> None:
    """Rank n − 1: the rest of the spectrum is 0, never negative; the components stay orthonormal."""
    found = decompose(states(np.random.default_rng(0).standard_normal((n, 9))))
    assert (found.explained_variance >= 0).all()
    np.testing.assert_allclose(found.singular_values[n - 1 :], 0, atol=1e-6)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(9), atol=1e-12)


def test_without_variance_all_ratios_are_zero() -> None:
    for values in (np.zeros((5, 9)), np.full((5, 9), 2.5), np.ones((1, 9))):
        found = decompose(states(values))
        assert not found.explained_variance_ratio.any()
        assert np.isfinite(found.components).all()


def test_sign_goes_by_the_largest_entry_and_ties_to_the_lowest_index() -> None:
    rows = np.zeros((3, 9))
    rows[0, [2, 5]] = [0.6, -0.8]
    rows[1, [1, 4]] = [-0.5, 0.5 * (1 + 1e-12)]  # a tie within 1e-9: index 1 decides
    rows[2, [1, 4]] = [-0.5, 0.5 * (1 + 1e-6)]  # no tie: index 4 decides
    signed = fix_signs(rows)
    np.testing.assert_array_equal(signed[0], -rows[0])
    np.testing.assert_array_equal(signed[1], -rows[1])
    np.testing.assert_array_equal(signed[2], rows[2])


def test_principal_angles_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.linalg.qr(rng.standard_normal((9, 9)))[0] for _ in range(2))
    expected = [scipy.linalg.subspace_angles(a[:k].T, b[:k].T)[0] for k in range(1, 9)]
    np.testing.assert_allclose(principal_angles(a, b), expected, atol=1e-12)
    assert principal_angles(a, a).max() < 1e-7


@pytest.mark.parametrize("sizes", [[9], [1, 8], [2, 3, 4], [1, 1, 2, 1, 4]], ids=str)
def test_equal_eigenvalues_give_the_same_components_whatever_rounding_does(sizes: list[int]) -> None:
    """Covariances that differ by rounding, or by a rotation within an eigenspace, have the same components."""
    rng = np.random.default_rng(len(sizes))
    vectors = np.linalg.qr(rng.standard_normal((9, 9)))[0]
    values = np.repeat(np.geomspace(1.0, 0.1, len(sizes)), sizes)
    covariance = vectors.T @ np.diag(values) @ vectors
    shaken = covariance + 1e-15 * rng.standard_normal((20, 9, 9))
    shaken = (shaken + np.swapaxes(shaken, -1, -2)) / 2
    many = Moments(np.full(20, 2), np.zeros((20, 9)), shaken)
    found = decompose(many)
    np.testing.assert_allclose(found.components, np.broadcast_to(found.components[0], (20, 9, 9)), rtol=0, atol=1e-13)
    for one, of in zip(found.components, shaken, strict=True):
        np.testing.assert_allclose(one @ one.T, np.eye(9), rtol=0, atol=1e-14)
        np.testing.assert_allclose(one @ of @ one.T, np.diag(values), rtol=0, atol=1e-13)


def test_separate_eigenvalues_keep_eighs_vectors() -> None:
    rng = np.random.default_rng(3)
    m2 = np.cov(rng.standard_normal((9, 200)))
    _, vectors = np.linalg.eigh(m2)
    found = decompose(Moments(np.array(2), np.zeros(9), m2))
    np.testing.assert_array_equal(found.components, fix_signs(vectors.T[::-1]))
