"""The compiled sums over aligned layers have the bits of NumPy's; groups are summed as `np.add.at` sums them."""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.numerics import alignment, histogram


def side(rng: np.random.Generator, layers: int) -> alignment.Side:
    """Layers of models 0 … layers − 1, some of them without weights."""
    square = rng.random(layers) * (rng.random(layers) < 0.8)
    content = rng.integers(0, 3, layers)
    return alignment.Side(np.arange(layers), square, np.sqrt(square), rng.random(layers), content)


@pytest.mark.parametrize("number", [alignment.OF_COSINES, alignment.ALL])
def test_sums_of_pairs(number: int) -> None:
    rng = np.random.default_rng(number)
    sums = np.zeros((number, 5, 7))
    expected = np.zeros((alignment.ALL, 5, 7))
    for _ in range(3):
        left, right, weight = side(rng, 5), side(rng, 7), float(rng.random())
        products = rng.standard_normal((5, 7))
        alignment.add_pairs(sums, products, left, right, weight)
        is_same = left.content[:, None] == right.content
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine = np.where(is_same, 1.0, products / np.outer(left.length, right.length))
        expected += [
            weight * cosine,
            weight * np.sqrt(np.outer(left.isotropic, right.isotropic)),
            np.full((5, 7), weight),
            np.ones((5, 7)),
            np.maximum(left.square[:, None] + right.square - 2 * products, 0),
            np.broadcast_to(left.square[:, None], (5, 7)),
            np.broadcast_to(right.square, (5, 7)),
        ]
    np.testing.assert_array_equal(sums, expected[:number])


@pytest.mark.parametrize("dtype", ["int8", "int64", "float64"])
def test_sums_of_groups(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values, group = (100 * rng.random((500, 3, 2))).astype(dtype), rng.integers(0, 9, 500)
    group[group == 4] = 5  # a group without rows
    expected = np.zeros((9, 3, 2), np.float64 if dtype == "float64" else np.int64)
    np.add.at(expected, group, values)
    monkeypatch.setattr(histogram, "SUMMED_ROWS", 60)
    totals = histogram.sum_groups(values, group, 9)
    assert totals.dtype == expected.dtype
    np.testing.assert_array_equal(totals, expected)
