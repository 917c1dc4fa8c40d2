"""A whole layer's numbers against plain NumPy and plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.numerics import layer


@pytest.mark.parametrize("block", [1, 7, 65_536])
def test_moments_equal_the_covariance(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "BLOCK", block)
    values = np.random.default_rng(0).normal(1e3, 1e-2, (200, 9)).astype(np.float32)
    found = layer.moments(values)
    assert found.count == 200
    np.testing.assert_allclose(found.mean, values.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(values.astype(np.float64), rowvar=False), rtol=1e-6, atol=1e-12)
    assert not layer.moments(np.full((99, 9), 0.1, np.float32)).m2.any()


def test_sparse_is_strictly_below_a_hundredth() -> None:
    filters = np.zeros((4, 9), np.float32)
    filters[0, 3], filters[1, 8], filters[2, 0] = -100, 1, -0.999
    np.testing.assert_array_equal(layer.sparse_filters(filters, 100.0), [False, False, True, True])
    assert layer.sparse_filters(filters[3:], 0.0).all()


@pytest.mark.parametrize("block", [5, 65_536])
def test_repeated_filters_equal_a_dictionary(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "BLOCK", block)
    rng = np.random.default_rng(1)
    filters = rng.integers(-1, 2, (3_000, 9)).astype(np.float32) * np.float32(0.1)
    filters[::7] *= -1  # zeros of both signs
    seen: set[tuple[float, ...]] = set()
    expected = []
    for row in filters.tolist():
        expected.append(tuple(row) in seen)
        seen.add(tuple(row))
    np.testing.assert_array_equal(layer.repeated_filters(filters), expected)
    assert 0 < sum(expected) < 3_000
    assert not layer.repeated_filters(rng.normal(size=(500, 9)).astype(np.float32)).any()


def test_equal_hashes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hash that is always the same nothing is called equal that is not."""
    monkeypatch.setattr(layer, "_FACTORS", np.zeros(9, np.uint64))
    filters = np.arange(36, dtype=np.float32).reshape(4, 9)
    filters[2] = filters[0]
    np.testing.assert_array_equal(layer.repeated_filters(filters), [False, False, True, False])
