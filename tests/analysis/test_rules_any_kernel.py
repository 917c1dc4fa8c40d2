"""Verdicts of layers of any kernel shape: the bounds by shape, and what a finding says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filterdb.analysis.findings import COLLAPSED_REMEDIES, REMEDIES, Finding
from filterdb.analysis.rules import Rules, fewest_directions, judge
from filterdb.analysis.untrained import share_of_weights, untrained
from filterdb.numerics.directions import AS_1X1, BOX_BLUR
from filterdb.numerics.modes import MODES
from filterdb.numerics.quality import paper_threshold, randomness_threshold, variance_entropy

SOUND, PAPER = MODES["sound"], MODES["paper"]


def measures(directions: float, filters: int = 100, **more: float) -> dict[str, np.ndarray]:
    values = {
        "filters": filters,
        "sparsity": 0.0,
        "variance_entropy": np.log10(directions),
        "threshold": np.nan,
        "p_value": 0.0,
        "relative_spread": 5.0,
    }
    return {name: np.array([value]) for name, value in {**values, **more}.items()}


@given(weights=st.integers(2, 256), collapsed=st.floats(1, 9))
def test_collapsed_is_a_share_of_the_entropy_below_nine_weights(weights: int, collapsed: float) -> None:
    bound = fewest_directions(collapsed, weights)
    if weights >= 9:
        assert bound == collapsed
    else:
        assert np.log(bound) / np.log(weights) == pytest.approx(np.log(collapsed) / np.log(9))
        assert bound < weights or collapsed == 9
    np.testing.assert_allclose(fewest_directions(collapsed, np.array([weights, 9])), [bound, collapsed])


@pytest.mark.parametrize(("weights", "bound"), [(2, 1.2442), (3, 2**0.5), (9, 2), (25, 2), (121, 2)])
def test_a_layer_is_collapsed_below_the_bound_of_its_shape(weights: int, bound: float) -> None:
    dead = np.array([False])
    for directions, expected in ((bound * 1.001, False), (bound * 0.999, True)):
        assert judge(measures(directions), dead, Rules(), SOUND, weights)["collapsed"].item() is expected
    assert not judge(measures(1, filters=63), dead, Rules(), SOUND, weights)["collapsed"].item()
    assert judge(measures(float(weights), relative_spread=0.05), dead, Rules(), SOUND, weights)["collapsed"].item()


def test_layers_of_several_shapes_are_judged_together() -> None:
    layers = {name: np.repeat(value, 3) for name, value in measures(1.8).items()}
    weights = np.array([3, 9, 49])
    verdicts = judge(layers, np.zeros(3, bool), Rules(), SOUND, weights)
    assert verdicts["collapsed"].tolist() == [False, True, True]


def test_without_a_fit_no_layer_is_random_in_paper_mode() -> None:
    layers = measures(25.0, threshold=float(randomness_threshold(np.array(100), paper_threshold(25))), p_value=0.5)
    assert np.isnan(layers["threshold"]).all()
    assert not judge(layers, np.array([False]), Rules(), PAPER, 25)["random"].item()
    assert judge(layers, np.array([False]), Rules(), SOUND, 25)["random"].item()
    assert np.isfinite(randomness_threshold(np.array(100), paper_threshold(9)))


@given(weights=st.integers(2, 256))
def test_the_largest_entropy(weights: int) -> None:
    assert variance_entropy(np.full(weights, 1 / weights)) == pytest.approx(np.log10(weights))


@pytest.mark.parametrize(
    ("kernel", "shapes", "expected"),
    [
        ((5, 5), '{"(5, 5)": 10, "(3, 3)": 10}', 250 / 340),
        ((1, 9), '{"(1, 9)": 1, "(3, 3)": 3}', 1 / 4),
        ((7, 7), "{}", 1.0),
        ((7, 7), '{"(3, 3)": 49}', 1 / 2),  # the nine stored 7×7 filters have as many weights
    ],
)
def test_share_of_weights(kernel: tuple[int, int], shapes: str, expected: float) -> None:
    assert share_of_weights(shapes, 9, kernel) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kernel", "filters", "p_values", "expected"),
    [
        ((5, 5), [64, 64, 64], [0.4, 0.4, 0.4], True),
        ((16, 16), [128, 128, 128], [0.4, 0.4, 0.4], True),
        ((16, 16), [64, 128, 128, 128], [np.nan, 0.4, 0.4, 0.4], True),
        ((16, 16), [64, 64, 128], [np.nan, np.nan, 0.4], False),
        ((5, 5), [64, 64, 64, 64], [np.nan, 0.4, 0.4, 0.4], False),
    ],
)
def test_untrained_by_layers_that_the_test_can_judge(
    kernel: tuple[int, int], filters: list[int], p_values: list[float], expected: bool
) -> None:
    """64 filters of 256 weights have no p-value: they say nothing. A large layer without one is dead."""
    layers = {"filters": np.array(filters), "p_value": np.array(p_values)}
    owner = np.zeros(len(filters), np.int64)
    assert untrained(owner, layers, [f'{{"{kernel}": 10}}'], Rules(), SOUND, kernel).tolist() == [expected]


def test_remedies_name_the_number_of_weights() -> None:
    def remedy(direction: str, kernel: tuple[int, int]) -> str:
        return Finding("f", "l", "collapsed", "warning", "", {}, direction, kernel).remedy

    assert remedy(AS_1X1, (3, 3)) == COLLAPSED_REMEDIES[AS_1X1]
    assert "a ninth of the weights" in remedy(AS_1X1, (3, 3))
    assert "1/25 of the weights" in remedy(AS_1X1, (5, 5))
    assert "The 49 weights" in remedy(BOX_BLUR, (7, 7))
    assert remedy("DCT term (0,1)", (5, 5)) == REMEDIES["collapsed"]
