"""Fingerprints of folded layers agree with those of the layers before; those of strangers and of trained copies differ.

Folding is done here as exporters do it, in float32 or float64 and in several orders. The right answer is known, because
the tests themselves multiply the channels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from filterdb.numerics.fingerprint import fingerprint, models_by_filters, same_filters
from tests.filters import trained

pytestmark = pytest.mark.slow

SHAPES = [(1, 64), (3, 48), (8, 3), (16, 3), (20, 20), (32, 1), (64, 1), (64, 32), (256, 9), (2, 4200)]
"""Output channels and inputs per group: one channel, few, depthwise, many, and more inputs than one product has."""

EPSILON = np.float32(1e-5)


def layer(out: int, into: int, seed: int = 0) -> np.ndarray:
    """A weight (out, into, 3, 3) float32, whose channels have different scales."""
    rng = np.random.default_rng([out, into, seed])
    scaled: np.ndarray = trained(out, into, seed) * np.exp(rng.normal(0, 1, (out, 1, 1, 1)))
    return scaled.astype(np.float32)


def norm(out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """γ of both signs and variances of a batch normalisation, float32."""
    rng = np.random.default_rng([out, seed, 1])
    return rng.normal(0, 1, out).astype(np.float32), np.exp(rng.normal(0, 3, out)).astype(np.float32)


def divided(w: np.ndarray, gamma: np.ndarray, variance: np.ndarray) -> np.ndarray:
    folded: np.ndarray = w * (gamma / np.sqrt(variance + EPSILON))[:, None, None, None]
    return folded


def divided_last(w: np.ndarray, gamma: np.ndarray, variance: np.ndarray) -> np.ndarray:
    folded: np.ndarray = (w * gamma[:, None, None, None]) / np.sqrt(variance + EPSILON)[:, None, None, None]
    return folded


def by_reciprocal(w: np.ndarray, gamma: np.ndarray, variance: np.ndarray) -> np.ndarray:
    reciprocal = (np.float32(1) / np.sqrt(variance + EPSILON))[:, None, None, None]
    folded: np.ndarray = w * reciprocal * gamma[:, None, None, None]
    return folded


def in_double(w: np.ndarray, gamma: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return divided(w.astype(np.float64), gamma.astype(np.float64), variance.astype(np.float64))


def carelessly(w: np.ndarray, gamma: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """A relative noise of 1e-5 in each weight, a hundred times that of float32."""
    return divided(w, gamma, variance) * (1 + 1e-5 * np.random.default_rng(0).standard_normal(w.shape))


FOLDS = [divided, divided_last, by_reciprocal, in_double, carelessly]


def printed(weight: np.ndarray, dtype: str = "float32") -> str:
    filters = np.ascontiguousarray(weight, np.float32).reshape(-1, 9)
    return fingerprint(filters, len(weight), dtype)


def labels(*weights: np.ndarray, dtypes: tuple[str, ...] = ()) -> list[int]:
    texts = [printed(w, dtype) for w, dtype in zip(weights, dtypes or ["float32"] * len(weights), strict=True)]
    found: list[int] = same_filters([""] * len(texts), texts, np.array([w.size // 9 for w in weights])).tolist()
    return found


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize(("out", "into"), SHAPES)
def test_folding_keeps_it(out: int, into: int, fold: Callable[..., np.ndarray]) -> None:
    originals = [layer(out, into, seed) for seed in range(3)]
    folded = [fold(w, *norm(out, seed)) for seed, w in enumerate(originals)]
    assert all(map(printed, originals))
    assert labels(*originals, *folded) == [*range(3), *range(3)]


def test_thousands_of_layers_of_one_shape(subtests: pytest.Subtests) -> None:
    """2,000 layers and their folded copies, depthwise and small, which have the fewest numbers to tell them apart."""
    for out, into in ((32, 1), (16, 3)):
        rng = np.random.default_rng(out)
        originals = [rng.standard_normal((out, into, 3, 3)).astype(np.float32) for _ in range(2000)]
        folded = [FOLDS[i % 5](w, *norm(out, i)) for i, w in enumerate(originals)]
        with subtests.test(out=out, into=into):
            assert labels(*originals, *folded) == [*range(2000), *range(2000)]


@pytest.mark.parametrize("share", [3e-4, 1e-3, 1e-2, 0.1])
def test_a_layer_that_was_trained_further_is_another(share: float) -> None:
    for out, into in SHAPES:
        w = layer(out, into)
        rng = np.random.default_rng(5)
        own = np.sqrt((w.astype(np.float64) ** 2).mean(axis=(1, 2, 3), keepdims=True))
        assert labels(w, w + share * own * rng.standard_normal(w.shape)) == [0, 1], (out, into)


def test_order_counts() -> None:
    w = layer(64, 32)
    turned, permuted, mixed = w.transpose(0, 1, 3, 2), w[::-1], w[:, ::-1]
    assert labels(w, turned, permuted, mixed, -w, 1e-20 * w) == [0, 1, 2, 3, 0, 0]
    # The scale of an input channel or of a position in the filter is no scale of an output channel.
    wrong = w * np.where(np.arange(32) % 2, 1, 2).astype(np.float32)[:, None, None]
    assert labels(w, wrong) == [0, 1]


@pytest.mark.parametrize(("out", "dead"), [(64, 3), (512, 60), (40, 12)])
def test_dead_channels(out: int, dead: int) -> None:
    w = layer(out, 6)
    w[:dead] = 0
    assert printed(w)
    assert labels(w, divided(w, *norm(out, 3))) == [0, 0]
    # Decayed weights near the smallest numbers of float32 count as zeros, whatever their digits.
    faint = w.copy()
    faint[:dead] = 1e-41 * np.random.default_rng(0).standard_normal(faint[:dead].shape)
    assert labels(w, faint) == [0, 0]


def test_channels_that_only_one_of_two_files_has() -> None:
    """γ is zero for a dozen channels, so that they are lost in the folded file; tiny ones keep all digits."""
    w, (gamma, variance) = layer(64, 6), norm(64, 3)
    gamma[5:17] = 0
    gamma[40:] *= np.float32(1e-25)
    assert labels(w, divided(w, gamma, variance)) == [0, 0]
    gamma[::2] = 0
    assert labels(w, divided(w, gamma, variance)) == [0, 1]  # half of the channels are another layer


@pytest.mark.parametrize(("dtype", "name"), [(np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")])
def test_half_precision(dtype: type, name: str) -> None:
    """A layer rounded to half precision is known if it says that it was rounded."""
    for out, into in ((32, 1), (64, 32), (256, 9)):
        w = layer(out, into)
        exact = w.astype(dtype).astype(np.float32)
        gamma, variance = norm(out, 1)
        folded = divided(w, gamma, np.clip(variance, 0.01, 10)).astype(dtype).astype(np.float32)
        assert labels(exact, divided(exact, gamma, variance)) == [0, 0]  # stored in half precision, folded in single
        assert labels(w, folded, exact, dtypes=("float32", name, name)) == [0, 0, 0]
        assert labels(w, folded) == [0, 1] or name == "float16"  # whose noise is near the tolerance of float32


def test_layers_that_say_nothing_have_none() -> None:
    """Few filters, and fixed ones, which unrelated networks have in common."""
    blur = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
    alternating = np.stack([sobel, sobel.T] * 32)[:, None]
    centre = np.zeros((64, 1, 3, 3), np.float32)
    centre[:, 0, 1, 1] = 1
    few = layer(5, 3)
    for weight in (
        np.tile(blur, (64, 1, 1, 1)),
        alternating,
        centre,
        few,
        np.zeros((64, 8, 3, 3)),
        np.ones((1, 64, 3, 3)),
    ):
        assert printed(weight) == ""
    assert printed(np.concatenate([layer(1, 32), np.zeros((31, 32, 3, 3))])) == ""  # one channel of 32 is left
    assert fingerprint(layer(8, 4).reshape(-1, 9), 7) == fingerprint(np.zeros((0, 9), np.float32), 0) == ""
    assert labels(few, few) == [0, 1]


def test_a_hostile_file_cannot_take_hours() -> None:
    """20,000 fingerprints that all agree, of different texts: all pairs of them would fill the memory."""
    codes = 30_000 + np.random.default_rng(0).integers(0, 2, (20_000, 32))
    texts = [f"18{row.astype('>u2').tobytes().hex()}" for row in codes]
    started = time.monotonic()
    assert not same_filters([""] * len(texts), texts, np.full(len(texts), 64)).any()
    assert time.monotonic() - started < 30


def test_hashes_join_where_a_fingerprint_is_missing() -> None:
    """Layers of segments of an earlier format have a hash only."""
    text, other = printed(layer(64, 4)), printed(layer(64, 4, 1))
    damaged = "ff" * 40
    hashes, texts = ["a", "a", "b", "", "", "c", "c"], ["", text, text, other, "", damaged, damaged.upper()]
    assert same_filters(hashes, texts, np.array([256] * 7)).tolist() == [0, 0, 0, 3, 4, 5, 5]
    assert same_filters(["a", "b"], [text, text], np.array([256, 512])).tolist() == [0, 1]
    assert same_filters([], [], np.zeros(0, np.int64)).tolist() == []


def test_models_by_filters() -> None:
    """Three models with the layers A and B, one of them with another small layer, and one without a fingerprint."""
    found, texts = np.array([0, 1, 1, 0, 0, 1, 6, 7]), ["x", "y", "y", "x", "x", "y", "", ""]
    sizes, owner = np.array([64, 32, 32, 64, 64, 32, 3, 9]), np.array([0, 0, 1, 1, 2, 2, 2, 3])
    first, second, third, fourth = models_by_filters(found, texts, sizes, owner, 4)
    assert first == second != third
    assert fourth is None


def naive(weight: np.ndarray) -> list[int]:
    """The codes of a layer without zeros, number by number in Python."""
    out, number = len(weight), weight[0].size
    sums, counts = [0.0] * 32, [0] * 32
    for row in range(max(out, 32)):
        w = weight[row % out].ravel().tolist()
        norm = sum(x * x for x in w)
        for j in range(8):
            product = sum(w[i] * noise(8 * i + j, 1) for i in range(number))
            sums[row % 32] += noise(8 * row + j, 2) * product**2 / norm
        counts[row % 32] += 8
    z = [total / count**0.5 for total, count in zip(sums, counts, strict=True)]
    return [round(32767 * value / (2 + abs(value))) + 32768 for value in z]


def noise(number: int, seed: int) -> float:
    """SplitMix64 of a number as a signed integer, scaled to unit variance."""
    state = ((number + 1) * 0x9E3779B97F4A7C15 + (seed << 48)) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    state ^= state >> 31
    return (state - (state >> 63 << 64)) / 2**63 * math.sqrt(3)


MASK = 2**64 - 1


@pytest.mark.parametrize(("out", "into"), [(1, 20), (20, 2), (70, 1)])
def test_the_codes_are_those_of_the_formula(out: int, into: int) -> None:
    """Stored fingerprints must stay comparable: the same codes in every version."""
    w = layer(out, into)
    text = printed(w)
    assert text[:2] == "18"
    assert [int(text[i : i + 4], 16) for i in range(2, 130, 4)] == naive(w)
