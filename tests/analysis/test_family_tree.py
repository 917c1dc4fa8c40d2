"""Family trees, the joint test of a model's layers and the threshold of kinship, against networkx and SciPy."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from scipy.stats import combine_pvalues, norm

from filterdb.analysis.family_tree import toward_root
from filterdb.analysis.kinship import Kinship, _initial


def kin(models: int) -> Kinship:
    square = np.zeros((models, models))
    counts = np.zeros((models, models), np.int32)
    return Kinship(square, square, square, counts, counts, counts > 0, np.zeros(models, bool))


def some_family(seed: int, models: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of models, of which the first eight are related in a ring at least."""
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-0.2, 1, (models, models))
    similarity = (similarity + similarity.T) / 2
    related = np.triu(rng.random((models, models)) < 0.4, 1)
    related[np.arange(7), np.arange(1, 8)] = True
    related[8, :] = related[:, 8] = False
    return similarity, related | related.T


@pytest.mark.parametrize("seed", range(5))
def test_the_tree_is_the_maximum_spanning_tree(seed: int) -> None:
    similarity, related = some_family(seed)
    initial = np.zeros(9, bool)
    initial[[2, 5]] = True
    parents = toward_root(similarity, related, initial, [set(range(8))])
    graph = networkx.Graph()
    graph.add_weighted_edges_from((i, j, similarity[i, j]) for i, j in zip(*np.nonzero(related), strict=True))
    expected = networkx.maximum_spanning_tree(graph)
    edges = {frozenset((i, int(parent))) for i, parent in enumerate(parents) if parent >= 0}
    assert edges == {frozenset(map(int, edge)) for edge in expected.edges}
    total = np.where(related, similarity, 0).sum(axis=1)
    root = 2 if total[2] <= total[5] else 5
    assert parents[root] == parents[8] == -1
    for model in set(range(8)) - {root}:
        assert parents[model] == networkx.shortest_path(expected, model, root)[1]


def test_without_an_initialisation_the_root_is_the_most_similar_model() -> None:
    similarity = np.full((4, 4), 0.5)
    similarity[1, :] = similarity[:, 1] = 0.8
    parents = toward_root(similarity, ~np.eye(4, dtype=bool), np.zeros(4, bool), [{0, 1, 2, 3}])
    assert parents.tolist() == [1, -1, 1, 1]


def test_models_that_share_layers_but_no_place_are_joined() -> None:
    related = np.array([[False, True], [True, False]])
    assert toward_root(np.full((2, 2), np.nan), related, np.zeros(2, bool), [{0, 1}]).tolist() == [-1, 0]


def test_layers_are_joined_by_fishers_method() -> None:
    rng = np.random.default_rng(0)
    owner, sizes = np.repeat(np.arange(60), 5), np.tile([64, 4_096, 63, 128, 200], 60)
    p_values = rng.uniform(0, 1, 300) ** np.repeat(rng.uniform(0.5, 4, 60), 5)
    p_values[:5] = [0.0, 1.0, 0.5, 0.5, 0.5]
    p_values[5:10] = np.nan
    initial = _initial(p_values, owner, sizes, 61)
    for model in range(2, 60):
        large = p_values[owner == model][[0, 1, 3, 4]]
        assert initial[model] == (combine_pvalues(large).pvalue > 0.01)
    assert 5 < initial.sum() < 55
    assert not initial[[0, 1, 60]].any()  # a layer that is no noise; no p-values; no layers


@pytest.mark.parametrize(("models", "expected"), [(2, 4.0), (25, 4.0), (5_000, None), (300, None)])
def test_the_threshold_allows_one_false_family_in_a_hundred_databases(models: int, expected: float | None) -> None:
    pairs = models * (models - 1) / 2
    assert kin(models).threshold == pytest.approx(norm.isf(0.01 / pairs) if expected is None else expected, rel=1e-6)
