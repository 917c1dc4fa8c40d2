"""Phenotypes of synthetic distributions of each kind, from 10³ to 10⁶ values; the measures against SciPy's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from filterdb.numerics.shape import FEW, POINT, SPIKES, SUN, SYMBOLS, Bounds, shape

pytestmark = pytest.mark.slow

EDGES = np.linspace(-3.05, 3.05, 71)
"""As in `sound` mode: bins of 0.087."""

Draw = Callable[[np.random.Generator, int], np.ndarray]

ANGLES = np.arange(18) * np.pi / 9
CIRCLE = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])


def normal(sides: tuple[float, float], turn: float = 0.0, at: tuple[float, float] = (0.0, 0.0)) -> Draw:
    matrix = np.diag(sides) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return lambda rng, n: rng.standard_normal((n, 2)) @ matrix + np.array(at)


def blobs(centres: np.ndarray, width: float) -> Draw:
    return lambda rng, n: centres[rng.integers(0, len(centres), n)] + width * rng.standard_normal((n, 2))


def mixed(first: Draw, share: float, second: Draw) -> Draw:
    """A share of values of the first, the rest of the second."""
    return lambda rng, n: np.concatenate([first(rng, int(share * n)), second(rng, n - int(share * n))])


def ring(rng: np.random.Generator, n: int) -> np.ndarray:
    turn = rng.uniform(0, 2 * np.pi, n)
    return 0.9 * np.column_stack([np.cos(turn), np.sin(turn)]) + 0.2 * rng.standard_normal((n, 2))


KINDS: dict[str, tuple[str, Draw]] = {
    "round": (SUN, normal((0.5, 0.5))),
    "flat": (SUN, normal((0.9, 0.3))),
    "narrow": (SUN, normal((0.25, 0.2))),
    "turned": (SUN, normal((0.8, 0.25), 0.6)),
    "a little off": (SUN, normal((0.5, 0.5), 0.0, (0.15, 0.0))),
    "heavy tails": (SUN, lambda rng, n: rng.logistic(0, 0.27, (n, 2))),
    "some zeros": (SUN, mixed(normal((0.5, 0.5)), 0.95, normal((0.0, 0.0)))),
    "spots on a circle": (SPIKES, blobs(0.9 * CIRCLE, 0.04)),
    "few spots": (SPIKES, blobs(0.8 * CIRCLE[::5], 0.05)),
    "spots on a sun": (SPIKES, mixed(normal((0.5, 0.5)), 0.6, blobs(0.9 * CIRCLE[::3], 0.04))),
    "one spot": (SPIKES, mixed(normal((0.5, 0.5)), 0.7, blobs(np.array([[0.8, -0.5]]), 0.05))),
    "one value": (SPIKES, blobs(np.array([[0.8, -0.5]]), 0.0)),
    "two blobs": (SYMBOLS, blobs(np.array([[-0.8, 0.0], [0.8, 0.0]]), 0.3)),
    "two blobs aslant": (SYMBOLS, blobs(np.array([[-0.6, -0.6], [0.6, 0.6]]), 0.3)),
    "four blobs": (SYMBOLS, blobs(0.8 * CIRCLE[[0, 4, 9, 13]], 0.22)),
    "ring": (SYMBOLS, ring),
    "off centre": (SYMBOLS, normal((0.4, 0.4), 0.0, (0.5, 0.0))),
    "skewed": (SYMBOLS, lambda rng, n: np.column_stack([rng.exponential(0.5, n) - 0.5, rng.normal(0, 0.5, n)])),
    "half zero": (POINT, mixed(normal((0.5, 0.5)), 0.5, normal((0.0, 0.0), 0.0, (0.05, -0.05)))),
    "a third zero on a ring": (POINT, mixed(ring, 0.66, normal((0.0, 0.0)))),
    "all near zero": (POINT, normal((0.08, 0.08))),
    "all zero": (POINT, normal((0.0, 0.0))),
}


def square(values: np.ndarray) -> np.ndarray:
    x, y = values.clip(-3, 3).T
    counts, _, _ = np.histogram2d(x, y, bins=(EDGES, EDGES))
    return np.asarray(counts, np.int64)


@pytest.mark.parametrize("n", [1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_at_each_size(kind: str, n: int) -> None:
    """Of ten samples all come out as what they were drawn from (of large ones two: they hardly differ)."""
    expected, draw = KINDS[kind]
    for seed in range(10 if n <= 10_000 else 2):
        found = shape(square(draw(np.random.default_rng([seed, n]), n)), EDGES)
        assert found.phenotype() == expected, (seed, found)


@pytest.mark.parametrize("n", [1_000, 30_000])
def test_chance_makes_no_phenotype(n: int) -> None:
    """Of 200 normal samples, pairs and sides, each is a sun."""
    rng = np.random.default_rng(n)
    for _ in range(200):
        counts = square(rng.standard_normal((n, 2)) * rng.uniform(0.2, 0.9, 2))
        for one in (counts, counts.sum(axis=0), counts.sum(axis=1)):
            assert shape(one, EDGES).phenotype() == SUN


def test_components() -> None:
    """Along one component."""
    rng = np.random.default_rng(0)
    n = 20_000
    sides = {
        SUN: rng.normal(0, 0.5, n),
        SYMBOLS: np.concatenate([rng.normal(-0.8, 0.25, n // 2), rng.normal(0.8, 0.25, n // 2)]),
        SPIKES: np.concatenate([rng.normal(0, 0.5, n // 2), np.repeat([-1.2, -0.7, 0.9, 1.5], n // 8)]),
        POINT: np.concatenate([rng.normal(0, 0.5, n // 2), np.zeros(n // 2)]),
    }
    for expected, values in sides.items():
        counts, _ = np.histogram(values, EDGES)
        assert shape(counts, EDGES).phenotype() == expected
        assert shape(counts[::-1], EDGES).phenotype() == expected


def test_few_and_none() -> None:
    counts = square(np.random.default_rng(0).standard_normal((999, 2)) * 0.5)
    assert shape(counts, EDGES).phenotype() == FEW
    assert shape(counts, EDGES).phenotype(Bounds(fewest=999)) == SUN
    assert shape(np.zeros((70, 70), np.int64), EDGES).phenotype() == FEW


def test_an_asymmetric_range_keeps_the_centre() -> None:
    """In `paper` mode the middle of the bins is not coefficient 0."""
    edges = np.linspace(-2.1, 2.8, 71)
    values = np.concatenate([np.random.default_rng(0).standard_normal((5_000, 2)) * 0.5, np.zeros((5_000, 2))])
    counts, _, _ = np.histogram2d(values[:, 0], values[:, 1], bins=(edges, edges))
    assert shape(counts, edges).phenotype() == POINT
    moved = values + 0.35
    counts, _, _ = np.histogram2d(moved[:, 0], moved[:, 1], bins=(edges, edges))
    assert shape(counts, edges).phenotype() != POINT


def test_a_pair_is_judged_alike_either_way_round() -> None:
    for _, draw in KINDS.values():
        counts = square(draw(np.random.default_rng(3), 5_000))
        one, other = shape(counts, EDGES), shape(counts.T, EDGES)
        assert one.phenotype() == other.phenotype()
        assert one.hot == pytest.approx(other.hot)
        assert one.departure == pytest.approx(other.departure, abs=1e-9)


@pytest.mark.parametrize("draw", [lambda rng, n: rng.exponential(0.4, n) - 0.4, lambda rng, n: rng.uniform(-1, 1, n)])
def test_departure_is_scipys(draw: Callable[[np.random.Generator, int], np.ndarray]) -> None:
    """Kolmogorov's distance as SciPy has it of the values themselves, less 0.9/√n, but for the bins."""
    n = 200_000
    values = draw(np.random.default_rng(0), n).clip(-3, 3)
    expected = stats.kstest((values - values.mean()) / values.std(), "norm").statistic
    counts, _ = np.histogram(values, EDGES)
    assert shape(counts, EDGES).departure == pytest.approx(expected - 0.9 / n**0.5, abs=0.03)


@pytest.mark.parametrize("zeros", [0.0, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("sides", [1, 2])
def test_excess_at_the_centre_is_the_share_of_zeros(zeros: float, sides: int) -> None:
    n = 100_000
    rng = np.random.default_rng(0)
    values = rng.standard_normal((n, sides)) * 0.6
    values[: int(zeros * n)] = 0.01
    counts, _ = np.histogramdd(values, [EDGES] * sides)
    assert shape(counts, EDGES).centre_excess == pytest.approx(zeros, abs=0.01)


def test_moments_are_those_of_the_values() -> None:
    values = np.random.default_rng(0).standard_normal((50_000, 2)) * [0.7, 0.4] + [0.3, 0.0]
    found = shape(square(values), EDGES)
    width = EDGES[1] - EDGES[0]
    assert found.filters == 50_000
    assert found.spread == pytest.approx(values[:, 0].std() / width, rel=0.005)
    assert found.offset == pytest.approx(values[:, 0].mean() / values[:, 0].std(), rel=0.01)
    assert found.central == np.mean((np.abs(values) < 2 * width).all(axis=1))


def test_modes_of_many() -> None:
    """Peaks are counted that the smoothing leaves apart: of equal ones in a row up to four."""
    rng = np.random.default_rng(0)
    for number, expected in ((1, 1), (2, 2), (3, 3), (4, 4), (9, 1)):
        centres = np.linspace(-2, 2, number) if number > 1 else np.zeros(1)
        values = centres[rng.integers(0, number, 20_000)] + rng.normal(0, 0.12, 20_000)
        counts, _ = np.histogram(values, EDGES)
        assert shape(counts, EDGES).modes == expected


def test_the_centre_is_where_a_zero_filter_lies() -> None:
    """Of both, and of either side alone: a point there, a spot elsewhere."""
    rng = np.random.default_rng(0)
    values = np.concatenate([0.5 * rng.standard_normal((5_000, 2)), np.tile([0.6, -0.4], (5_000, 1))])
    assert shape(square(values), EDGES).phenotype() == SPIKES
    assert shape(square(values), EDGES, (0.6, -0.4)).phenotype() == POINT
    assert shape(square(values), EDGES, (-0.4, 0.6)).phenotype() == SPIKES
    assert shape(square(values).sum(axis=1), EDGES, (0.6,)).phenotype() == POINT
    one, other = shape(square(values + 0.7), EDGES, (1.3, 0.3)), shape(square(values), EDGES, (0.6, -0.4))
    assert one.offset == pytest.approx(other.offset, abs=0.02)
