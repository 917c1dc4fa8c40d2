"""Measure verdicts and intervals where their assumptions are strained: unequal sizes, tails, copies, many pairs.

Models are random effects as in `noise.py`, or mixtures of the layers of real models (`real_layers.py`). A row is a kind
of population and a number of groups; its cells are the false verdicts `different` of groups of one population, per pair
and per matrix, the coverage of the intervals, and the power for one shifted group. `--trials 1 --draws 200` takes 15 s.
One Markdown row a case.
"""

from __future__ import annotations

import argparse
import os
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from noise import SPREAD, WEIGHTS, Models, between, models
from real_layers import pseudo_models

from filterdb.analysis.noise import ENOUGH_UNITS, Verdicts, decide
from filterdb.analysis.units import effective_number
from filterdb.numerics import divergence, noise
from filterdb.numerics.histogram import sound_probabilities
from filterdb.numerics.intervals import intervals
from filterdb.numerics.largest import largest_p_values
from filterdb.numerics.resampling import SymmetricKL
from filterdb.numerics.sampling import SamplingFloor
from filterdb.numerics.significance import LEVEL
from filterdb.verdicts import BY_MODELS, DIFFERENT

REAL = "real filters"
TAILS = ("normal", "heavy tails", "two modes", REAL)

EQUAL, THREEFOLD, DECADES = "equal", "threefold", "three decades"
SIGMA = {EQUAL: 0.0, THREEFOLD: 0.5, DECADES: 1.7}
"""Deviation of the logarithm of the models' sizes; 95 % of log-normal sizes with 1.7 lie within three decades."""

LIKENESS = 0.95
"""Share of a copy's differences from the population that it has from its original."""


SHIFTED = 4
"""There are so many times fewer trials with a shift than without."""


class Case(NamedTuple):
    """Describe a population: groups, independent models a group, related copies of each, filters, sizes, shape."""

    groups: int = 2
    units: int = 8
    copies: int = 1
    filters: int = 20_000
    sizes: str = THREEFOLD
    shape: str = "normal"
    units_known: bool = True
    database: str = ""

    @property
    def name(self) -> str:
        """Return the cells that describe the case."""
        copies = f"{self.copies}{'' if self.units_known or self.copies == 1 else ', unknown'}"
        return f"{self.groups} | {self.units} | {copies} | {self.sizes} | {self.shape}"


def population(case: Case, number: int, rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """Return the bins' probabilities of models from the case's population, (number, 9, 70)."""
    if case.shape == REAL:
        return pseudo_models(case.database, number, rng, shift)
    drawn = models(number, rng, shift)
    if case.shape == "normal":
        return drawn.probabilities
    if case.shape == "heavy tails":
        # A quarter of each model's filters has three times the spread; models' means have tails as well.
        means = np.clip(drawn.mean * rng.standard_t(3, (number, 1)), -2, 2)
        wide = Models(means, np.minimum(3 * drawn.spread, 2.0))
        return 0.75 * drawn.probabilities + 0.25 * wide.probabilities
    # Two kinds of models, and two modes inside each model.
    kind = np.where(rng.random((number, 1)) < 0.5, -0.6, 0.6) * SPREAD
    modes = [Models(drawn.mean + kind + side * SPREAD, 0.5 * drawn.spread).probabilities for side in (-0.8, 0.8)]
    mixed: np.ndarray = 0.5 * (modes[0] + modes[1])
    return mixed


def zoo(case: Case, rng: np.random.Generator, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the histograms of all models (models, 9, 70), their groups and their units; the last group is shifted."""
    counts, group, unit = [], [], []
    for label in range(case.groups):
        moved = shift if label == case.groups - 1 else 0.0
        own = population(case, case.units, rng, moved)
        for i, original in enumerate(own):
            strangers = population(case, case.copies, rng, moved)
            alike = LIKENESS * original + (1 - LIKENESS) * strangers
            alike[0] = original
            counts.append(alike)
            group += [label] * case.copies
            unit += [label * case.units + i] * case.copies
    probabilities = np.concatenate(counts)
    share = rng.lognormal(0, SIGMA[case.sizes], len(probabilities))
    if case.sizes == DECADES:
        share = 10 ** rng.uniform(0, 3, len(probabilities))
    sizes = np.maximum(1, np.round(share / share.mean() * case.filters / case.units)).astype(np.int64)
    return rng.multinomial(sizes[:, None], probabilities), np.array(group), np.array(unit)


class Trial(NamedTuple):
    """Hold the verdicts of a matrix, the p-values of its largest drift, its intervals and effective units."""

    verdicts: Verdicts
    largest: np.ndarray
    interval: np.ndarray
    effective: np.ndarray


def trial(
    case: Case, shift: float, whole: np.ndarray, by_filters: SamplingFloor, rng: np.random.Generator, draws: int
) -> Trial:
    """Judge a matrix of groups as `drift` does."""
    counts, group, unit = zoo(case, rng, shift)
    _, cell = np.unique(unit if case.units_known else np.arange(len(unit)), return_inverse=True)
    cells = np.zeros((cell.max() + 1, *counts.shape[1:]), np.int64)
    np.add.at(cells, cell, counts)
    of_cell = np.zeros(len(cells), np.int64)
    of_cell[cell] = group
    sums = np.stack([cells[of_cell == label].sum(axis=0) for label in range(case.groups)])
    p = sound_probabilities(sums, whole)
    drift = divergence.whole(case.groups, divergence.kl(p, WEIGHTS))
    statistic = SymmetricKL(cells, whole, WEIGHTS)
    index = np.arange(len(cells))
    permuted = noise.model_floor(statistic, of_cell, index, case.groups, draws)
    floor = by_filters.matrix(sums)
    few = sums[:, 0].sum(axis=-1) < 1_000
    sizes = cells[:, 0].sum(axis=-1).astype(np.float64)
    effective = np.array([effective_number(sizes[of_cell == label]) for label in range(case.groups)])
    interval = intervals(drift, statistic, of_cell, index, permuted, draws)
    too_few = effective < ENOUGH_UNITS
    interval[too_few[:, None] | too_few] = np.nan
    largest = largest_p_values(statistic, of_cell, index, case.groups, np.arange(case.groups))
    return Trial(decide(drift, floor, permuted, few), largest, interval, effective)


def row(case: Case, shifts: list[float], trials: int, draws: int, seed: int) -> str:
    """Return the cells of a case. Power is that at the last of the shifts."""
    rng = np.random.default_rng([case.groups, case.units, case.copies, trials, TAILS.index(case.shape), seed])
    many = mean_of(case, 0.0)
    whole = np.round(many * 1e8).astype(np.int64)
    by_filters = SamplingFloor(whole, WEIGHTS)
    null = [trial(case, 0.0, whole, by_filters, rng, draws) for _ in range(trials)]
    pairs = np.triu_indices(case.groups, 1)
    last = pairs[1] == case.groups - 1
    coverage, found = [_percent(np.concatenate([_held(result.interval[pairs], 0.0) for result in null]))], ""
    for shift in shifts:
        far = [trial(case, shift, whole, by_filters, rng, draws) for _ in range(-(-trials // SHIFTED))]
        both = (sound_probabilities(np.round(part * 1e12), whole) for part in (many, mean_of(case, shift)))
        truth = between(*both)
        coverage.append(_percent(np.concatenate([_held(result.interval[pairs][last], truth) for result in far])))
        found = _percent(np.concatenate([(result.verdicts.verdict[pairs] == DIFFERENT)[last] for result in far]))
    p_values = np.concatenate([result.verdicts.p_value[pairs] for result in null])
    judged = np.concatenate([result.verdicts.judged_by[pairs] == BY_MODELS for result in null])
    different = [result.verdicts.verdict[pairs] == DIFFERENT for result in null]
    named = [np.nanmin(result.largest) <= LEVEL for result in null]
    cells = [
        f"{np.median(np.concatenate([result.effective for result in null])):.1f}",
        _percent((p_values <= LEVEL)[judged]),
        _percent(np.concatenate(different)),
        f"**{_percent(np.array([matrix.any() for matrix in different]))}**",
        _percent(np.array(named)),
        found,
        *coverage,
    ]
    return " | ".join(cells)


def mean_of(case: Case, shift: float) -> np.ndarray:
    """Return the mean of the population's bins, (9, 70). Each shift has the same models."""
    rng = np.random.default_rng(1)
    parts = [population(case, 1_000, rng, shift).mean(axis=0) for _ in range(10)]
    mean: np.ndarray = np.mean(parts, axis=0)
    return mean


def _held(interval: np.ndarray, truth: float) -> np.ndarray:
    """Return for each interval (pairs, 2) that there is whether it contains the truth."""
    there = interval[np.isfinite(interval[:, 0])]
    held: np.ndarray = (there[:, 0] <= truth) & (truth <= there[:, 1])
    return held


def _percent(values: np.ndarray) -> str:
    return f"{values.mean():.1%}" if values.size else "none"


CASES = (
    Case(sizes=EQUAL),
    Case(),
    Case(sizes=DECADES),
    Case(units=20, sizes=DECADES),
    Case(shape="heavy tails"),
    Case(shape="two modes"),
    Case(shape="two modes", sizes=DECADES),
    *(Case(copies=copies) for copies in (2, 5, 10)),
    Case(copies=5, sizes=DECADES),
    Case(copies=5, units_known=False),
    Case(groups=16),
    Case(groups=16, sizes=DECADES),
    Case(groups=16, shape="heavy tails"),
    Case(groups=16, copies=3),
    Case(shape=REAL),
    Case(units=20, shape=REAL),
    Case(units=20, sizes=DECADES, shape=REAL),
    Case(copies=5, shape=REAL),
    Case(groups=16, shape=REAL),
    Case(units=5, sizes=EQUAL),
    Case(units=30, sizes=EQUAL),
    Case(units=10),
    Case(units=30),
    Case(units=10, filters=1_000),
    Case(units=40, sizes=DECADES),
    Case(units=20, shape="heavy tails"),
    Case(units=20, shape="two modes"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--trials", type=int, default=100, help="matrices of 16 groups; of two groups ten times as many"
    )
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument(
        "--shifts", type=float, nargs="*", default=[0.4, 0.75, 1.5], help="of the last group, in spreads"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", default="filterdb-demo/db", help="whose layers make the real filters")
    parser.add_argument("--cases", type=int, nargs="*", help="positions of the cases; all if left out")
    options = parser.parse_args()
    print(
        f"{options.trials} matrices of 16 groups a row, ten times as many of two; a quarter as many with each shift; "
        f"{options.draws} permutations, seed {options.seed}\n"
    )
    names = ["groups", "units", "copies", "sizes", "shape", "effective units", "p ≤ 0.05, pairs", "different, pairs",
             "**different, matrices**", "largest named", f"{max(options.shifts, default=0):g} found", "0 in interval",
             *(f"{shift:g} in interval" for shift in options.shifts)]  # fmt: skip
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names), flush=True)
    for position in options.cases or range(len(CASES)):
        case = CASES[position]._replace(database=options.database)
        trials = options.trials * (10 if case.groups == 2 else 1)
        print(f"| {case.name} | {row(case, options.shifts, trials, options.draws, options.seed)} |", flush=True)


if __name__ == "__main__":
    main()
