"""Sums of rows have the bits of a product with zeros and ones, as long as all numbers are whole."""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.numerics import row_sums, without_numba


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_are_those_of_a_product(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    states = rng.integers(0, 1_000, (50, 33)).astype(dtype)
    sets = rng.random((20, 50)) < rng.random((20, 1))
    sets[3] = False
    side, rows = np.nonzero(sets)
    bounds = np.searchsorted(side, np.arange(21))
    expected = sets.astype(dtype) @ states
    for loops in (row_sums, without_numba):
        sums = np.full((20, 33), np.nan, dtype)
        loops.add_rows(sums, states, rows, bounds)
        np.testing.assert_array_equal(sums, expected)


def test_only_sums_that_are_exact_count_as_such() -> None:
    whole = np.full((4, 3), 2.0**22, np.float32)
    assert row_sums.is_exact(whole[:3])
    assert not row_sums.is_exact(whole)
    assert row_sums.is_exact(whole.astype(np.float64))
    assert not row_sums.is_exact(whole[:1] / 2**23)
