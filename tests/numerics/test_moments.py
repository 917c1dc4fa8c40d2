"""The laws of merging, by hypothesis: any cut of the filters and any order of merges gives the same moments."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from filterdb.numerics.moments import Moments, merge, pool
from tests.numerics import oracles

VALUES = arrays(
    np.float64,
    st.tuples(st.integers(0, 40), st.just(9)),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False, width=32),
)


def state(values: np.ndarray) -> Moments:
    count, mean, m2 = oracles.moments(values)
    return Moments(np.array(count), mean, m2)


def same(a: Moments, b: Moments, size: float) -> None:
    assert a.count == b.count
    if a.count:
        np.testing.assert_allclose(a.mean, b.mean, rtol=0, atol=1e-12 * size)
        np.testing.assert_allclose(a.m2, b.m2, rtol=0, atol=1e-12 * size**2 * max(1, int(a.count)))


def size_of(*parts: np.ndarray) -> float:
    return max([1e-300, *(float(np.abs(part).max(initial=0)) for part in parts)])


@given(VALUES, VALUES)
def test_merge_equals_the_whole(a: np.ndarray, b: np.ndarray) -> None:
    same(merge(state(a), state(b)), state(np.concatenate([a, b])), size_of(a, b))


@given(VALUES, VALUES)
def test_merge_commutes(a: np.ndarray, b: np.ndarray) -> None:
    same(merge(state(a), state(b)), merge(state(b), state(a)), size_of(a, b))


@given(VALUES, VALUES, VALUES)
def test_merge_associates(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    left = merge(merge(state(a), state(b)), state(c))
    same(left, merge(state(a), merge(state(b), state(c))), size_of(a, b, c))


@given(VALUES)
def test_nothing_is_neutral(a: np.ndarray) -> None:
    nothing = state(np.empty((0, 9)))
    for merged in (merge(state(a), nothing), merge(nothing, state(a))):
        np.testing.assert_array_equal(merged.mean, state(a).mean)
        np.testing.assert_array_equal(merged.m2, state(a).m2)


@settings(max_examples=50)
@given(st.lists(VALUES, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_pool_equals_the_whole_of_each_group(parts: list[np.ndarray], random: object) -> None:
    group = np.array([random.randrange(3) for _ in parts])  # type: ignore[attr-defined]
    states = [state(part) for part in parts]
    stacked = Moments(*(np.stack([getattr(s, name) for s in states]) for name in ("count", "mean", "m2")))
    pooled = pool(stacked, group, 3)
    for g in range(3):
        members = [part for part, of in zip(parts, group, strict=True) if of == g]
        whole = np.concatenate([np.empty((0, 9)), *members])
        same(pooled.pick(g), state(whole), size_of(whole))


def test_pool_of_equal_constants_has_no_variance() -> None:
    third = np.full((3, 9), 1 / 3)
    pooled = pool(Moments(np.array([5, 7, 11]), third, np.zeros((3, 9, 9))), np.zeros(3, int), 1)
    assert not pooled.m2.any()
    np.testing.assert_array_equal(pooled.mean[0], third[0])


def test_covariance_of_one_filter_is_zero() -> None:
    assert not state(np.ones((1, 9))).covariance.any()
