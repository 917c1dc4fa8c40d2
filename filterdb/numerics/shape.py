"""The shape of a distribution of coefficients, and its phenotype: sun, spikes, symbols or point (P1 fig. 4).

P1 shows one picture of each and describes them; the rule and its constants are ours. Everything is measured in the
distribution's own spread, from counts over uniform bins, along one component or over a pair of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import erf

import numpy as np

POINT, SPIKES, SYMBOLS, SUN, FEW = "point", "spikes", "symbols", "sun", "few"
PHENOTYPES = (SUN, SPIKES, SYMBOLS, POINT)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a phenotype begins; in this order, the first that holds."""

    fewest: int = 1_000
    """Filters, below which nothing is said: "few"."""
    narrow: float = 1.5
    """Spread in bins, below which no shape is to be seen: a point at the centre, spikes elsewhere."""
    point: float = 0.25
    """Excess mass at the centre from which on it is a point."""
    spikes: float = 0.1
    """Share of the filters in local hot spots from which on they are spikes."""
    departure: float = 0.08
    """Distance from the normal distribution (Kolmogorov's) above which it is symbols, as it is with a second mode."""
    off_centre: float = 0.5
    """|mean| in standard deviations above which it is symbols."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rule looks at. `modes` and `departure`: the most that any direction has."""

    filters: int
    spread: float
    """Standard deviation in bins; of a pair that of the wider side."""
    central: float
    """Share of the filters at the centre."""
    centre_excess: float
    """Share of the filters at the centre beyond what a normal distribution of the others has there."""
    hot: float
    """Share of the filters in bins far above their surroundings, the centre left out."""
    modes: int
    departure: float
    """Kolmogorov distance from the normal distribution of the same mean and variance, less chance's share 0.9/√n."""
    offset: float
    """Distance of the mean from the centre in standard deviations."""

    def phenotype(self, bounds: Bounds | None = None) -> str:
        """The first of the rule that holds."""
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
        """All of it by name."""
        return {name: float(value) for name, value in asdict(self).items()}


CENTRE = 2.0
"""Bins to either side of the coefficient of an all-zero filter that are the centre."""

SMOOTH = 0.5
"""Width of a bin's surroundings in standard deviations of the distribution (at least one bin)."""

SMOOTH_MODES = 0.25
"""How much a side is smoothed before its modes are counted, in its standard deviations (at least one bin)."""

HOT = (2.2, 3.0)
"""A bin of one component, of a pair, is hot where it has this many times what its surroundings have …"""

CERTAIN = 6.0
"""… and this many standard errors more."""

DIP = 0.2
"""Between two modes the density falls by this share of either, …"""

CLEAR = 4.0
"""… and by this many standard errors; …"""

MINOR = 0.1
"""… and what is lower than this share of the highest is none."""

STEP = 0.02
"""Standard deviations that are told apart where a distribution is compared with the normal one."""

CHANCE = 0.9
"""Lilliefors' 95 % quantile of the distance of n normal values is 0.886/√n."""


def shape(counts: np.ndarray, edges: np.ndarray, centre: Sequence[float] = (0.0, 0.0)) -> Shape:
    """Of counts (bins,) of one component, or (bins, bins) of two, over `edges` (bins + 1,).

    `centre`: where each side has its centre, the coefficient of an all-zero filter.
    """
    counts = np.asarray(counts, np.float64)
    middle = (edges[1:] + edges[:-1]) / 2 / (edges[1] - edges[0])
    total = counts.sum()
    if not total:
        return Shape(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)
    marginals = [counts.sum(axis=1 - axis) for axis in range(2)] if counts.ndim == 2 else [counts]
    sides = [middle - place / (edges[1] - edges[0]) for place, _ in zip(centre, marginals, strict=False)]
    mean = np.array([one @ side for one, side in zip(marginals, sides, strict=True)]) / total
    second = np.array([one @ side**2 for one, side in zip(marginals, sides, strict=True)]) / total
    variance = np.array([one @ (s - m) ** 2 for one, s, m in zip(marginals, sides, mean, strict=True)]) / total
    # Less what the width of a bin adds (Sheppard's correction).
    spread = np.sqrt(np.maximum(variance - 1 / 12, 0.0))
    width = np.maximum(SMOOTH * spread, 1.0)
    near = [np.abs(side) < CENTRE for side in sides]
    here = np.multiply.outer(*near) if counts.ndim == 2 else near[0]
    central = float(counts[here].sum() / total)
    return Shape(
        filters=int(total),
        spread=float(spread.max()),
        central=central,
        centre_excess=_centre_excess(central, mean, second),
        hot=_hot(counts, width, here),
        modes=max(_modes(one, max(SMOOTH_MODES * s, 1.0)) for one, s in zip(marginals, spread.tolist(), strict=True)),
        departure=_away(counts, marginals, [side - m for side, m in zip(sides, mean, strict=True)]),
        offset=float((np.abs(mean) / np.maximum(spread, 1.0)).max()),
    )


def _centre_excess(central: float, mean: np.ndarray, second: np.ndarray) -> float:
    """p of p·(a point at the centre) + (1 − p)·(a normal distribution) with `central` of its mass at the centre.

    `mean` and `second` (sides,): first and second moments of the whole; those of the normal part are these divided by
    1 − p. Found by repetition, in some ten steps.
    """
    excess = 0.0
    for _ in range(50):
        expected = 1.0
        for m, square in zip((mean / (1 - excess)).tolist(), (second / (1 - excess)).tolist(), strict=True):
            sigma = (2 * max(square - m**2, 1 / 12)) ** 0.5
            expected *= (erf((CENTRE - m) / sigma) + erf((CENTRE + m) / sigma)) / 2
        found = min(max((central - expected) / max(1 - expected, 1e-9), 0.0), 0.99)
        if abs(found - excess) < 1e-6:
            break
        excess = found
    return excess


def _smoother(bins: int, width: float) -> np.ndarray:
    """A normal kernel as a matrix (bins, bins); what lies beyond the edges is empty."""
    away = np.arange(bins)[:, None] - np.arange(bins)
    kernel: np.ndarray = np.exp(-(away**2) / (2 * width**2))
    kernel /= kernel[bins // 2].sum()
    return kernel


def _hot(counts: np.ndarray, width: np.ndarray, centre: np.ndarray) -> float:
    """Share of the filters by which bins exceed their surroundings, summed over those that certainly are hot."""
    smooth = _smoother(len(counts), float(width[0])) @ counts
    if counts.ndim == 2:
        smooth = smooth @ _smoother(len(counts), float(width[1])).T
    hot = (counts > HOT[counts.ndim - 1] * smooth) & (counts > smooth + CERTAIN * np.sqrt(smooth + 1)) & ~centre
    return float((counts - smooth)[hot].sum() / counts.sum())


def _modes(counts: np.ndarray, width: float) -> int:
    """Peaks of the smoothed counts that are no chance: on to either side the density falls (see `_falls`)."""
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


def _away(counts: np.ndarray, marginals: list[np.ndarray], sides: list[np.ndarray]) -> float:
    """Departure from the normal distribution: of a component; of a pair the most of five.

    These are both components, both diagonals between them, and, counted half because heavy tails show in it twice, the
    distance from the mean in the pair's own covariance: a ring has normal-looking sides. `sides`: the bins' middles
    about their mean.
    """
    spread = [float(np.sqrt(one @ v**2 / one.sum())) for v, one in zip(sides, marginals, strict=True)]
    # What has no spread has no shape to depart from.
    wide = [(v / s, one, 1 / s) for v, one, s in zip(sides, marginals, spread, strict=True) if s > 1e-9]
    found = [_kolmogorov(values, one, [bin_], _normal) for values, one, bin_ in wide]
    if len(wide) == 2:
        (a, _, first), (b, _, second) = wide
        i, j = np.nonzero(counts)
        x, y, weight = a[i], b[j], counts[i, j]
        correlation = float(weight @ (x * y) / weight.sum())
        for values, variance in ((x + y, 2 + 2 * correlation), (x - y, 2 - 2 * correlation)):
            if variance > 1e-6:
                root = variance**0.5
                found.append(_kolmogorov(values / root, weight, [first / root, second / root], _normal))
        if 1 - correlation**2 > 1e-6:
            squared = (x**2 - 2 * correlation * x * y + y**2) / (1 - correlation**2)
            found.append(_kolmogorov(np.sqrt(squared), weight, [max(first, second)], _rayleigh) / 2)
    return max(found, default=0.0)


_Z = np.linspace(-8, 8, 8_001)
_NORMAL = np.array([0.5 + erf(z / 2**0.5) / 2 for z in _Z.tolist()])


def _normal(z: np.ndarray) -> np.ndarray:
    """The standard normal distribution function."""
    below: np.ndarray = np.interp(z, _Z, _NORMAL)
    return below


def _rayleigh(r: np.ndarray) -> np.ndarray:
    """That of the distance from the mean of a standard normal pair."""
    return np.where(r > 0, 1 - np.exp(-(r**2) / 2), 0.0)


def _kolmogorov(
    values: np.ndarray, counts: np.ndarray, bins: list[float], expected: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Largest difference of counted values, in standard deviations, from a distribution function; less chance's.

    `bins`: the widths of the bins that the values are the middles of; within them the counts are spread evenly, else
    the steps of a grid would be taken for the distribution's own.
    """
    place = np.rint(values / STEP).astype(np.int64)
    lowest = int(place.min())
    share = np.bincount(place - lowest, counts) / counts.sum()
    for width in bins:
        half = int(width / STEP / 2)
        share = np.convolve(share, np.full(2 * half + 1, 1 / (2 * half + 1)))
        lowest -= half
    cumulative = np.cumsum(share) - share / 2
    away = float(np.abs(cumulative - expected((np.arange(len(share)) + lowest) * STEP)).max())
    chance: float = CHANCE / float(counts.sum()) ** 0.5
    return max(away - chance, 0.0)
