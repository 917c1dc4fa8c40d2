"""How often the test of randomness rejects noise, and what it notices: the tables of docs/explanation/randomness.md.

    python benchmarks/randomness.py                 # both tables, a few minutes
    python benchmarks/randomness.py --draws 20000   # more layers a cell
    python benchmarks/randomness.py --weights 49    # filters of 49 weights, such as 7×7 ones
    python benchmarks/randomness.py --constants     # the variances of max-scaled weights: simulated, and by theory

Layers are drawn by initialisation and size. Each is judged by the test at 0.1 %, and by the paper's H ≥ T_H(n).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri

from filterdb.numerics.max_scaled import variances
from filterdb.numerics.moments import Moments
from filterdb.numerics.quality import randomness_threshold, variance_entropy
from filterdb.numerics.sphericity import chi_squared_tail, freedom, p_value, smallest_filters
from filterdb.numerics.threshold import channels

SIZES = (64, 256, 1_024, 16_384, 1_048_576)
SHARES = (0.005, 0.01, 0.02, 0.05)
LEVEL = 0.001
BATCH = 2**21
"""Weights drawn at a time."""

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def generalised(shape: float) -> Draw:
    """Return draws of density exp(−|w|^shape)."""
    return lambda rng, size: rng.gamma(1 / shape, 1, size) ** (1 / shape) * rng.choice([-1, 1], size)


def student(degrees: float) -> Draw:
    """Return draws of Student's t."""
    return lambda rng, size: rng.standard_t(degrees, size)


def truncated(limit: float) -> Draw:
    """Return draws of a normal distribution within ± limit."""
    low, high = ndtr(-limit), ndtr(limit)
    return lambda rng, size: ndtri(low + rng.random(size) * (high - low))


def normal(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Draw standard normal weights."""
    return rng.standard_normal(size)


def orthogonal(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Draw layers whose (out, in·weights) matrix has orthonormal rows, or columns if it is a tall one."""
    layers, filters, weights = size
    out, into = channels(filters)
    matrix = rng.standard_normal((layers, out, into * weights))
    tall = out > into * weights
    q, r = np.linalg.qr(matrix if tall else np.swapaxes(matrix, 1, 2))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return (q if tall else np.swapaxes(q, 1, 2)).reshape(size)


def by_channel(draw: Draw, deviation: float) -> Draw:
    """Return draws whose output channels have log-normal scales, as a folded batch normalisation leaves them."""

    def scaled(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        out, into = channels(size[1])
        scale = rng.lognormal(0, deviation, (size[0], out, 1, 1))
        return (draw(rng, size).reshape(size[0], out, into, size[2]) * scale).reshape(size)

    return scaled


def uniform(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Draw uniform weights."""
    return rng.uniform(-1, 1, size)


INITS: dict[str, Draw] = {
    "normal (Kaiming, Xavier)": normal,
    "uniform (Kaiming, Xavier)": uniform,
    "truncated normal, ± 2": truncated(2),
    "orthogonal": orthogonal,
    "Laplace": generalised(1),
    "Student t, 3 degrees": lambda rng, size: rng.standard_t(3, size),
    "normal, channel scales log-normal 0.5": by_channel(normal, 0.5),
    "normal, channel scales log-normal 1": by_channel(normal, 1.0),
    "uniform, channel scales log-normal 1": by_channel(uniform, 1.0),
    "Laplace, channel scales log-normal 1": by_channel(generalised(1), 1.0),
}
"""How layers are drawn. Kaiming and Xavier differ from normal and uniform in scale only, which changes nothing."""

OTHERS: dict[str, Draw] = {
    "uniform": uniform,
    **{f"exp(−|w|^{shape})": generalised(shape) for shape in (8, 4, 3, 2, 1.5, 1, 0.7)},
    **{f"normal within ± {limit}": truncated(limit) for limit in (1, 2, 3)},
    **{f"Student t, {degrees}": student(degrees) for degrees in (10, 5, 3, 2, 1.5, 1)},
}
"""Distributions whose variances are printed."""


def moments(layers: np.ndarray) -> Moments:
    """Return the moments of layers (layers, n, weights)."""
    mean = layers.mean(axis=1)
    centred = layers - mean[:, None]
    return Moments(np.full(len(layers), layers.shape[1]), mean, np.swapaxes(centred, 1, 2) @ centred)


def judge(draw: Draw, shape: tuple[int, int], layers: int, rng: np.random.Generator) -> np.ndarray:
    """Return of each layer of (n, weights) the p-value, that of the raw entropy, and H / T_H: (3, layers)."""
    size, count = shape
    step = max(1, BATCH // (count * max(size, count)))
    parts = []
    for start in range(0, layers, step):
        weights = draw(rng, (min(step, layers - start), size, count))
        raw = moments(weights)
        values = np.maximum(np.linalg.eigvalsh(raw.m2), 0)
        entropy = variance_entropy(values / values.sum(axis=1, keepdims=True))
        naive = chi_squared_tail(count * size * (np.log(count) - entropy * np.log(10)), freedom(count))
        scaled = moments(weights / np.abs(weights).max(axis=2, keepdims=True))
        parts.append(np.stack([p_value(scaled), naive, entropy / randomness_threshold(np.array(size))]))
    return np.concatenate(parts, axis=1)


def layers_of(size: int, draws: int) -> int:
    """Return how many layers of a size are drawn: fewer of the large ones."""
    return int(np.clip(draws * 2_048 // size, 8, draws))


def sizes_of(weights: int) -> tuple[int, ...]:
    """Return the sizes for which the test has an answer, without layers of more than 128 MB."""
    return tuple(size for size in SIZES if smallest_filters(weights) <= size <= 2**24 // weights)


def false_rejections(weights: int, draws: int, rng: np.random.Generator) -> None:
    """Print how often noise is rejected, for each way to draw it."""
    counts = {size: layers_of(size, draws) for size in sizes_of(weights)}
    print("| initialisation | " + " | ".join(f"n = {size:,}" for size in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    pooled = {size: np.zeros(2, int) for size in counts}
    for name, draw in INITS.items():
        cells = []
        for size, layers in counts.items():
            p, naive, ratio = judge(draw, (size, weights), layers, rng)
            rates = [(p < LEVEL).mean(), (naive < LEVEL).mean(), (ratio >= 1).mean()]
            paper = f" · {rates[2]:.0%}" if weights == 9 else ""
            cells.append(f"{rates[0]:.2%} · {rates[1]:.0%}{paper}")
            if name != "orthogonal":
                pooled[size] += [(p < LEVEL).sum(), layers]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    shares = [f"**{rejected / layers:.3%}** of {layers:,}" for rejected, layers in pooled.values()]
    print("| all but orthogonal, by the test | " + " | ".join(shares) + " |")


def power(weights: int, draws: int, rng: np.random.Generator) -> None:
    """Print how often noise is rejected of which a share of the energy was moved into one direction."""
    direction = np.full(weights, weights**-0.5)
    sizes = sizes_of(weights)[:-1]
    print("\n| energy moved into one direction | " + " | ".join(f"n = {size:,}" for size in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for share in SHARES:
        cells = []
        for size in sizes:

            def draw(rng: np.random.Generator, shape: tuple[int, ...], share: float = share) -> np.ndarray:
                more = np.sqrt(weights * share) * rng.standard_normal((*shape[:2], 1)) * direction
                drawn: np.ndarray = np.sqrt(1 - share) * rng.standard_normal(shape) + more
                return drawn

            p = judge(draw, (size, weights), max(20, layers_of(size, draws) // 20), rng)[0]
            cells.append(f"{(p < LEVEL).mean():.0%}")
        print(f"| {share:.1%} | " + " | ".join(cells) + " |", flush=True)


def constants(count: int, filters: int, rng: np.random.Generator) -> None:
    """Print the mean squared norm of a max-scaled filter, and the variances of D_ij and D_ii relative to normal raw.

    The last two columns are those of `numerics.max_scaled` at the same squared norm.
    """
    knots = variances(count)
    print("| weights | SQUARED_NORM | OFF | DIAGONAL | OFF by theory | DIAGONAL by theory |\n" + "|---" * 6 + "|")
    for name, draw in OTHERS.items():
        weights = draw(rng, (filters, count))
        squares = (weights / np.abs(weights).max(axis=1, keepdims=True)) ** 2
        norm, fourth = squares.sum(axis=1), (squares**2).mean()
        second = squares.mean()
        mixed = ((norm**2).mean() - count * fourth) / (count * (count - 1))
        theory = (np.interp(norm.mean(), knots.squared_norm, own) for own in (knots.off, knots.diagonal))
        row = (norm.mean(), mixed / second**2, (fourth - mixed) / (2 * second**2), *theory)
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in row) + " |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4_000, help="layers of up to 2,048 filters in a cell")
    parser.add_argument("--constants", action="store_true", help="print variances of max-scaled weights instead")
    parser.add_argument("--weights", type=int, default=9, help="weights of a filter")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.constants:
        constants(options.weights, 9_000_000 // options.weights, rng)
        return
    paper = " · with H ≥ T_H" if options.weights == 9 else ""
    print(f"Share of layers rejected at 0.1 % · by the raw χ² test{paper}; χ²: {freedom(options.weights)} degrees\n")
    false_rejections(options.weights, options.draws, rng)
    power(options.weights, options.draws, rng)


if __name__ == "__main__":
    main()
