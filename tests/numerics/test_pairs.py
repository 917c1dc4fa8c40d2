"""Distinct pairs are those of NumPy, in its order."""

from __future__ import annotations

import numpy as np

from filterdb.numerics.pairs import distinct_pairs


def test_pairs_are_those_of_unique_rows() -> None:
    first, second = np.random.default_rng(0).integers(0, [[30], [7]], (2, 500))
    expected, of_row = np.unique(np.stack([first, second]), axis=1, return_inverse=True)
    pairs = distinct_pairs(first, second)
    np.testing.assert_array_equal([pairs.first, pairs.second], expected)
    np.testing.assert_array_equal(pairs.of_row, of_row.reshape(-1))
    assert len(distinct_pairs(first[:0], second[:0]).first) == 0
