"""Untrained models: the number of layers that may differ from noise, and which models are asked at all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from filterdb.analysis.rules import Rules
from filterdb.analysis.untrained import LEVEL, allowed_rejections, share_of_weights, untrained
from filterdb.numerics.modes import SOUND

SHAPES = json.dumps({"(1, 1)": 100, "(3, 3)": 1_000})


def judged(p: list[float], filters: list[int] | None = None, shapes: str = SHAPES, **rules: Any) -> bool:
    """Whether a model whose layers have these p-values is untrained."""
    sizes = np.array(filters or [64] * len(p))
    layers = {"filters": sizes, "p_value": np.array(p)}
    (result,) = untrained(np.zeros(len(p), np.int64), layers, [shapes], Rules(**rules), SOUND)
    return bool(result)


@pytest.mark.parametrize("p", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("tested", [1, 3, 20, 46, 200])
def test_as_many_rejections_as_chance_allows(tested: int, p: float) -> None:
    k = np.arange(tested + 1)
    assert allowed_rejections(tested, p) == k[binom.sf(k - 1, tested, p) >= LEVEL].max()


def test_layers_that_differ_from_noise() -> None:
    assert judged([0.5, 0.2, 0.9])
    assert judged([0.5, 0.2, 0.0005])  # one in three may be chance
    assert not judged([0.5, 0.0004, 0.0005])
    assert not judged([0.5, 0.2, 1e-7])  # not by chance
    assert not judged([0.5, 0.2, 0.7, float("nan")])  # such as a dead layer
    assert judged([0.5, 0.04, 0.04], random_p=0.05)


def test_layers_that_are_too_few_or_too_small() -> None:
    assert not judged([0.5, 0.5])
    assert judged([0.5, 0.5, 0.5], [64, 64, 16])
    assert judged([0.5, 0.5, 0.5, float("nan")], [64, 64, 16, 15])
    assert not judged([0.5, 0.5, 0.5], [64, 63, 16])
    assert not judged([0.5, 0.5, 0.0005], [64, 64, 16])


def test_other_convolutions_may_have_been_trained() -> None:
    assert judged([0.5] * 3, shapes=json.dumps({"(1, 1)": 1_000, "(3, 3)": 1_000}))
    assert not judged([0.5] * 3, shapes=json.dumps({"(1, 1)": 10_000, "(3, 3)": 1_000}))


@pytest.mark.parametrize(
    ("shapes", "share"),
    [
        ({"(3, 3)": 10}, 1),
        ({"(3, 3)": 10, "(1, 1)": 10}, 0.9),
        ({"(3, 3)": 10, "(5, 5)": 10, "(3,)": 30}, 90 / 430),
        ({"(1, 1)": 63}, 0.5),  # without a count of its own: 7 stored filters
        ({}, 1),
    ],
)
def test_share_of_weights(shapes: dict[str, int], share: float) -> None:
    assert share_of_weights(json.dumps(shapes), 7) == pytest.approx(share)


@pytest.mark.parametrize("shapes", ["nonsense", "[1]", '{"(3, 3)": "many"}', '{"(3, 3)": null}', '{"(3, 3)": 0}'])
def test_counts_that_make_no_sense(shapes: str) -> None:
    assert np.isnan(share_of_weights(shapes, 7))
