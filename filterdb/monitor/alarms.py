"""Decide which layers of a training die, collapse or do not move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from filterdb.analysis.rules import fewest_directions
from filterdb.monitor.networks import SINGLE, NetworkLayer
from filterdb.numerics.measures import Measures

SAMPLE = 1_024
"""Most filters of a layer that are kept, to see how far it has moved."""

STEPS = 100
"""Steps for which `Thresholds.moved` holds. Rounding moves a layer by the square root of the steps."""

Floats = NDArray[np.float64]


class MonitorWarning(UserWarning):
    """Warns of a layer that dies, collapses or does not move."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is wrong with a layer."""

    step: int
    layer: str
    kind: str
    """nonfinite, dead, dying, collapsing, stopped or never-moved."""
    reason: str
    """The numbers, in words."""

    def __str__(self) -> str:
        """Return the alarm in one line."""
        return f"step {self.step}: {self.layer}: {self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a layer raises an alarm. Numbers are compared with those of its first measurement."""

    sparsity: float = 0.5
    """A layer is dying if its sparsity is above this, and has risen by at least `sparsity_rise`."""

    sparsity_rise: float = 0.25

    norm: float = 0.1
    """A layer is dying if its norm is below this share of its first norm, also relative to the median of all layers."""

    directions: float = 2.0
    """A layer is collapsing if it uses fewer directions 10^H than this, and at most `directions_share` of the first.

    For filters of K < 9 weights the bound is the same share of log K (see `Rules.collapsed`).
    """

    directions_share: float = 0.5

    smallest: int = 32
    """Smallest number of filters of a layer that can be collapsing."""

    moved: float = 3e-6
    """A layer stands still if it moves by less than this in 100 steps while another layer moves 100 times as far."""

    patience: int = 2
    """Measurements in a row at which a layer stands still before it raises an alarm."""


@dataclass(slots=True)
class _History:
    """Hold what is needed of a layer at the next measurement."""

    first: Measures
    step: int
    direction: Floats
    """w/‖w‖ of the sample at the last measurement, (sample, weights)."""
    still: int = 0
    has_moved: bool = False
    raised: set[str] = field(default_factory=set)


class Watch:
    """Follow the layers of a network from measurement to measurement."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self.layers: dict[str, _History] = {}

    def moved(self, step: int, layer: NetworkLayer, filters: NDArray[np.float32], measures: Measures) -> float:
        """Return how far a layer's direction has moved since its last measurement; NaN at the first."""
        direction = _direction(filters)
        history = self.layers.get(layer.name)
        if history is None or history.direction.shape != direction.shape:
            self.layers[layer.name] = _History(measures, step, direction)
            return math.nan
        distance = float(np.linalg.norm(direction - history.direction))
        history.direction = direction
        return distance

    def judge(
        self, step: int, layers: Sequence[NetworkLayer], measured: Sequence[Measures], moved: Sequence[float]
    ) -> list[Alarm]:
        """Return the alarms of a measurement. A layer raises each kind of alarm only once."""
        histories = [self.layers[layer.name] for layer in layers]
        shares = [_share(measures.norm, own.first.norm) for measures, own in zip(measured, histories, strict=True)]
        typical = _median(shares)
        pace = max((distance for distance in moved if math.isfinite(distance)), default=math.nan)
        alarms = []
        for layer, own, measures, distance, share in zip(layers, histories, measured, moved, shares, strict=True):
            alarm = self._judge_numbers(own, measures, share, typical, layer)
            alarm = alarm or self._judge_movement(own, layer, distance, pace, step)
            own.step = step
            if alarm is not None and alarm[0] not in own.raised:
                own.raised.add(alarm[0])
                alarms.append(Alarm(step, layer.name, *alarm))
        return alarms

    def _judge_numbers(
        self, own: _History, measures: Measures, share: float, typical: float, layer: NetworkLayer
    ) -> tuple[str, str] | None:
        """Return kind and reason of an alarm that a layer's numbers raise, or None.

        `share` is its norm's share of the first one, and `typical` the layers' median of that.
        """
        limits, first = self.thresholds, own.first
        if math.isnan(measures.norm):
            return "nonfinite", "some weights are NaN or infinite; lower the learning rate"
        if measures.norm == 0:
            return "dead", "all weights are zero"
        if measures.sparsity > limits.sparsity and measures.sparsity >= first.sparsity + limits.sparsity_rise:
            return (
                "dying",
                f"{measures.sparsity:.0%} of its filters are near zero, up from {first.sparsity:.0%} at first",
            )
        if share < limits.norm * min(1.0, typical):
            return "dying", f"its norm is {share:.1%} of its first value; the median of all layers is {typical:.0%}"
        weights = layer.kernel[0] * layer.kernel[1]
        now, before = 10**measures.variance_entropy, 10**first.variance_entropy
        few = fewest_directions(limits.directions, weights)
        if measures.filters >= limits.smallest and now < few and now <= limits.directions_share * before:
            return "collapsing", f"its filters use {now:.1f} of {weights} directions, down from {before:.1f} at first"
        return None

    def _judge_movement(
        self, own: _History, layer: NetworkLayer, distance: float, pace: float, step: int
    ) -> tuple[str, str] | None:
        """Return kind and reason of an alarm about a layer that stands still, or None. `pace` is the farthest move."""
        if not layer.trainable or math.isnan(distance):
            return None
        limit = self.thresholds.moved * math.sqrt(max(1.0, (step - own.step) / STEPS))
        is_still = distance < limit if layer.dtype in SINGLE else distance == 0
        if not is_still:
            own.still, own.has_moved = 0, True
        elif pace > 100 * limit:
            own.still += 1
        if own.still < self.thresholds.patience:
            return None
        kind = "stopped" if own.has_moved else "never-moved"
        return kind, f"it has moved by {distance:.0e} since the last measurement, other layers by up to {pace:.0e}"


def _direction(filters: NDArray[np.float32]) -> Floats:
    """Return w/‖w‖ of a sample of filters, every k-th of them; zeros where that is not defined."""
    sample = filters[:: -(-len(filters) // SAMPLE)].astype(np.float64)
    norm = float(np.linalg.norm(sample))
    return sample / norm if 0 < norm < math.inf else np.zeros_like(sample)


def _share(norm: float, first: float) -> float:
    return norm / first if first > 0 else math.nan


def _median(values: Sequence[float]) -> float:
    """Return the median of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan
