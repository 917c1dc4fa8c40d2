"""Do verdicts and intervals of drift hold what they say? Groups of models drawn from one population, and shifted ones.

A model is a random effect: each of its nine coefficient distributions has a mean and a spread of its own, drawn from
the population; its filters are drawn from that. Two groups of models from one population must come out as different in
5 % of the cases at most; the interval must hold the drift of the populations in 95 %; a shifted population must be
found. One row a number of models and filters, in Markdown.
"""

from __future__ import annotations

import argparse
from functools import cache
from typing import NamedTuple

import numpy as np

from filterdb.analysis.noise import TIE
from filterdb.numerics import noise
from filterdb.numerics.histogram import bin_edges, sound_probabilities
from filterdb.numerics.paired import SymmetricKL
from filterdb.numerics.sampling import SamplingFloor

COMPONENTS = 9
WEIGHTS = np.array([0.42, 0.16, 0.12, 0.08, 0.07, 0.05, 0.04, 0.03, 0.03])
"""About those of trained models; the ninth component of max-scaled filters is small but not 0."""

SPREAD = np.linspace(1.0, 0.35, COMPONENTS)
EDGES = bin_edges(-3.1, 3.1)
MIDDLES = (EDGES[1:] + EDGES[:-1]) / 2

LARGE = 100_000
"""Models whose mixture stands for the population."""


class Population(NamedTuple):
    """Models whose components have these deviations (in spreads) of their means and of the log of their spreads."""

    of_means: float
    of_spreads: float
    shift: float = 0.0
    """Of the first component's mean, in its spreads."""

    def models(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Probabilities of the bins of so many models, (models, 9, 70)."""
        mean = rng.normal(0, self.of_means, (number, COMPONENTS)) * SPREAD
        mean[:, 0] += self.shift * SPREAD[0]
        spread = SPREAD * np.exp(rng.normal(0, self.of_spreads, (number, COMPONENTS)))
        away = (MIDDLES - mean[..., None]) / spread[..., None]
        density = np.exp(-(away**2) / 2)
        found: np.ndarray = density / density.sum(axis=-1, keepdims=True)
        return found

    def group(self, models: int, filters: int, rng: np.random.Generator) -> np.ndarray:
        """Histograms of the models of a group, (models, 9, 70); sizes vary about threefold."""
        share = rng.lognormal(0, 0.5, models)
        sizes = np.maximum(1, np.round(share / share.sum() * filters)).astype(np.int64)
        return rng.multinomial(sizes[:, None], self.models(models, rng))


@cache
def mixture(population: Population) -> np.ndarray:
    """Of a large number of models, (9, 70)."""
    rng = np.random.default_rng(0)
    found: np.ndarray = np.mean([population.models(1_000, rng).mean(axis=0) for _ in range(LARGE // 1_000)], axis=0)
    return found


class Row(NamedTuple):
    """What a case gave, each a share of its trials."""

    by_filters: float
    by_models: float
    holds: float
    power: float
    holds_shifted: float


def between(p: np.ndarray, q: np.ndarray) -> float:
    """The drift of two distributions (9, 70)."""
    return float(((p - q) * np.log(p / q)).sum(axis=-1) @ WEIGHTS)


class Trial(NamedTuple):
    """Two groups: whether either floor calls them different, and the interval of their drift."""

    by_filters: bool
    by_models: bool
    interval: np.ndarray

    def holds(self, truth: float) -> float:
        """Whether the interval has the truth in it; NaN without one."""
        low, high = self.interval
        return float(low <= truth <= high) if np.isfinite(low) else np.nan


def trial(one: np.ndarray, other: np.ndarray, whole: np.ndarray, floor: SamplingFloor, draws: int) -> Trial:
    """Two groups (models, 9, 70), judged."""
    counts = np.concatenate([one, other])
    group, model = np.repeat([0, 1], [len(one), len(other)]), np.arange(len(counts))
    sums = np.stack([one.sum(axis=0), other.sum(axis=0)])
    drift = between(*sound_probabilities(sums, whole))
    statistic = SymmetricKL(counts, whole, WEIGHTS)
    by_models, _ = noise.model_floor(statistic, group, model, 2, draws)
    interval = noise.intervals(np.array([[0.0, drift], [drift, 0.0]]), statistic, group, model, draws)
    return Trial(
        bool(drift > floor.between(sums[0], sums[1:]).q95[0]),
        bool(drift > by_models.q95[0, 1] * (1 + TIE)),
        interval[0, 1],
    )


def case(same: Population, shifted: Population, models: int, filters: int, trials: int, draws: int) -> Row:
    """All trials of one number of models and filters in each group."""
    rng = np.random.default_rng([models, filters, trials])
    here, there = mixture(same), mixture(shifted)
    # The snapshot: many more filters than the two groups, from both populations.
    whole = np.round((here + there) / 2 * 1e8).astype(np.int64)
    truth = between(*(sound_probabilities(np.round(p * 1e12), whole) for p in (here, there)))
    floor = SamplingFloor(whole, WEIGHTS)
    hits = np.empty((trials, 5))
    for i in range(trials):
        null = trial(same.group(models, filters, rng), same.group(models, filters, rng), whole, floor, draws)
        far = trial(same.group(models, filters, rng), shifted.group(models, filters, rng), whole, floor, draws)
        hits[i] = null.by_filters, null.by_models, null.holds(0.0), far.by_models, far.holds(truth)
    return Row(*hits.mean(axis=0))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--models", type=int, nargs="+", default=[3, 5, 10, 30])
    parser.add_argument("--filters", type=int, nargs="+", default=[200, 1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--shift", type=float, default=0.75, help="of the planted shift, in spreads of component 0")
    options = parser.parse_args()
    same = Population(0.25, 0.15)
    shifted = same._replace(shift=options.shift)
    truth = between(mixture(same), mixture(shifted))
    print(f"{options.trials} trials a row, {options.draws} permutations and draws; drift of the shift {truth:.3g}\n")
    names = ["models", "filters", "different, by filters", "**different, by models**", "0 in interval"]
    print("| " + " | ".join([*names, "shift found", "shift in interval"]) + " |")
    print("|" + "---|" * 7)
    for models in options.models:
        for filters in options.filters:
            found = case(same, shifted, models, filters, options.trials, options.draws)
            cells = ["–" if np.isnan(value) else f"{value:.1%}" for value in found]
            cells[1] = f"**{cells[1]}**"
            print(f"| {models} | {filters:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
