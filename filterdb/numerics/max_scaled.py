"""Compute moments of max-scaled noise for filters of any number of weights, as the test of sphericity needs them.

A filter of K independent weights w of one symmetric distribution is divided by M, its largest |w|. Given M, one weight
is ±1 and the others are independent draws from |w| < M, divided by M. So every moment of a scaled filter is an integral
over M, whose distribution function is F^K:

    E[u²]   = (1 + (K−1) a₂) / K,              a_p = E_M E[|w/M|^p : |w| < M]
    E[u⁴]   = (1 + (K−1) a₄) / K
    E[u²v²] = (2 a₂ + (K−2) b) / K,            b = E_M (E[(w/M)² : |w| < M])²

and the moments of the squared norm 1 + Σ x follow from the cumulants of x = (w/M)². The integrals are sums over a grid
of ln M. Simulation agrees (`benchmarks/randomness.py --constants`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DEGREES = (1.5, 2, 3, 4, 5, 7, 10, 20, 50)
"""Degrees of freedom of Student's t: weights with heavier tails than normal ones."""

LIMITS = (np.inf, 4, 3.5, 3, 2.75, 2.5, 2.25, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.01)
"""Limits in standard deviations beyond which normal weights are not drawn; the last of them makes uniform weights."""

_CELLS = 3_000
"""Cells of the grid of ln M. More change no constant by more than 1e-6."""

_LARGEST_NORMAL = 10.0
_LARGEST_T = 1e5
"""Largest |w| of normal weights and of Student's t with more than 3 degrees of freedom."""

Floats = NDArray[np.float64]


class Variances(NamedTuple):
    """Hold what the test of sphericity needs, at increasing squared norms, (knots,) each.

    Knots are distributions of weights: Student's t, then normal, truncated normal and uniform ones. Networks are
    initialised by the latter three. For heavier tails the variance also depends on the distribution: that of Student's
    t is the larger one, for which the test rejects less.
    """

    squared_norm: Floats
    """Mean squared norm of a scaled filter."""

    off: Floats
    """E[u²v²] / E[u²]² for two weights u, v of a scaled filter."""

    diagonal: Floats
    """(E[u⁴] − E[u²v²]) / 2 E[u²]²."""

    excess: Floats
    """n times the relative amount by which the variance of the statistic exceeds that of χ², for n filters."""


@cache
def variances(weights: int) -> Variances:
    """Return the variances for filters of K ≥ 2 weights; computed once, in about 20 ms."""
    knots = np.array([_norms(x, powers, weights) for x, powers in _noise()]).T
    # For few weights the squared norm is not monotonic in the degrees of freedom: leave out what is heavier than that.
    first = 1 + max(np.flatnonzero(np.diff(knots[0]) <= 0), default=-1)
    norm, square, cube, fourth, single, mixed = knots[:, first:]
    second = norm / weights
    off, diagonal = mixed / second**2, (single - mixed) / (2 * second**2)
    slope = np.gradient(np.log(off), np.log(norm))
    # The filters' own products |u|⁴ are part of Q: square / norm² · K²/2 on average. How much that varies from sample
    # to sample follows from the covariance of Σ|u|⁴ and Σ|u|² (the delta method).
    by_square, by_norm = 1 / square, -(2 + slope) / norm
    relative = (
        by_square**2 * (fourth - square**2)
        + 2 * by_square * by_norm * (cube - square * norm)
        + by_norm**2 * (square - norm**2)
    )
    own = weights**2 / 2 * square / (norm**2 * off)
    return Variances(norm, off, diagonal, own**2 * relative / (weights * (weights + 1) - 2))


@cache
def _noise() -> tuple[tuple[Floats, Floats], ...]:
    """Return for each distribution a grid of M, and ∫ |w|^p f(w) dw up to M for p = 0, 2, 4, 6, 8, (5, grid)."""
    tables = []
    for degrees in DEGREES:
        top = _LARGEST_T if degrees > 3 else 1e13 ** (1 / degrees)
        tables.append(_integrals(top, partial(_student, degrees)))
    tables += [_integrals(min(limit, _LARGEST_NORMAL), _normal) for limit in LIMITS]
    return tuple(tables)


def _student(degrees: float, x: Floats) -> Floats:
    density: Floats = (1 + x * x / degrees) ** (-(degrees + 1) / 2)
    return density


def _normal(x: Floats) -> Floats:
    density: Floats = np.exp(-x * x / 2)
    return density


def _integrals(top: float, density: Callable[[Floats], Floats]) -> tuple[Floats, Floats]:
    """Return a grid up to `top`, and the integrals of |w|^p times the density up to each of its points (Simpson)."""
    place = np.linspace(1, 0, 2 * _CELLS + 1)
    span = 25 + max(np.log(top), 0.0)
    x = top * np.exp(-span * place**2)  # dense near the top, where truncated weights have their largest
    own = density(x) * x * 2 * span * place
    tables = []
    for power in (0, 2, 4, 6, 8):
        values = own * x**power
        cells = (values[:-2:2] + 4 * values[1::2] + values[2::2]) / (6 * _CELLS)
        tables.append(np.concatenate([[density(x[:1])[0] * x[0] ** (power + 1) / (power + 1)], cells]).cumsum())
    return x[::2], np.stack(tables)


def _norms(x: Floats, powers: Floats, weights: int) -> tuple[float, ...]:
    """Return the mean of |u|², |u|⁴, |u|⁶ and |u|⁸ of scaled filters, then E[u⁴] and E[u²v²] of single weights."""
    cumulative = (powers[0] / powers[0, -1]) ** weights
    cells, before = np.diff(cumulative), cumulative[0]

    def mean(values: Floats) -> float:
        """Return the mean over the distribution of M of values at the grid's points."""
        return float(cells @ (values[1:] + values[:-1]) / 2 + before * values[0])

    m1, m2, m3, m4 = (powers[k] / powers[0] / x ** (2 * k) for k in (1, 2, 3, 4))  # moments of (w/M)² given M
    rest = weights - 1
    centre = 1 + rest * m1
    variance = rest * (m2 - m1**2)
    third = rest * (m3 - 3 * m2 * m1 + 2 * m1**3)
    fourth = rest * (m4 - 4 * m3 * m1 - 3 * m2**2 + 12 * m2 * m1**2 - 6 * m1**4) + 3 * variance**2
    return (
        mean(centre),
        mean(centre**2 + variance),
        mean(centre**3 + 3 * centre * variance + third),
        mean(centre**4 + 6 * centre**2 * variance + 4 * centre * third + fourth),
        (1 + rest * mean(m2)) / weights,
        (2 * mean(m1) + (weights - 2) * mean(m1**2)) / weights,
    )
