"""Every divergence against a double loop over scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance

from filterdb.numerics import divergence
from filterdb.numerics.histogram import bin_edges, paper_probabilities, sound_probabilities

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(RNG.gamma(1.0, 8.0, (6, 9, 70)))
EDGES = bin_edges(-2.0, 2.5)
WEIGHTS = RNG.dirichlet(np.ones(9))
P = sound_probabilities(COUNTS, COUNTS.sum(axis=0))


Distance = Callable[[np.ndarray, np.ndarray], float]


def double_loop(function: Distance) -> np.ndarray:
    groups = range(len(P))
    return np.array([[sum(WEIGHTS[k] * function(P[i, k], P[j, k]) for k in range(9)) for j in groups] for i in groups])


ORACLES: dict[str, Distance] = {
    "kl": lambda p, q: entropy(p, q) + entropy(q, p),
    "js": lambda p, q: jensenshannon(p, q) ** 2,
    "hellinger": lambda p, q: np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2),
    "wasserstein": lambda p, q: wasserstein_distance(EDGES[:-1], EDGES[:-1], p, q),
}

BLOCKS = {
    "kl": divergence.kl(P, WEIGHTS),
    "js": divergence.by_rows(P, WEIGHTS, divergence.jensen_shannon),
    "hellinger": divergence.by_rows(np.sqrt(P), WEIGHTS, divergence.of_roots),
    "wasserstein": divergence.by_rows(
        np.cumsum(P, axis=-1), WEIGHTS, lambda p, q: np.diff(EDGES)[0] * divergence.of_sums(p, q)
    ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_equals_the_double_loop(name: str) -> None:
    matrix = divergence.whole(len(P), BLOCKS[name])
    np.testing.assert_allclose(matrix, double_loop(ORACLES[name]), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (np.diag(matrix) == 0).all()


def test_frechet() -> None:
    means = RNG.standard_normal((4, 9))
    factors = RNG.standard_normal((4, 9, 9))
    covariances = factors @ np.swapaxes(factors, 1, 2)
    covariances[3] = 0  # a group without variance
    found = divergence.whole(4, divergence.frechet(means, covariances))
    for i in range(3):
        for j in range(3):
            cross = sqrtm(covariances[i] @ covariances[j]).real
            expected = ((means[i] - means[j]) ** 2).sum() + np.trace(covariances[i] + covariances[j] - 2 * cross)
            np.testing.assert_allclose(found[i, j], max(expected, 0) if i != j else 0, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found[0, 3], ((means[0] - means[3]) ** 2).sum() + np.trace(covariances[0]), rtol=1e-9)


def test_paper_probabilities_follow_the_authors_code() -> None:
    """Density, zeros to float32's epsilon, and scipy's entropy normalises."""
    data = RNG.standard_normal(500)
    density, edges = np.histogram(data, bins=70, range=(-5, 6), density=True)
    assert (density == 0).any()
    density[density == 0] = np.finfo(np.float32).eps
    counts, _ = np.histogram(data, bins=70, range=(-5, 6))
    np.testing.assert_allclose(paper_probabilities(counts, edges), density / density.sum(), rtol=1e-6)
    assert paper_probabilities(counts, edges).min() == pytest.approx(1.1920929e-07 / density.sum(), rel=1e-12)


def test_sound_probabilities_shrink_toward_the_whole() -> None:
    whole = COUNTS.sum(axis=0)
    prior = (whole + 0.5) / (whole.sum(axis=-1, keepdims=True) + 35)
    n = COUNTS.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(P, (COUNTS + 35 * prior) / (n + 35), rtol=1e-14)
    np.testing.assert_allclose(P.sum(axis=-1), 1, rtol=1e-12)
    assert (sound_probabilities(np.zeros((1, 9, 70)), whole) > 0).all()


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 100])
def test_blocks_of_any_size_make_the_same_matrix(size: int) -> None:
    for block in (BLOCKS["kl"], BLOCKS["js"]):
        matrix = np.full((6, 6), np.nan)
        means = divergence.fill(matrix, 6, block, size)
        np.testing.assert_allclose(matrix, divergence.whole(6, block), rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(np.diag(matrix), 0)
        np.testing.assert_allclose(means, matrix.mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 7, 300])
def test_a_matrix_is_reordered_in_place(groups: int) -> None:
    rng = np.random.default_rng(groups)
    matrix, order = rng.random((groups, groups)), rng.permutation(groups)
    expected = matrix[np.ix_(order, order)]
    np.testing.assert_array_equal(divergence.upper(matrix), matrix[np.triu_indices(groups, 1)])
    divergence.reorder(matrix, order)
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("groups", [2, 5, 300, 520])
def test_the_largest_pairs_are_those_of_a_stable_sort(groups: int) -> None:
    rng = np.random.default_rng(groups)
    matrix = rng.integers(0, 40, (groups, groups)).astype(float)  # with ties
    matrix[rng.random((groups, groups)) < 0.1] = np.nan
    rows, columns = np.triu_indices(groups, 1)
    order = np.argsort(-matrix[rows, columns], kind="stable")[:20]
    assert divergence.largest_pairs(matrix, 20) == list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))
