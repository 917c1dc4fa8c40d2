"""The shape of a distribution of coefficients, and its phenotype: sun, spikes, symbols or point (P1 fig. 4).

P1 shows one picture of each phenotype and describes it; the rule and its constants are ours. Everything is measured in
units of the distribution's own spread, from counts in uniform bins, along one component or over a pair of components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import erf

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POINT, SPIKES, SYMBOLS, SUN, FEW = "point", "spikes", "symbols", "sun", "few"
PHENOTYPES = (SUN, SPIKES, SYMBOLS, POINT)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds between phenotypes, in the order in which they are tested; the first one that applies decides.

    Pass an instance to `phenotypes` to change some of them. A distribution that no bound applies to is a sun.
    """

    fewest: int = 1_000
    """Filters; a distribution of fewer has no phenotype ("few")."""
    narrow: float = 1.5
    """Spread in bins; a smaller one shows no shape: it is a point at the centre, spikes elsewhere."""
    point: float = 0.25
    """Excess mass at the centre; with at least this much the distribution is a point."""
    spikes: float = 0.1
    """Share of the filters in local hot spots; with at least this share the distribution is spikes."""
    departure: float = 0.08
    """Kolmogorov distance from the normal distribution; with more than this, or a second mode, it is symbols."""
    off_centre: float = 0.5
    """|mean| in standard deviations; with more than this the distribution is symbols."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The measures that decide the phenotype. `modes` and `departure` are the largest over all directions."""

    filters: int
    spread: float
    """Standard deviation in bins; for a pair the larger of the two."""
    central: float
    """Share of the filters at the centre."""
    centre_excess: float
    """Share of the filters at the centre in excess of a normal distribution of the others."""
    hot: float
    """Share of the filters by which bins, except those at the centre, are far above their surroundings."""
    modes: int
    departure: float
    """Kolmogorov distance from the normal distribution of the same mean and variance, minus 0.9/√n for chance."""
    offset: float
    """Distance of the mean from the centre in standard deviations."""

    def phenotype(self, bounds: Bounds | None = None) -> str:
        """Return the first phenotype whose condition holds."""
        bounds = bounds or Bounds()
        if self.filters < bounds.fewest:
            return FEW
        if self.spread < bounds.narrow:
            return POINT if self.central >= 0.5 else SPIKES
        if self.centre_excess >= bounds.point:
            return POINT
        if self.hot >= bounds.spikes:
            return SPIKES
        normal = self.modes == 1 and self.departure <= bounds.departure and self.offset <= bounds.off_centre
        return SUN if normal else SYMBOLS

    def measures(self) -> dict[str, float]:
        """Return the measures by name."""
        return {name: float(value) for name, value in asdict(self).items()}


CENTRE = 2.0
"""The centre: this many bins to either side of the coefficient of an all-zero filter."""

SMOOTH = 0.5
"""Width of a bin's surroundings in standard deviations of the distribution (at least one bin)."""

SMOOTH_MODES = 0.25
"""Width of the smoothing before modes are counted, in standard deviations of the component (at least one bin)."""

HOT = (2.2, 3.0)
"""A hot bin (of one component, of a pair) has at least this many times the filters of its surroundings …"""

CERTAIN = 6.0
"""… and exceeds them by at least this many standard errors."""

DIP = 0.2
"""Between two modes the density falls by at least this share of either …"""

CLEAR = 4.0
"""… and by at least this many standard errors."""

MINOR = 0.1
"""A peak lower than this share of the highest one is not a mode."""

STEP = 0.02
"""Step, in standard deviations, of the comparison with the normal distribution."""

CHANCE = 0.9
"""Lilliefors' 95 % quantile of the distance of n normal values is 0.886/√n."""


def shape(counts: np.ndarray, edges: Array, centre: Sequence[float] = (0.0, 0.0)) -> Shape:
    """Measure counts (bins,) of one component, or (bins, bins) of a pair, in bins with `edges` (bins + 1,).

    `centre` is the coefficient of an all-zero filter on each of the components.
    """
    counts = np.asarray(counts, np.float64)
    middle = (edges[1:] + edges[:-1]) / 2 / (edges[1] - edges[0])
    total = counts.sum()
    if not total:
        return Shape(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)
    marginals = [counts.sum(axis=1 - axis) for axis in range(2)] if counts.ndim == 2 else [counts]
    positions = [middle - zero / (edges[1] - edges[0]) for zero, _ in zip(centre, marginals, strict=False)]
    mean = np.array([marginal @ x for marginal, x in zip(marginals, positions, strict=True)]) / total
    second = np.array([marginal @ x**2 for marginal, x in zip(marginals, positions, strict=True)]) / total
    variance = (
        np.array([marginal @ (x - m) ** 2 for marginal, x, m in zip(marginals, positions, mean, strict=True)]) / total
    )
    # Sheppard's correction: subtract the variance that binning adds.
    spread = np.sqrt(np.maximum(variance - 1 / 12, 0.0))
    width = np.maximum(SMOOTH * spread, 1.0)
    near = [np.abs(x) < CENTRE for x in positions]
    at_centre = np.multiply.outer(*near) if counts.ndim == 2 else near[0]
    central = float(counts[at_centre].sum() / total)
    return Shape(
        filters=int(total),
        spread=float(spread.max()),
        central=central,
        centre_excess=_centre_excess(central, mean, second),
        hot=_hot(counts, width, at_centre),
        modes=max(
            _modes(marginal, max(SMOOTH_MODES * sigma, 1.0))
            for marginal, sigma in zip(marginals, spread.tolist(), strict=True)
        ),
        departure=_departure(counts, marginals, [x - m for x, m in zip(positions, mean, strict=True)]),
        offset=float((np.abs(mean) / np.maximum(spread, 1.0)).max()),
    )


def _centre_excess(central: float, mean: Array, second: Array) -> float:
    """Return p of the mixture p·(a point at the centre) + (1 − p)·(a normal distribution).

    The mixture has `central` of its mass at the centre; `mean` and `second` (components,) are its first and second
    moments. Those of the normal part are these divided by 1 − p. The iteration takes about ten steps.
    """
    excess = 0.0
    for _ in range(50):
        expected = 1.0
        for m, square in zip((mean / (1 - excess)).tolist(), (second / (1 - excess)).tolist(), strict=True):
            sigma = (2 * max(square - m**2, 1 / 12)) ** 0.5
            expected *= (erf((CENTRE - m) / sigma) + erf((CENTRE + m) / sigma)) / 2
        improved = min(max((central - expected) / max(1 - expected, 1e-9), 0.0), 0.99)
        if abs(improved - excess) < 1e-6:
            break
        excess = improved
    return excess


def _smoother(bins: int, width: float) -> Array:
    """Return a normal kernel as a matrix (bins, bins). There are no filters beyond the edges."""
    distance = np.arange(bins)[:, None] - np.arange(bins)
    kernel: Array = np.exp(-(distance**2) / (2 * width**2))
    kernel /= kernel[bins // 2].sum()
    return kernel


def _hot(counts: Array, width: Array, centre: NDArray[np.bool_]) -> float:
    """Return the share of the filters by which hot bins exceed their surroundings."""
    smooth = _smoother(len(counts), float(width[0])) @ counts
    if counts.ndim == 2:
        smooth = smooth @ _smoother(len(counts), float(width[1])).T
    hot = (counts > HOT[counts.ndim - 1] * smooth) & (counts > smooth + CERTAIN * np.sqrt(smooth + 1)) & ~centre
    return float((counts - smooth)[hot].sum() / counts.sum())


def _modes(counts: Array, width: float) -> int:
    """Count the peaks of the smoothed counts from which the density falls significantly to either side (`falls`)."""
    kernel = _smoother(len(counts), width)
    heights, variances = (kernel @ counts).tolist(), (kernel**2 @ counts).tolist()

    def falls(peak: int, low: int) -> bool:
        fall = heights[peak] - heights[low]
        return bool(fall > DIP * heights[peak] and fall > CLEAR * (variances[peak] + variances[low]) ** 0.5)

    peaks, climbing, best = [], True, 0
    for i, height in enumerate(heights):
        if (height > heights[best]) is climbing:
            best = i
        if climbing and falls(best, i):
            peaks.append(best)
            climbing, best = False, i
        elif not climbing and falls(i, best):
            climbing, best = True, i
    if climbing:
        peaks.append(best)
    return sum(heights[peak] >= MINOR * max(heights) for peak in peaks)


def _departure(counts: Array, marginals: list[Array], middles: list[Array]) -> float:
    """Return the departure from the normal distribution: of a component, or the largest of five of a pair.

    The five are both components, both diagonals between them, and the distance from the mean in the pair's own
    covariance, which detects rings: their components look normal. It counts half, because heavy tails count twice in
    it. `middles` are the middles of the bins minus the mean.
    """
    spread = [float(np.sqrt(marginal @ v**2 / marginal.sum())) for v, marginal in zip(middles, marginals, strict=True)]
    # Without spread there is no shape that could depart from the normal distribution.
    wide = [(v / s, marginal, 1 / s) for v, marginal, s in zip(middles, marginals, spread, strict=True) if s > 1e-9]
    departures = [_kolmogorov(values, marginal, [width], _normal) for values, marginal, width in wide]
    if len(wide) == 2:
        (a, _, first), (b, _, second) = wide
        i, j = np.nonzero(counts)
        x, y, weight = a[i], b[j], counts[i, j]
        correlation = float(weight @ (x * y) / weight.sum())
        for values, variance in ((x + y, 2 + 2 * correlation), (x - y, 2 - 2 * correlation)):
            if variance > 1e-6:
                root = variance**0.5
                departures.append(_kolmogorov(values / root, weight, [first / root, second / root], _normal))
        if 1 - correlation**2 > 1e-6:
            squared = (x**2 - 2 * correlation * x * y + y**2) / (1 - correlation**2)
            departures.append(_kolmogorov(np.sqrt(squared), weight, [max(first, second)], _rayleigh) / 2)
    return max(departures, default=0.0)


_Z = np.linspace(-8, 8, 8_001)
_NORMAL = np.array([0.5 + erf(z / 2**0.5) / 2 for z in _Z.tolist()])


def _normal(z: Array) -> Array:
    """Return the standard normal distribution function."""
    below: Array = np.interp(z, _Z, _NORMAL)
    return below


def _rayleigh(r: Array) -> Array:
    """Return the distribution function of a standard normal pair's distance from its mean."""
    return np.where(r > 0, 1 - np.exp(-(r**2) / 2), 0.0)


def _kolmogorov(
    values: Array,
    counts: Array,
    bins: list[float],
    expected: Callable[[Array], Array],
) -> float:
    """Return the Kolmogorov distance of counted values from a distribution function, minus what chance explains.

    Values are in standard deviations. They are the middles of bins, whose widths are `bins`: counts are spread evenly
    within a bin, otherwise the steps between bins would count as steps of the distribution.
    """
    position = np.rint(values / STEP).astype(np.int64)
    lowest = int(position.min())
    share = np.bincount(position - lowest, counts) / counts.sum()
    for width in bins:
        half = int(width / STEP / 2)
        share = np.convolve(share, np.full(2 * half + 1, 1 / (2 * half + 1)))
        lowest -= half
    cumulative = np.cumsum(share) - share / 2
    steps: Array = np.arange(lowest, lowest + len(share)) * np.float64(STEP)
    distance = float(np.abs(cumulative - expected(steps)).max())
    chance: float = CHANCE / float(counts.sum()) ** 0.5
    return max(distance - chance, 0.0)
