"""Sketches against a naive twin in plain Python; distances and cosines as close to the weights' as promised."""

from __future__ import annotations

import numpy as np
import pytest

from filterdb.numerics import sketch

MASK = 2**64 - 1


def splitmix(number: int) -> int:
    """SplitMix64 of a number, started at the seed, in Python's integers."""
    state = ((number + 1) * 0x9E3779B97F4A7C15 + sketch.SEED) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def naive(filters: np.ndarray, first: int = 0) -> np.ndarray:
    """The sketch of filters (n, 9), weight by weight."""
    sums = np.zeros(128)
    for number, weights in enumerate(filters, first):
        buckets, signs = splitmix(2 * number), splitmix(2 * number + 1)
        for j, weight in enumerate(weights):
            sums[(buckets >> 7 * j) % 128] += -float(weight) if signs >> j & 1 else float(weight)
    return sums


def as_first_written(filters: np.ndarray, first: int = 0) -> np.ndarray:
    """The sketch by NumPy in the order of the first version, whose bytes stored sketches have."""
    sums = np.zeros(128)
    with np.errstate(over="ignore"):
        for start in range(0, len(filters), 65_536):
            part = filters[start : start + 65_536]
            number = np.arange(first + start, first + start + len(part), dtype=np.uint64)
            buckets, signs = hashed(2 * number), hashed(2 * number + np.uint64(1))
            for j in range(9):
                code = ((buckets >> np.uint64(7 * j)) % 128 + 128 * ((signs >> np.uint64(j)) & np.uint64(1))).astype(
                    int
                )
                counted = np.bincount(code, part[:, j], 256)
                sums += counted[:128] - counted[128:]
    return sums


def hashed(number: np.ndarray) -> np.ndarray:
    """SplitMix64 of each number, in NumPy's integers."""
    state = (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(sketch.SEED)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = state ^ (state >> np.uint64(31))
    return mixed


def sketched(filters: np.ndarray, first: int = 0) -> np.ndarray:
    sums, ends = np.zeros((1, 128)), np.array([[0], [len(filters)], [first]])
    sketch.add(sums, np.ascontiguousarray(filters.T), *ends)
    row: np.ndarray = sums[0]
    return row


@pytest.mark.parametrize("first", [0, 7, 3_000_000_000])
def test_sums_are_those_of_plain_python(first: int) -> None:
    filters = np.random.default_rng(0).standard_normal((211, 9)).astype(np.float32)
    np.testing.assert_allclose(sketched(filters, first), naive(filters, first), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "first"), [(1, 0), (65_536, 3), (70_001, 0), (140_000, 5_000_000_000)])
def test_sums_have_the_bytes_of_the_first_version(size: int, first: int) -> None:
    filters = np.random.default_rng(size).standard_normal((size, 9)).astype(np.float32)
    np.testing.assert_array_equal(sketched(filters, first), as_first_written(filters, first))


def test_runs_are_sketched_apart() -> None:
    filters = np.random.default_rng(1).standard_normal((500, 9)).astype(np.float32)
    parts = sketched(filters[:123]) + sketched(filters[123:], 123)
    np.testing.assert_allclose(parts, sketched(filters), rtol=0, atol=1e-12)
    sums = np.ones((3, 128))
    starts, stops, firsts = np.array([10, 200, 200]), np.array([200, 200, 480]), np.array([40, 5, 0])
    sketch.add(sums, np.ascontiguousarray(filters.T), starts, stops, firsts)
    for row, start, stop, first in zip(sums, starts, stops, firsts, strict=True):
        np.testing.assert_allclose(row - 1, sketched(filters[start:stop], int(first)), rtol=0, atol=1e-12)


def test_repeated_filters() -> None:
    filters = np.random.default_rng(2).standard_normal((5, 9)).astype(np.float32)
    sizes = np.array([70, 3, 70, 200, 70_000])
    expected = [as_first_written(np.tile(row, (size, 1))) for row, size in zip(filters, sizes.tolist(), strict=True)]
    np.testing.assert_allclose(sketch.of_repeated(filters.astype(float), sizes), expected, rtol=0, atol=1e-9)
    assert sketch.of_repeated(np.empty((0, 9)), np.empty(0, np.int64)).shape == (0, 128)


def test_distances_and_cosines() -> None:
    """Of 300 pairs: distances within 20 % with a standard deviation of 6 to 7 %, cosines of strangers about 0.09."""
    rng = np.random.default_rng(3)
    errors, cosines = [], []
    for _ in range(300):
        one, other = rng.standard_normal((2, 256, 9)).astype(np.float32)
        a, b = sketched(one), sketched(other)
        errors.append(np.linalg.norm(a - b) / np.linalg.norm(one - other) - 1)
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert 0.05 < np.std(errors) < 0.075
    assert abs(np.mean(errors)) < 0.01
    assert 0.075 < np.std(cosines) < 0.105
