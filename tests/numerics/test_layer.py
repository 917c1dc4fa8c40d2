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


@pytest.mark.parametrize("block", [2, 65_536])
def test_sparse_is_strictly_below_a_hundredth(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "BLOCK", block)
    filters = np.zeros((4, 9), np.float32)
    filters[0, 3], filters[1, 8], filters[2, 0] = -100, 1, -0.999
    peaks = layer.filter_peaks(filters)
    np.testing.assert_array_equal(peaks, np.array([100, 1, 0.999, 0], np.float32))
    np.testing.assert_array_equal(layer.sparse_filters(peaks, 100.0), [False, False, True, True])
    assert layer.sparse_filters(peaks[3:], 0.0).all()


def judged(weight: np.ndarray) -> layer.Channels:
    return layer.channels(layer.filter_peaks(weight.reshape(-1, 9)), len(weight))


def expected(weight: np.ndarray) -> tuple[int, int, int]:
    """Prunable filters, zero channels, small channels of (out, in, 3, 3), a number at a time."""
    peaks = [[max(map(abs, row)) for row in channel] for channel in weight.reshape(len(weight), -1, 9).tolist()]
    whole = max(map(max, peaks))
    prunable = sum(peak == 0 or peak < max(channel) / 100 for channel in peaks for peak in channel)
    zero = sum(max(channel) == 0 for channel in peaks)
    return prunable, zero, sum(0 < max(channel) < whole / 100 for channel in peaks)


def uneven(out: int, into: int, seed: int) -> np.ndarray:
    """Weights whose scale differs from channel to channel and from filter to filter; some channels are zero."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-4, 1, (out, 1, 1, 1)) * 10.0 ** rng.uniform(-4, 0, (out, into, 1, 1))
    return (rng.normal(size=(out, into, 3, 3)) * scale * (rng.random((out, 1, 1, 1)) > 0.2)).astype(np.float32)


@pytest.mark.parametrize(("out", "into"), [(32, 16), (16, 1), (1, 64), (2, 3), (64, 512)])
def test_channels_equal_a_loop(out: int, into: int) -> None:
    """Regular, depthwise (one filter a channel, which is prunable only where it is zero) and single-channel layers."""
    weight = uneven(out, into, out)
    result = judged(weight)
    assert result[:3] == expected(weight)
    assert into > 1 or result.prunable_filters == result.zero_channels > 0


def test_a_channels_scale_does_not_matter() -> None:
    """One channel of 512 that is 1,000 times as large moves P1's sparsity, not what is prunable by channel."""
    weight = np.random.default_rng(0).normal(size=(512, 16, 3, 3)).astype(np.float32)
    weight[:, :3] *= 0.001
    before = judged(weight)
    assert before.prunable_filters == 512 * 3 and before.outlier_ratio < 3
    weight[7] *= 1024
    after = judged(weight)
    assert after.prunable_filters == before.prunable_filters and after.small_channels == 511
    assert after.outlier_ratio > 1000
    peaks = layer.filter_peaks(weight.reshape(-1, 9))
    assert layer.sparse_filters(peaks, float(peaks.max())).mean() > 0.99


@pytest.mark.parametrize("large", [1, 2, 8, 24])
@pytest.mark.parametrize("faint", [0, 32])
def test_what_stands_out_from_the_upper_quartile(large: int, faint: int) -> None:
    """Neither up to a quarter of large channels nor any number of zero ones hides it; all alike are no outliers."""
    weight = np.random.default_rng(1).normal(size=(100, 4, 3, 3)).astype(np.float32)
    weight[50 : 50 + faint] = 0
    assert judged(weight).outlier_ratio < 3
    weight[:large] *= 100
    hidden = large > (100 - faint) // 4
    assert (judged(weight).outlier_ratio < 3) == hidden
    channel_peaks = sorted(np.abs(weight).max(axis=(1, 2, 3))[np.abs(weight).max(axis=(1, 2, 3)) > 0].tolist())
    quartile = channel_peaks[int(0.75 * (len(channel_peaks) - 1))]
    assert judged(weight).outlier_ratio == pytest.approx(channel_peaks[-1] / quartile, rel=1e-12)


def test_one_weight_far_above_the_rest() -> None:
    for shape in ((32, 16, 3, 3), (1, 64, 3, 3), (2, 4, 3, 3), (96, 1, 3, 3)):
        weight = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        assert judged(weight).outlier_ratio < 8
        weight[0, 0, 1, 1] = 1000
        assert judged(weight).outlier_ratio > 100, shape


def test_layers_at_the_edge() -> None:
    zero = judged(np.zeros((4, 3, 3, 3), np.float32))
    assert zero[:3] == (12, 4, 0) and np.isnan(zero.outlier_ratio)
    tiny = np.full((4, 3, 3, 3), 1e-45, np.float32)
    tiny[0] = 3e38
    assert judged(tiny)[:3] == (0, 0, 3) and np.isfinite(judged(tiny).outlier_ratio)
    assert judged(np.full((1, 1, 3, 3), 2, np.float32)) == (0, 0, 0, 1.0)


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
    monkeypatch.setattr(layer, "_FACTORS", np.zeros(256, np.uint64))
    filters = np.arange(36, dtype=np.float32).reshape(4, 9)
    filters[2] = filters[0]
    np.testing.assert_array_equal(layer.repeated_filters(filters), [False, False, True, False])


def repeated(rows: np.ndarray) -> list[bool]:
    """Which rows equal an earlier one, by a dictionary."""
    seen: set[bytes] = set()
    result = []
    for row in rows + np.float32(0):
        result.append(row.tobytes() in seen)
        seen.add(row.tobytes())
    return result


@pytest.mark.parametrize("weights", [1, 25, 256, 257, 1_024])
@pytest.mark.parametrize("block", [3, 65_536])
def test_repeated_filters_of_any_size(weights: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that differ only behind the first 256 weights are told apart."""
    monkeypatch.setattr(layer, "BLOCK", block)
    rng = np.random.default_rng(weights)
    filters = np.zeros((200, weights), np.float32)
    filters[:, -1] = rng.integers(0, 40, 200)
    np.testing.assert_array_equal(layer.repeated_filters(filters), repeated(filters))


@pytest.mark.parametrize("weights", [1, 300])
@pytest.mark.parametrize("block", [1, 7, 65_536])
def test_contents_against_numpy(weights: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "BLOCK", block)
    rng = np.random.default_rng(block)
    filters = rng.integers(-3, 4, (60, weights)).astype(np.float32)
    filters[7], filters[20:25], filters[30:35] = 300, filters[10:15], np.nan
    filters[40, 0], filters[41, 0], filters[50] = np.inf, -np.inf, 0
    found = layer.contents(filters, 12)
    finite = np.isfinite(filters)
    is_sparse = np.array([bool(np.all(np.abs(row) < 3)) for row in filters])  # NaN is not small
    rows, small = (
        (filters.reshape(12, 5), is_sparse.reshape(12, 5).all(axis=1)) if weights == 1 else (filters, is_sparse)
    )
    assert found.peak == 300 and found.nonfinite == (~finite).sum() > 0
    assert found.sparse_filters == is_sparse.sum() > 0
    assert found.duplicate_filters == (np.array(repeated(rows)) & ~small).sum() > 0


def test_contents_without_a_finite_weight() -> None:
    assert layer.contents(np.full((4, 1), np.nan, np.float32), 2) == (0.0, 0, 1, 4)
    assert layer.contents(np.zeros((4, 1), np.float32), 2) == (0.0, 4, 0, 0)
