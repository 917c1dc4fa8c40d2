"""Repeat three rows of the table in docs/explanation/noise.md without any code of filterdb.

Everything is written anew from docs/explanation/method.md and noise.md: the models, drawn filter by filter with another
generator, the histograms, the drift, the permutation test and the correction for many pairs. For each rate the script
prints its own value, the published one and how many standard errors of the difference lie between them. It exits with
1 if any are 4 or more apart. `--trials 10` takes about a minute.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import truncnorm

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "noise.md"

A_HAT = np.array([0.42, 0.16, 0.12, 0.08, 0.07, 0.05, 0.04, 0.03, 0.03])
SIGMA = np.linspace(1.0, 0.35, 9)
LIMIT = 3.1
GROUP_FILTERS = 20_000
SHIFT = 1.5


class Row(NamedTuple):
    """Describe a row: its first cells on the page, and how many matrices it was measured with."""

    label: str
    groups: int
    units: int
    copies: int
    matrices: int
    shifted: int


ROWS = (
    Row("2 | 8 | 1 | threefold | normal", 2, 8, 1, 400, 100),
    Row("2 | 8 | 5 | threefold | normal", 2, 8, 5, 400, 100),
    Row("16 | 8 | 1 | threefold | normal", 16, 8, 1, 40, 10),
)


def draw_model(rng: np.random.Generator, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the deviation of a model's nine coefficients."""
    center = 0.25 * SIGMA * rng.standard_normal(9)
    center[0] += shift * SIGMA[0]
    return center, SIGMA * np.exp(0.15 * rng.standard_normal(9))


def draw_filters(model: tuple[np.ndarray, np.ndarray], number: int, rng: np.random.Generator) -> np.ndarray:
    """Return the coefficients of filters, (number, 9), none outside ±LIMIT."""
    center, deviation = model
    low, high = (-LIMIT - center) / deviation, (LIMIT - center) / deviation
    drawn: np.ndarray = truncnorm.ppf(rng.random((number, 9)), low, high) * deviation + center
    return drawn


def histogram(coefficients: np.ndarray) -> np.ndarray:
    """Return the counts of 70 equal bins of each of nine coefficients, (630,)."""
    place = np.minimum((coefficients + LIMIT) / (2 * LIMIT) * 70, 69).astype(int)
    return np.bincount((place + 70 * np.arange(9)).ravel(), minlength=630).astype(float)


def draw_unit(row: Row, shift: float, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the histogram of a model and its copies, 5 % of whose filters come from elsewhere."""
    original = draw_model(rng, shift)
    total = np.zeros(630)
    for copy, size in enumerate(sizes):
        strange = 0 if copy == 0 else rng.binomial(size, 0.05)
        total += histogram(draw_filters(original, size - strange, rng))
        if copy:
            total += histogram(draw_filters(draw_model(rng, shift), strange, rng))
    return total


def drift(left: np.ndarray, right: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """Return D of histograms (rows, 630): (c + 35π)/(n + 35), both directions of KL, weighted by â."""
    p, q = ((c + 35 * pi) / (c[:, :70].sum(axis=1, keepdims=True) + 35) for c in (left, right))
    distance: np.ndarray = ((p - q) * np.log(p / q)) @ np.repeat(A_HAT, 70)
    return distance


def p_value(units: np.ndarray, in_first: np.ndarray, pi: np.ndarray, draws: int, rng: np.random.Generator) -> float:
    """Return the share of random permutations of units (units, 630) that drift as much as the first, the actual one."""
    at_least, done, actual = 1, 1, 0.0
    while done < draws:
        size = min(2_000, draws - done)
        sides = rng.permuted(np.tile(in_first, (size + 1, 1)), axis=1)
        sides[0] = in_first
        drifts = drift(sides @ units, (1 - sides) @ units, pi)
        actual = drifts[0]
        at_least += int((drifts[1:] >= actual * (1 - 1e-9)).sum())
        done += size
    return at_least / done


def different(p: np.ndarray) -> np.ndarray:
    """Return which of the tests are rejected at a false-discovery rate of 5 % (Benjamini and Yekutieli)."""
    number = len(p)
    factor = sum(1 / k for k in range(1, number + 1))
    ordered = np.sort(p)
    passed = [k for k in range(1, number + 1) if ordered[k - 1] <= 0.05 * k / (number * factor)]
    return p <= (ordered[passed[-1] - 1] if passed else -1.0)


def judge(row: Row, shift: float, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return p-values and verdicts of all pairs of groups of a matrix, and whether the last group is in a pair."""
    units = []
    for label in range(row.groups):
        share = np.exp(0.5 * rng.standard_normal(row.units * row.copies))
        sizes = np.maximum(1, np.rint(share / share.mean() * GROUP_FILTERS / len(share))).astype(int)
        moved = shift if label == row.groups - 1 else 0.0
        parts = sizes.reshape(row.units, row.copies)
        units.append([draw_unit(row, moved, part, rng) for part in parts])
    counts = np.array(units)
    whole = counts.sum(axis=(0, 1))
    pi = (whole + 0.5) / (whole[:70].sum() + 35)
    pairs = [(i, j) for i in range(row.groups) for j in range(i)]
    in_first = np.repeat([1.0, 0.0], row.units)
    p = np.array([p_value(np.concatenate([counts[i], counts[j]]), in_first, pi, draws, rng) for i, j in pairs])
    if len(pairs) > 1:
        for k in np.flatnonzero(p <= 5 / draws):  # too coarse for the correction
            i, j = pairs[k]
            p[k] = p_value(np.concatenate([counts[i], counts[j]]), in_first, pi, 20_000, rng)
    return p, different(p), np.array([i == row.groups - 1 for i, _ in pairs])


def published(row: Row) -> tuple[float, float, float]:
    """Return p ≤ 0.05, matrices with a difference, and shifts found, as printed on the page."""
    line = next(line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| {row.label} |"))
    cells = [re.sub(r"[*% ]", "", cell) for cell in line.strip("| ").split("|")]
    return float(cells[6]) / 100, float(cells[8]) / 100, float(cells[10]) / 100


def compare(name: str, own: float, number: float, theirs: float, their_number: float) -> float:
    """Print two rates and return by how many standard errors they differ."""
    pooled = (own * number + theirs * their_number) / (number + their_number)
    # Half an event more keeps the error above 0.
    pooled = min(max(pooled, 0.5 / (number + their_number)), 1 - 0.5 / (number + their_number))
    error = np.sqrt(pooled * (1 - pooled) * (1 / number + 1 / their_number))
    apart = abs(own - theirs) / error
    print(
        f"  {name}: {own:.1%} of {number:,.0f}, published {theirs:.1%} of {their_number:,.0f}: {apart:.1f} errors apart"
    )
    return float(apart)


def main() -> None:
    """Print each rate and its published value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--trials", type=int, default=100, help="pairs of groups; an eighth as many matrices of 16 groups"
    )
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    largest = 0.0
    for row in (ROWS[k] for k in options.rows):
        rng = np.random.Generator(np.random.SFC64([options.seed, row.groups, row.copies]))
        trials = options.trials if row.groups == 2 else -(-options.trials // 8)
        null = [judge(row, 0.0, options.draws, rng) for _ in range(trials)]
        far = [judge(row, SHIFT, options.draws, rng) for _ in range(-(-trials // 4))]
        theirs = published(row)
        pairs = row.groups * (row.groups - 1) // 2
        print(f"{row.label}", flush=True)
        p = np.concatenate([p for p, _, _ in null])
        found = np.concatenate([verdicts[last] for _, verdicts, last in far])
        # Pairs that share a group are not independent: count as many of them as there are groups.
        effective = 1 if row.groups == 2 else row.groups
        largest = max(
            largest,
            compare("p ≤ 0.05", float((p <= 0.05).mean()), trials * min(pairs, effective), theirs[0],
                    row.matrices * min(pairs, effective)),
            compare("matrices with any `different`", float(np.mean([v.any() for _, v, _ in null])), trials, theirs[1],
                    row.matrices),
            compare("shift found", float(found.mean()), len(far), theirs[2], row.shifted),
        )  # fmt: skip
    sys.exit(int(largest >= 4))


if __name__ == "__main__":
    main()
