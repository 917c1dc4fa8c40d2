"""Run-length arrays index and calculate as NumPy does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from filterdb.store.run_length import RunLengthArray, Runs


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        slice(2, 8),
        slice(None, None, -3),
        slice(5, 2),
        [0, -1, 5, 5],
        [],
        np.arange(10) % 3 == 0,
        [[1, 2], [9, 0]],
    ],
    ids=str,
)
def test_run_lengths_index_as_numpy_does(key: Any) -> None:
    array = RunLengthArray(Runs(np.array([0, 2, 3, 10]), np.array([1, 0, 2])), np.array(["a", "b", "c"], object))
    plain = np.array(list("bbaccccccc"), object)
    if isinstance(key, list):
        key = np.array(key, int)
    np.testing.assert_array_equal(np.asarray(array[key]), plain[key])
    np.testing.assert_array_equal(np.asarray(array[key, ...]), plain[key, ...])
    np.testing.assert_array_equal(np.asarray(array == "c")[key], (plain == "c")[key])


def test_run_lengths_calculate_as_numpy_does() -> None:
    numbers = RunLengthArray(Runs(np.array([0, 2, 3, 10]), np.array([1, 0, 2])), np.array([1.5, -2.0, 4.0]))
    others = RunLengthArray(Runs(np.array([0, 5, 10]), np.array([1, 0])), np.array([7, 8]))
    a, b = np.asarray(numbers), np.asarray(others)
    for result, expected in (
        (numbers + 1, a + 1),
        (1 / numbers, 1 / a),
        (-numbers, -a),
        (abs(numbers) > 1.6, abs(a) > 1.6),
        (numbers * others, a * b),
        (numbers + b, a + b),
        (np.add.reduce(numbers), np.add.reduce(a)),
        (np.divmod(numbers, 2)[1], np.divmod(a, 2)[1]),
        (np.concatenate([numbers, others]), np.concatenate([a, b])),
        (np.concatenate([numbers, b]), np.concatenate([a, b])),
        (np.nonzero(numbers > 0)[0], np.nonzero(a > 0)[0]),
        (np.isin(numbers, [4.0, 9.0]), np.isin(a, [4.0, 9.0])),
        (np.isin(numbers, [4.0], invert=True), np.isin(a, [4.0], invert=True)),
        (np.where(numbers > 0, numbers, 0), np.where(a > 0, a, 0)),
        (np.add(numbers, 1, where=a > 0, out=np.zeros(10)), np.add(a, 1, where=a > 0, out=np.zeros(10))),
        (numbers.mean(), a.mean()),
        (numbers.astype("f4"), a.astype("f4")),
        (numbers[:, None] * np.ones(2), a[:, None] * np.ones(2)),
        (np.result_type(numbers, others), np.result_type(a, b)),
    ):
        np.testing.assert_array_equal(np.asarray(result), expected)
