"""Average linkage against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from filterdb.numerics.linkage import Linkage, average_linkage


def members(steps: Linkage) -> list[frozenset[int]]:
    """Return the items of the cluster of each step."""
    n = len(steps.left) + 1
    clusters = [frozenset([item]) for item in range(n)]
    for left, right in zip(steps.left, steps.right, strict=True):
        clusters.append(clusters[left] | clusters[right])
    return clusters[n:]


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_clusters_are_those_of_scipy(n: int, seed: int) -> None:
    distances = np.random.default_rng(seed).random((n, n))
    distances = distances + distances.T
    np.fill_diagonal(distances, 0.0)
    expected = linkage(squareform(distances), "average")
    result = average_linkage(distances)
    np.testing.assert_allclose(result.distance, expected[:, 2], rtol=1e-12)
    pairs = expected[:, :2].astype(int)
    assert members(result) == members(Linkage(pairs[:, 0], pairs[:, 1], expected[:, 2]))


def test_the_left_cluster_comes_first() -> None:
    """Items in two distant pairs; the order of the items decides which side a cluster is on."""
    at = np.array([10.0, 0.0, 10.5, 1.0])
    result = average_linkage(np.abs(at[:, None] - at))
    assert result.left.tolist() == [0, 1, 4]
    assert result.right.tolist() == [2, 3, 5]
    assert result.distance.tolist() == [0.5, 1.0, 9.75]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_join(n: int) -> None:
    assert [len(column) for column in average_linkage(np.zeros((n, n)))] == [0, 0, 0]


def test_unknown_distances_count_as_the_largest() -> None:
    distances = np.array([[0.0, 1.0, np.nan], [1.0, 0.0, 2.0], [np.nan, 2.0, 0.0]])
    assert average_linkage(distances).distance.tolist() == [1.0, 2.0]
