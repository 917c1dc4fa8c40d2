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


def sketched(filters: np.ndarray, first: int = 0) -> np.ndarray:
    sums = np.zeros(128)
    sketch.add(sums, np.ascontiguousarray(filters.T), first)
    return sums


@pytest.mark.parametrize("first", [0, 7, 3_000_000_000])
def test_sums_are_those_of_plain_python(first: int) -> None:
    filters = np.random.default_rng(0).standard_normal((211, 9)).astype(np.float32)
    np.testing.assert_allclose(sketched(filters, first), naive(filters, first), rtol=0, atol=1e-12)


def test_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = np.random.default_rng(1).standard_normal((500, 9)).astype(np.float32)
    parts = sketched(filters[:123]) + sketched(filters[123:], 123)
    np.testing.assert_allclose(parts, sketched(filters), rtol=0, atol=1e-12)
    monkeypatch.setattr(sketch, "_FILTERS", 64)
    np.testing.assert_allclose(sketched(filters), naive(filters), rtol=0, atol=1e-12)


def test_repeated_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = np.random.default_rng(2).standard_normal((4, 9))
    sizes = np.array([70, 3, 70, 200])
    monkeypatch.setattr(sketch, "_FILTERS", 64)
    expected = [naive(np.tile(row, (size, 1))) for row, size in zip(filters, sizes.tolist(), strict=True)]
    np.testing.assert_allclose(sketch.of_repeated(filters, sizes), expected, rtol=0, atol=1e-11)


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
