"""Declare the metrics of drift: a class each, with its formula, its statistics, its distance and its noise.

A new metric is one class with the decorator `register`. A subclass of HistogramMetric needs only the distance of two
distributions; noise floors, verdicts, intervals and the drift of each component follow from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from filterdb.analysis.question import Question
from filterdb.choices import MetricName as MetricName  # noqa: PLC0414 - also imported from here
from filterdb.errors import UsageError
from filterdb.numerics import divergence, noise
from filterdb.numerics.divergence import Block
from filterdb.numerics.histogram import sum_groups
from filterdb.numerics.moments import Moments, pool
from filterdb.numerics.resampling import FrechetDistance, HistogramDivergence, Statistic, SymmetricKL
from filterdb.numerics.sampling import Floor, SamplingFloor

Array = NDArray[np.float64]

FAST_LIMIT, SLOW_LIMIT = 1_000, 30
"""Largest number of groups for which noise is computed by default. A slow metric takes fifty times as long a pair."""


class Metric(ABC):
    """Define a metric of drift. A metric has no state: METRICS has one instance of each class."""

    name: ClassVar[str]

    formula: ClassVar[str]
    """The formula that results carry."""

    noise_limit: ClassVar[int] = SLOW_LIMIT
    """Largest number of groups for which noise is computed by default."""

    @property
    def label(self) -> str:
        """Return the name that figures show."""
        return self.name

    @abstractmethod
    def block(self, question: Question) -> Block:
        """Return a function that computes any block of the matrix of the question's groups."""

    @abstractmethod
    def cell_statistic(self, question: Question, cell_of_layer: NDArray[np.int64], cells: int) -> Statistic:
        """Return the drift as a function of sums over cells; a cell has the layers of one model in one group.

        `cell_of_layer` (layers,) int is the cell of each of the view's layers; there are `cells` cells.
        """

    @abstractmethod
    def sampling_floor(self, question: Question) -> Floor:
        """Return the drift of each pair that the numbers of filters alone explain, (groups, groups); NaN if unknown."""

    def component_blocks(self, question: Question, order: NDArray[np.int64]) -> list[Block]:
        """Return the unweighted block of each component, groups in `order`; none if the metric is no sum of these."""
        return []


class HistogramMetric(Metric):
    """Define a metric Σᵢ âᵢ d(Pᵢ, Qᵢ) of the histograms of the components i."""

    is_square: ClassVar[bool]
    """Whether d grows with the square of a difference of distributions, as KL does, or linearly, as a distance."""

    in_bin_widths: ClassVar[bool] = False
    """Whether d is in bin widths, so that it is multiplied by the width of a bin."""

    @abstractmethod
    def distance(self, p: Array, q: Array) -> Array:
        """Return d, (…), of each pair of prepared distributions (…, bins)."""

    def prepare(self, probabilities: Array) -> Array:
        """Prepare probabilities (…, bins) for `distance`, once for each group."""
        return probabilities

    def weighted(self, question: Question, probabilities: Array, weights: Array) -> Block:
        """Return the block of probabilities (groups, components, bins), summed over components with `weights`."""
        return divergence.by_rows(self.prepare(probabilities), weights, self._distance(question))

    def statistic(self, question: Question, counts: NDArray[Any]) -> Statistic:
        """Return the drift as a function of sums of counts (cells, K, 70)."""
        distance = self._distance(question)
        return HistogramDivergence(
            counts,
            question.snapshot_counts,
            question.weights,
            lambda p, q: distance(self.prepare(p), self.prepare(q)),
            is_square=self.is_square,
        )

    def block(self, question: Question) -> Block:
        return self.weighted(question, question.probabilities, question.weights)

    def cell_statistic(self, question: Question, cell_of_layer: NDArray[np.int64], cells: int) -> Statistic:
        return self.statistic(question, sum_groups(question.layer_counts, cell_of_layer, cells))

    def sampling_floor(self, question: Question) -> Floor:
        return noise.sampling_floor(self.statistic(question, question.counts))

    def component_blocks(self, question: Question, order: NDArray[np.int64]) -> list[Block]:
        p = question.probabilities[order]
        return [self.weighted(question, p[:, k : k + 1], np.ones(1)) for k in range(len(question.weights))]

    def _distance(self, question: Question) -> Callable[[Array, Array], Array]:
        unit = question.bin_width if self.in_bin_widths else 1.0
        return lambda p, q: unit * self.distance(p, q)


class MomentMetric(Metric):
    """Define a metric of the number, mean and covariance of the groups' filters."""

    @abstractmethod
    def between(self, groups: Moments) -> Block:
        """Return a function that computes any block of the matrix of groups."""

    @abstractmethod
    def statistic(self, cells: Moments) -> Statistic:
        """Return the drift as a function of sums over cells."""

    def block(self, question: Question) -> Block:
        return self.between(question.moments)

    def cell_statistic(self, question: Question, cell_of_layer: NDArray[np.int64], cells: int) -> Statistic:
        return self.statistic(pool(question.layer_moments, cell_of_layer, cells))

    def sampling_floor(self, question: Question) -> Floor:
        """Return NaN for each pair, because moments do not determine the distribution of filters."""
        return Floor(*np.full((2, question.groups, question.groups), np.nan))


METRICS: dict[str, Metric] = {}
"""Every metric by its name."""


def register[MetricClass: type[Metric]](metric: MetricClass) -> MetricClass:
    """Register a class of metrics in METRICS under its name."""
    METRICS[metric.name] = metric()
    return metric


def as_metric(metric: str | Metric) -> Metric:
    """Return a metric by its name. Raises UsageError for an unknown name."""
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise UsageError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    return METRICS[metric]


AnyMetric = MetricName | Metric
"""The type of the parameter `metric` of public functions."""


@register
class SymmetricKLMetric(HistogramMetric):
    """Sum KL(P‖Q) + KL(Q‖P), natural logarithm, no ½."""

    name = "kl"
    formula = "sum_i a_i (KL(P_i|Q_i) + KL(Q_i|P_i)), P1 eq. 5-6"
    noise_limit = FAST_LIMIT
    is_square = True

    @property
    def label(self) -> str:
        return "KL_sym"

    def distance(self, p: Array, q: Array) -> Array:
        return divergence.symmetric_kl(p, q)

    def weighted(self, question: Question, probabilities: Array, weights: Array) -> Block:
        """Return the block, computed by matrix products, which are faster than a loop over pairs."""
        return divergence.kl(probabilities, weights)

    def statistic(self, question: Question, counts: NDArray[Any]) -> Statistic:
        return SymmetricKL(counts, question.snapshot_counts, question.weights)

    def sampling_floor(self, question: Question) -> Floor:
        """Return the floor, computed without random draws."""
        return SamplingFloor(question.snapshot_counts, question.weights).matrix(question.counts)


@register
class PopulationStability(SymmetricKLMetric):
    """Compute the population stability index, which is the symmetric KL divergence."""

    name = "psi"
    formula = "population stability index on the same bins: the same as kl"


@register
class JensenShannon(HistogramMetric):
    """Compute the Jensen–Shannon divergence, in nats."""

    name = "js"
    formula = "sum_i a_i JS(P_i, Q_i), nats"
    is_square = True

    def distance(self, p: Array, q: Array) -> Array:
        return divergence.jensen_shannon(p, q)


@register
class Hellinger(HistogramMetric):
    """Compute the Hellinger distance."""

    name = "hellinger"
    formula = "sum_i a_i sqrt(1/2 sum (sqrt P_i - sqrt Q_i)^2)"
    is_square = False

    def prepare(self, probabilities: Array) -> Array:
        return np.sqrt(probabilities)

    def distance(self, p: Array, q: Array) -> Array:
        return divergence.of_roots(p, q)


@register
class Wasserstein(HistogramMetric):
    """Compute the 1-Wasserstein distance on the bins."""

    name = "wasserstein"
    formula = "sum_i a_i (bin width) sum |CDF_P - CDF_Q|"
    is_square = False
    in_bin_widths = True

    def prepare(self, probabilities: Array) -> Array:
        return np.cumsum(probabilities, axis=-1)

    def distance(self, p: Array, q: Array) -> Array:
        return divergence.of_sums(p, q)


@register
class Frechet(MomentMetric):
    """Compute the squared Fréchet distance of the filters' Gaussians."""

    name = "frechet"
    formula = "|m-m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2) of the filters' Gaussians, unweighted"

    def between(self, groups: Moments) -> Block:
        return divergence.frechet(groups.mean, groups.covariance)

    def statistic(self, cells: Moments) -> Statistic:
        return FrechetDistance(cells)
