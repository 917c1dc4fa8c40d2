"""Decide which models have hardly moved from their initialisation, by the number of layers that differ from noise.

Imports nothing slow, because a check uses it.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.analysis.rules import Rules
from filterdb.numerics.modes import Mode
from filterdb.numerics.pointwise import number_of_runs, run_length
from filterdb.numerics.sphericity import SMALLEST, smallest_filters
from filterdb.schema import KERNEL, MAX_WEIGHTS, Kernel

LEVEL = 0.001
"""So many rejections are allowed that an untouched model has more of them with at most this probability."""

BEYOND_DOUBT = 1e-6
"""A layer with a smaller p-value shows by itself that the model was trained."""

LEAST_LAYERS, LEAST_LARGE = 3, 2
"""A model needs this many tested layers, and this many with at least `Rules.smallest` filters, to be untrained."""

LEAST_SHARE = 0.5
"""Least share of the tested weights among all convolution weights: others may have been trained."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Measures = Mapping[str, npt.NDArray[Any]]


def untrained(
    owner: npt.NDArray[np.int64],
    layers: Measures,
    shapes: Sequence[str],
    rules: Rules,
    mode: Mode,
    kernel: Kernel | None = KERNEL,
) -> Bools:
    """Return whether each model is untrained, (models,) bool.

    In `sound` mode its layers must not differ from isotropic noise, apart from as many as chance allows; in `paper`
    mode every layer of at least `rules.smallest` filters must be random and not sparse. Layers of different kernel
    shapes are judged together if there are several; 1×1 layers, by their output channels, can only show that a model
    was trained, and count among the tested weights.

    Parameters
    ----------
    owner : ndarray (layers,) of int64
        Position of each layer's model in `shapes`.
    layers : mapping
        filters, p_value, sparsity and random of each layer, (layers,); for layers of all shapes also weights,
        channel_p_value, in_channels and out_channels.
    shapes : sequence of str
        Filters by kernel shape of each model, as JSON.
    rules : Rules
        `smallest`, `random_p` and `untrained_sparsity`.
    mode : Mode
        The mode.
    kernel : tuple of int, optional
        Shape of the layers' filters. None: `weights` has their number of weights. Default: 3×3.
    """
    models = len(shapes)
    if kernel is None:
        return _untrained_by_all(owner, layers, shapes, rules)
    large = layers["filters"] >= max(rules.smallest, smallest_filters(kernel[0] * kernel[1]))
    if not mode.tests_randomness:
        fresh = layers["random"] & (layers["sparsity"] < rules.untrained_sparsity)
        by_entropy: Bools = (_count(owner, large & ~fresh, models) == 0) & (_count(owner, large, models) > 0)
        return by_entropy
    listed = _like_noise(owner, layers["p_value"], large, large, models, rules)
    stored = np.bincount(owner, layers["filters"], minlength=models)
    for i in listed.nonzero()[0].tolist():
        listed[i] = share_of_weights(shapes[i], int(stored[i]), kernel) >= LEAST_SHARE
    return listed


def _untrained_by_all(owner: Ints, layers: Measures, shapes: Sequence[str], rules: Rules) -> Bools:
    """Return whether each model is untrained by its layers of all kernel shapes, (models,) bool."""
    p, tested, is_large = tests_of(layers, rules)
    listed = _like_noise(owner, p, tested, is_large, len(shapes), rules)
    weights = np.bincount(owner[tested], (layers["filters"] * layers["weights"])[tested], minlength=len(shapes))
    for i in listed.nonzero()[0].tolist():
        listed[i] = weights[i] >= LEAST_SHARE * all_weights(shapes[i])
    return listed


def tests_of(layers: Measures, rules: Rules) -> tuple[Floats, Bools, Bools]:
    """Return the p-value of each layer, whether it is large enough to be judged, and whether its filters are k×k too.

    All are (layers,). A 1×1 layer has the p-value of its output channels, but only if it is large enough.
    """
    weights = layers["weights"]
    pointwise, inside = weights == 1, layers["in_channels"]
    length = run_length(inside)
    sizes = np.where(pointwise, layers["out_channels"] * number_of_runs(inside), layers["filters"])
    compared = np.where(pointwise, length, weights)
    smallest = np.maximum(max(rules.smallest, SMALLEST), -(-compared // 2))
    tested = (sizes >= smallest) & (compared >= 2) & (weights <= MAX_WEIGHTS)
    p = np.where(pointwise, np.where(tested, layers["channel_p_value"], np.nan), layers["p_value"])
    return p, tested, tested & ~pointwise


def _like_noise(owner: Ints, p: Floats, tested: Bools, is_large: Bools, models: int, rules: Rules) -> Bools:
    """Return which models have enough layers, of which no more differ from noise than chance allows, (models,) bool.

    `p` has the p-value of each layer, `tested` whether it has enough filters, and `is_large` whether it counts among
    the LEAST_LARGE besides, (layers,) each.
    """
    # A large layer without a p-value, such as a dead one, is no noise. A small one without is just not tested.
    moved = ((p < rules.random_p) & ~tested) | (tested & ~(p >= BEYOND_DOUBT))
    number, rejected = _count(owner, tested, models), _count(owner, tested & (p < rules.random_p), models)
    filtering = np.isfinite(p) & (is_large | ~tested)
    enough = (_count(owner, is_large, models) >= LEAST_LARGE) & (_count(owner, filtering, models) >= LEAST_LAYERS)
    listed: Bools = enough & (_count(owner, moved, models) == 0)
    for i in listed.nonzero()[0].tolist():
        listed[i] = rejected[i] <= allowed_rejections(int(number[i]), rules.random_p)
    return listed


def _count(owner: npt.NDArray[np.int64], which: Bools, models: int) -> npt.NDArray[np.int64]:
    """Return the number of layers of each model that `which` selects."""
    return np.bincount(owner[which], minlength=models)


@functools.cache
def allowed_rejections(tested: int, p: float) -> int:
    """Return the largest k with P(at least k of `tested` noise layers are rejected at `p`) ≥ LEVEL."""
    tail = 1.0
    for k in range(tested):
        tail -= math.comb(tested, k) * p**k * (1 - p) ** (tested - k)
        if tail < LEVEL:
            return k
    return tested


def share_of_weights(shapes: str, stored: int, kernel: Kernel = KERNEL) -> float:
    """Return the share of a kernel shape's weights among those of all convolutions; NaN if counts make no sense.

    `shapes` has the filters by kernel shape, as JSON; if this one is not among them, the model has `stored` such
    filters.
    """
    try:
        weights = _weights_by_shape({str(kernel): stored} | json.loads(shapes or "{}"))
        return weights[str(kernel)] / sum(weights.values())
    except (ValueError, TypeError, ZeroDivisionError):  # the text comes from a file that may be hostile
        return math.nan


def all_weights(shapes: str) -> float:
    """Return the number of weights of all convolutions, by their filters by kernel shape as JSON; NaN for nonsense."""
    try:
        return float(sum(_weights_by_shape(json.loads(shapes or "{}")).values()))
    except (ValueError, TypeError, AttributeError, OverflowError):
        return math.nan


def _weights_by_shape(counts: Mapping[str, Any]) -> dict[str, int]:
    return {shape: int(count) * math.prod(map(int, re.findall(r"\d+", shape))) for shape, count in counts.items()}
