"""Nearest codes against SciPy's distances, Lloyd's steps against scikit-learn, noise against what geometry says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from filterdb.choices import NORMALISATION_NAMES, Normalisation
from filterdb.errors import UsageError
from filterdb.numerics import code_loops, without_numba
from filterdb.numerics.codebook import (
    NOISE,
    THRESHOLDS,
    Codes,
    Figures,
    NoiseFigures,
    empty_histograms,
    empty_sums,
    figures,
    fit,
    lloyd,
    noise_figures,
    normalised,
    sample_size,
    squares_about,
    sums_of,
)

pytestmark = pytest.mark.slow


def columns_of(weights: int, n: int, seed: int = 0) -> np.ndarray:
    """Filters of many scales, some all zero, some with equal weights, as columns."""
    rng = np.random.default_rng([seed, weights])
    columns = rng.standard_normal((weights, n)) * 10.0 ** rng.uniform(-20, 20, n)
    columns[:, 3::50] = 0
    columns[:, 4::50] = columns[:1, 4::50]
    return frozen(columns)


def frozen(columns: np.ndarray) -> np.ndarray:
    """Columns as chunks have them, for which the loops are compiled."""
    columns = np.ascontiguousarray(columns, np.float32)
    columns.flags.writeable = False
    return columns


def equal(a: Figures, b: Figures) -> bool:
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True))


def unit(columns: np.ndarray, affine: bool) -> tuple[np.ndarray, np.ndarray]:
    """Normalised filters as rows, and which have a direction, written anew."""
    x = columns.T.astype(np.float64)
    if affine:
        x = x - x.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1)
    has_direction = norm > 1e-6 * np.abs(columns.T).max(axis=1)
    return x / np.where(has_direction, norm, 1)[:, None], has_direction


def nearest(loops: object, columns: np.ndarray, affine: bool, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    index, distance = np.empty(columns.shape[1], np.int64), np.empty(columns.shape[1])
    loops.nearest_codes(columns, affine, codes, index, distance)  # type: ignore[attr-defined]
    return index, distance


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    ("weights", "k"), [(2, 1), (3, 2), (8, 5), (9, 256), (10, 7), (16, 64), (25, 33), (49, 10), (121, 4), (256, 3)]
)
def test_nearest_codes_are_scipys(weights: int, k: int, affine: bool) -> None:
    """Codes with twins closer than single precision can tell, which double precision can."""
    columns = columns_of(weights, 3_000)
    x, has_direction = unit(columns, affine)
    rng = np.random.default_rng(k)
    codes = x[np.flatnonzero(has_direction)[:k]] * rng.uniform(0.5, 1, (k, 1))
    codes[k // 2 :] = codes[: k - k // 2] + 1e-9 * rng.standard_normal((k - k // 2, weights))
    index, distance = nearest(code_loops, columns, affine, codes)
    distances = cdist(x, codes, "sqeuclidean")
    np.testing.assert_array_equal(index, np.where(has_direction, distances.argmin(axis=1), -1))
    np.testing.assert_allclose(distance, np.where(has_direction, distances.min(axis=1), 0), rtol=1e-12, atol=1e-14)
    if k > 1:
        assert (index >= k // 2).any() and (index < k // 2).any()
    assert np.allclose(normalised(columns, affine=affine).T, x[has_direction], rtol=1e-12, atol=1e-15)


def test_ties_go_to_the_lowest_code() -> None:
    """Equal codes, and filters halfway between codes along axes, for each place in a group of four codes."""
    axes = np.eye(9)
    columns = np.concatenate([axes, axes[:, [0]] + axes[:, 1:]], axis=1)
    columns = frozen(columns)
    for k in range(1, 10):
        for order in (np.arange(9), np.arange(9)[::-1]):
            codes = np.ascontiguousarray(np.concatenate([axes[order[:k]], axes[order[:k]]]))
            index, _ = nearest(code_loops, columns, False, codes)
            distances = ((unit(columns, False)[0][:, None] - codes) ** 2).sum(axis=2)
            np.testing.assert_array_equal(index, distances.argmin(axis=1))
            assert index.max() < k


@pytest.mark.parametrize("affine", [False, True])
def test_loops_add_up_what_is_nearest(affine: bool) -> None:
    """Runs, one of them skipped; the same bytes without Numba."""
    columns = columns_of(9, 2_000)
    x, has_direction = unit(columns, affine)
    codes = np.ascontiguousarray(x[has_direction][:20] * 0.8)
    codes[7] = 0
    starts, stops, rows = np.array([0, 300, 700]), np.array([300, 700, 2_000]), np.array([1, -1, 0])
    results = []
    for loops in (code_loops, without_numba):
        sums, layers = empty_sums(2, 20, 9), empty_histograms(3, 20, 9)
        loops.add_to_codes(columns, starts, stops, rows, affine, codes, tuple(sums.values()))
        thresholds = np.array(THRESHOLDS)
        loops.add_to_layers(columns, starts, stops, affine, codes, thresholds, tuple(layers.values()))
        index, distance = nearest(loops, columns, affine, codes)
        seeds, draws = np.zeros(30, np.int64), np.random.default_rng(0).random((30, 5))
        columns_x = np.ascontiguousarray(x[has_direction].T)
        assert loops.choose_seeds(columns_x, draws, seeds) == len(set(seeds)) == 30
        results.append([*sums.values(), *layers.values(), index, distance, seeds])
    for ours, theirs in zip(*results, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    counts, flat, sums_, inertia, by_layer, flat_by_layer, within, layer_sums, layer_inertia, index, *_ = results[0]
    size = np.where(np.linalg.norm(codes, axis=1) > 0, np.linalg.norm(codes, axis=1), np.inf)
    for r, (start, stop, row) in enumerate(zip(starts, stops, rows, strict=True)):
        own, found = x[start:stop], index[start:stop]
        own, found = own[found >= 0], found[found >= 0]
        distances = ((own - codes[found]) ** 2).sum(axis=1)
        histogram = np.bincount(found, minlength=20)
        np.testing.assert_array_equal(by_layer[r], histogram)
        np.testing.assert_allclose(layer_sums[r], own.sum(axis=0), atol=1e-12)
        np.testing.assert_allclose(layer_inertia[r], distances.sum(), rtol=1e-12)
        correlation = (own * codes[found]).sum(axis=1) / size[found]
        np.testing.assert_array_equal(within[r], [(correlation >= t).sum() for t in THRESHOLDS])
        assert flat_by_layer[r] == stop - start - len(own) > 0
        if row >= 0:
            np.testing.assert_array_equal(counts[row], histogram)
            np.testing.assert_allclose(inertia[row], distances.sum(), rtol=1e-12)
            np.testing.assert_allclose(sums_[row], [own[found == c].sum(axis=0) for c in range(20)], atol=1e-12)
            assert flat[row] == flat_by_layer[r]


@pytest.mark.parametrize("normalise", NORMALISATION_NAMES)
@pytest.mark.parametrize("weights", [9, 25])
def test_a_step_and_a_fit_are_scikit_learns(weights: int, normalise: Normalisation) -> None:
    rng = np.random.default_rng(weights)
    columns = (rng.standard_normal((weights, 6)) @ rng.laplace(size=(6, 2_500))).astype(np.float32)
    codes = Codes(12, normalise)
    x = normalised(columns, affine=codes.affine).T
    start = x[:12]
    step = KMeans(12, init=start, n_init=1, max_iter=1, tol=0).fit(x)
    sums = sums_of(columns, np.ascontiguousarray(start), affine=codes.affine)
    np.testing.assert_allclose(sums.updated(start), step.cluster_centers_, rtol=0, atol=1e-9)
    settled = KMeans(12, init=start, n_init=1, max_iter=300, tol=0).fit(x)
    ours, _ = lloyd(columns, np.ascontiguousarray(start), affine=codes.affine)
    assert sums_of(columns, ours, affine=codes.affine).inertia < settled.inertia_ * 1.01
    best = KMeans(12, n_init=8, random_state=0).fit(x)
    assert (
        sums_of(columns, fit(columns, codes), affine=codes.affine).inertia < best.inertia_ * 1.05
    )  # another local minimum
    assert fit(columns, codes).tobytes() == fit(columns, codes).tobytes()


def test_a_code_without_filters_stays() -> None:
    columns = columns_of(9, 500)
    codes = np.concatenate([unit(columns, False)[0][:2], np.full((1, 9), 50.0)])
    sums = sums_of(columns, codes, affine=False)
    assert sums.counts[2] == 0
    np.testing.assert_array_equal(sums.updated(codes)[2], codes[2])


def test_fewer_directions_than_codes() -> None:
    columns = frozen(np.repeat(np.eye(9, 5), 300, axis=1) * np.arange(1, 1_501))
    assert len(fit(columns, Codes(5, "scale"))) == 5
    with pytest.raises(UsageError, match=r"at least k = 6 directions, got 5"):
        fit(columns, Codes(6, "scale"))
    with pytest.raises(UsageError, match="got 0"):
        fit(np.ones((9, 50), np.float32), Codes(1, "ax+b"))


def test_squares_about_the_mean_are_numpys() -> None:
    x = unit(columns_of(9, 400), False)
    own = x[0][x[1]]
    squares = squares_about(np.array(len(own)), own.sum(axis=0), own.mean(axis=0))
    assert float(squares) == pytest.approx(len(own) * own.var(axis=0).sum(), rel=1e-12)
    equal = np.tile(own[0], (1_000, 1))
    assert not squares_about(np.array(1_000), equal.sum(axis=0), equal.mean(axis=0))


@pytest.mark.parametrize("k", [2, 8])
def test_noise_of_two_weights_is_the_circle(k: int) -> None:
    """The best codes of the circle are k arcs of the same length, whose means have norm sin(π/k) / (π/k)."""
    noise = noise_figures(60_000, 2, Codes(k, "scale"))
    explained = (np.sin(np.pi / k) / (np.pi / k)) ** 2
    assert noise.filters == 60_000 and equal(noise.of_size(60_000), noise.fitted)
    assert noise.fitted.explained_variance == pytest.approx(explained, abs=0.004)
    covered = np.minimum(1, np.arccos(THRESHOLDS) * k / np.pi)
    np.testing.assert_allclose(noise.fitted.coverage, covered, atol=0.02)


def test_one_code_explains_nothing() -> None:
    noise = noise_figures(50_000, 9, Codes(1, "scale")).fitted
    assert abs(noise.explained_variance) < 1e-9
    assert noise.deviation == pytest.approx(2 / np.sqrt(9 * 50_000), rel=1)  # of 1 − 2x·c + ‖c‖² for a c near 0


@pytest.mark.parametrize("passes", [0, 3])
def test_noise_is_corrected_for_its_size(passes: int) -> None:
    """The same fit to far more noise than figures are computed from."""
    codes, many = Codes(16, "scale", passes=passes), 1_200_000
    noise = noise_figures(many, 9, codes)
    assert noise.filters == NOISE * sample_size(16, 9) < many
    columns = np.random.default_rng(8).standard_normal((9, many), dtype=np.float32)
    fitted = fit(columns[:, : sample_size(16, 9)], codes)
    for _ in range(passes):
        fitted = sums_of(columns, fitted, affine=False).updated(fitted)
    expected = figures(columns, fitted, affine=False)
    assert noise.of_size(many).explained_variance == pytest.approx(expected.explained_variance, abs=0.001)
    assert noise.of_size(many).deviation == pytest.approx(expected.deviation, rel=0.02)
    np.testing.assert_allclose(noise.of_size(many).coverage, expected.coverage, atol=0.006)


def test_larger_sizes_are_described_as_new_filters_are() -> None:
    fitted, new = (figures(columns_of(9, 500, seed), np.eye(9)[:3], affine=False) for seed in (0, 1))
    noise = NoiseFigures(fitted.filters, fitted, new)
    assert equal(noise.of_size(fitted.filters), fitted)
    middle = noise.of_size(2 * fitted.filters)
    assert middle.explained_variance == pytest.approx((fitted.explained_variance + new.explained_variance) / 2)
    assert noise.of_size(10**12).coverage == pytest.approx(new.coverage)
