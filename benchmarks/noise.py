"""Do verdicts and intervals of drift hold what they say? Groups of models drawn from one population, and shifted ones.

A model is a random effect: each of its nine coefficient distributions has a mean and a spread of its own, drawn from
the population; its filters are drawn from that. Two groups of models from one population must come out as different in
5 % of the cases at most; the interval must hold the drift of the populations in 90 %; a shifted population must be
found. One row a number of models and filters, in Markdown.
"""

from __future__ import annotations

import argparse
import os
from functools import cache
from typing import NamedTuple

# Products of a few rows: more threads than one only wait for each other.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from scipy.special import ndtr
from scipy.stats import ks_2samp

from filterdb.analysis.noise import ENOUGH_UNITS, FEW
from filterdb.analysis.units import effective_number
from filterdb.numerics import noise
from filterdb.numerics.histogram import bin_edges, sound_probabilities
from filterdb.numerics.intervals import intervals
from filterdb.numerics.noise import TIE
from filterdb.numerics.resampling import SymmetricKL
from filterdb.numerics.sampling import SamplingFloor

COMPONENTS = 9
WEIGHTS = np.array([0.42, 0.16, 0.12, 0.08, 0.07, 0.05, 0.04, 0.03, 0.03])
"""About those of trained models; the ninth component of max-scaled filters is small but not 0."""

SPREAD = np.linspace(1.0, 0.35, COMPONENTS)
EDGES = bin_edges(-3.1, 3.1)

LARGE = 100_000
"""Models whose mixture stands for the population."""

OF_MEANS, OF_SPREADS = 0.25, 0.15
"""Deviations among models: of the components' means, in spreads, and of the logarithm of their spreads."""


class Models(NamedTuple):
    """Models: normal distributions of their coefficients, cut off at the range; (models, 9) each."""

    mean: np.ndarray
    spread: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Of the bins, (models, 9, 70)."""
        below = ndtr((EDGES - self.mean[..., None]) / self.spread[..., None])
        found: np.ndarray = np.diff(below) / (below[..., -1:] - below[..., :1])
        return found

    def filters(self, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Histograms of so many filters of each, without drawing the filters: (models, 9, 70)."""
        return rng.multinomial(sizes[:, None], self.probabilities)

    def filters_one_by_one(self, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same by drawing every coefficient, again where it falls outside, and counting."""
        found = np.empty((len(sizes), COMPONENTS, len(EDGES) - 1), np.int64)
        for i, size in enumerate(sizes):
            for k in range(COMPONENTS):
                values = rng.normal(self.mean[i, k], self.spread[i, k], size)
                while (outside := (values < EDGES[0]) | (values > EDGES[-1])).any():
                    values[outside] = rng.normal(self.mean[i, k], self.spread[i, k], outside.sum())
                found[i, k] = np.histogram(values, EDGES)[0]
        return found


def models(number: int, rng: np.random.Generator, shift: float = 0.0) -> Models:
    """Drawn from the population, or from the one whose first component lies `shift` spreads off."""
    mean = rng.normal(0, OF_MEANS, (number, COMPONENTS)) * SPREAD
    mean[:, 0] += shift * SPREAD[0]
    return Models(mean, SPREAD * np.exp(rng.normal(0, OF_SPREADS, (number, COMPONENTS))))


def in_both(number: int, rng: np.random.Generator, shift: float = 0.0) -> tuple[Models, Models]:
    """Models that are in two groups, say of layers: half of their variance is the same in both."""
    common, *own = (models(number, rng) for _ in range(3))
    root = np.sqrt(0.5)
    sides = [
        Models(
            (common.mean + part.mean) * root, SPREAD * np.exp(np.log(common.spread * part.spread / SPREAD**2) * root)
        )
        for part in own
    ]
    sides[1].mean[:, 0] += shift * SPREAD[0]
    return sides[0], sides[1]


def sizes_of(number: int, filters: int, rng: np.random.Generator) -> np.ndarray:
    """Of the models of a group of so many filters: they vary about threefold."""
    share = rng.lognormal(0, 0.5, number)
    return np.maximum(1, np.round(share / share.sum() * filters)).astype(np.int64)


@cache
def mixture(shift: float = 0.0) -> np.ndarray:
    """Of a large number of models, (9, 70)."""
    rng = np.random.default_rng(0)
    found: np.ndarray = np.mean(
        [models(1_000, rng, shift).probabilities.mean(axis=0) for _ in range(LARGE // 1_000)], 0
    )
    return found


def between(p: np.ndarray, q: np.ndarray) -> float:
    """The drift of two distributions (9, 70)."""
    return float(((p - q) * np.log(p / q)).sum(axis=-1) @ WEIGHTS)


class Case(NamedTuple):
    """What is tried: models and filters in each group."""

    models: int
    others: int
    filters: int
    shared: bool
    draws: int

    def groups(self, shift: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Histograms of two groups, the second shifted, (models, 9, 70) each."""
        if self.shared:
            both = in_both(self.models, rng, shift)
        else:
            both = models(self.models, rng), models(self.others, rng, shift)
        one, other = (part.filters(sizes_of(len(part.mean), self.filters, rng), rng) for part in both)
        return one, other


class Trial(NamedTuple):
    """Two groups: whether either floor calls them different, the models' floor, the interval of their drift."""

    by_filters: bool
    by_models: bool
    floor: float
    interval: np.ndarray

    def holds(self, truth: float) -> float:
        """Whether the interval has the truth in it; NaN without one."""
        low, high = self.interval
        return float(low <= truth <= high) if np.isfinite(low) else np.nan


def trial(case: Case, shift: float, whole: np.ndarray, filters: SamplingFloor, rng: np.random.Generator) -> Trial:
    """Two groups, judged."""
    one, other = case.groups(shift, rng)
    counts = np.concatenate([one, other])
    group, model = np.repeat([0, 1], [len(one), len(other)]), np.arange(len(counts))
    if case.shared:
        model %= len(one)
    sums = np.stack([one.sum(axis=0), other.sum(axis=0)])
    drift = between(*sound_probabilities(sums, whole))
    statistic = SymmetricKL(counts, whole, WEIGHTS)
    permuted = noise.model_floor(statistic, group, model, 2, case.draws)
    floor = permuted.floor
    interval = intervals(np.array([[0.0, drift], [drift, 0.0]]), statistic, group, model, permuted, case.draws)
    effective = min(effective_number(cells[:, 0].sum(axis=-1).astype(np.float64)) for cells in (one, other))
    if effective < ENOUGH_UNITS or sums[:, 0].sum(axis=-1).min() < FEW:
        interval[:] = np.nan
    return Trial(
        bool(drift > filters.between(sums[0], sums[1:]).q95[0]),
        bool(drift > floor.q95[0, 1] * (1 + TIE)),
        floor.q95[0, 1],
        interval[0, 1],
    )


def _share(held: list[float]) -> float:
    """Return the share of the intervals that hold the truth; NaN if fewer than a tenth of the trials have one."""
    there = np.array(held)[np.isfinite(held)]
    return float(there.mean()) if len(there) >= 0.1 * len(held) else np.nan


def row(case: Case, shifts: list[float], trials: int) -> list[str]:
    """The cells of all trials of a case."""
    rng = np.random.default_rng([case.models, case.filters, trials])
    # The snapshot: many more filters than the two groups, from the same population.
    whole = np.round(mixture() * 1e8).astype(np.int64)
    filters = SamplingFloor(whole, WEIGHTS)
    null = [trial(case, 0.0, whole, filters, rng) for _ in range(trials)]
    far = [[trial(case, shift, whole, filters, rng) for _ in range(trials)] for shift in shifts]
    found = [
        np.mean([one.by_filters for one in null]),
        np.mean([one.by_models for one in null]),
        _share([one.holds(0.0) for one in null]),
    ]
    for shift, some in zip(shifts, far, strict=True):
        truth = between(*(sound_probabilities(np.round(mixture(at) * 1e12), whole) for at in (0.0, shift)))
        found += [np.mean([one.by_models for one in some]), _share([one.holds(truth) for one in some])]
    floor = np.median([one.floor for one in null])
    return [f"{floor:.2g}", *("–" if np.isnan(value) else f"{value:.1%}" for value in found)]


def check(trials: int, rng: np.random.Generator) -> None:
    """Whether histograms drawn at once are those of filters drawn one by one: drift of groups of three models."""
    whole = np.round(mixture() * 1e8).astype(np.int64)
    for filters in (1_000, 20_000):
        found = []
        for draw in (Models.filters, Models.filters_one_by_one):
            sums = [
                [draw(models(3, rng), sizes_of(3, filters, rng), rng).sum(axis=0) for _ in range(2)]
                for _ in range(trials)
            ]
            found.append([between(*sound_probabilities(np.stack(two), whole)) for two in sums])
        same = ks_2samp(*found)
        print(
            f"{filters:,} filters, {trials} trials: median drift {np.median(found[0]):.4g} at once, "
            f"{np.median(found[1]):.4g} one by one; Kolmogorov–Smirnov p = {same.pvalue:.2f}"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--models", type=int, nargs="+", default=[3, 5, 10, 30], help="in each group")
    parser.add_argument("--others", type=int, help="models of the other group, where it has not as many")
    parser.add_argument("--filters", type=int, nargs="+", default=[200, 1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--shifts", type=float, nargs="*", default=[0.75, 1.5], help="in spreads of component 0")
    parser.add_argument("--shared", action="store_true", help="the same models are in both groups")
    parser.add_argument("--check", action="store_true", help="only compare the draws with filters drawn one by one")
    options = parser.parse_args()
    if options.check:
        check(options.trials, np.random.default_rng(1))
        return
    drifts = ", ".join(f"{shift:g} ({between(mixture(), mixture(shift)):.2g})" for shift in options.shifts)
    print(
        f"{options.trials} trials a row, {options.draws} permutations and draws; shifts (and their drift): {drifts}\n"
    )
    names = ["models", "filters", "model floor", "different, by filters", "**different, by models**", "0 in interval"]
    for shift in options.shifts:
        names += [f"{shift:g} found", f"{shift:g} in interval"]
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names), flush=True)
    for number in options.models:
        others = options.others or number
        for filters in options.filters:
            case = Case(number, others, filters, options.shared, options.draws)
            cells = row(case, options.shifts, options.trials)
            cells[2] = f"**{cells[2]}**"
            who = f"{number}" if others == number else f"{number} and {others}"
            print(f"| {who} | {filters:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
