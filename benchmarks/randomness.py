"""How often the test of randomness rejects noise, and what it notices: the tables of docs/explanation/randomness.md.

    python benchmarks/randomness.py                 # both tables, a few minutes
    python benchmarks/randomness.py --draws 20000   # more layers a cell
    python benchmarks/randomness.py --constants     # the variances that filterdb.numerics.sphericity has

Layers are drawn by initialisation and size. Each is judged by the test at 0.1 %, and by the paper's H ≥ T_H(n).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri

from filterdb.numerics.moments import Moments
from filterdb.numerics.quality import randomness_threshold, variance_entropy
from filterdb.numerics.sphericity import FREEDOM, chi_squared_tail, p_value
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
    """Draw layers whose (out, in·9) matrix has orthonormal rows, or columns if it is a tall one."""
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
    """Return the moments of layers (layers, n, 9)."""
    mean = layers.mean(axis=1)
    centred = layers - mean[:, None]
    return Moments(np.full(len(layers), layers.shape[1]), mean, np.swapaxes(centred, 1, 2) @ centred)


def judge(draw: Draw, size: int, layers: int, rng: np.random.Generator) -> np.ndarray:
    """Return of each layer the p-value, that of the raw entropy, and H / T_H: (3, layers)."""
    step = max(1, BATCH // (9 * size))
    parts = []
    for start in range(0, layers, step):
        weights = draw(rng, (min(step, layers - start), size, 9))
        raw = moments(weights)
        values = np.maximum(np.linalg.eigvalsh(raw.m2), 0)
        entropy = variance_entropy(values / values.sum(axis=1, keepdims=True))
        naive = chi_squared_tail(9 * size * (np.log(9) - entropy * np.log(10)))
        scaled = moments(weights / np.abs(weights).max(axis=2, keepdims=True))
        parts.append(np.stack([p_value(scaled), naive, entropy / randomness_threshold(np.array(size))]))
    return np.concatenate(parts, axis=1)


def layers_of(size: int, draws: int) -> int:
    """Return how many layers of a size are drawn: fewer of the large ones."""
    return int(np.clip(draws * 2_048 // size, 8, draws))


def false_rejections(draws: int, rng: np.random.Generator) -> None:
    """Print how often noise is rejected, for each way to draw it."""
    counts = {size: layers_of(size, draws) for size in SIZES}
    print("| initialisation | " + " | ".join(f"n = {size:,}" for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    pooled = {size: np.zeros(2, int) for size in SIZES}
    for name, draw in INITS.items():
        cells = []
        for size, layers in counts.items():
            p, naive, ratio = judge(draw, size, layers, rng)
            rates = [(p < LEVEL).mean(), (naive < LEVEL).mean(), (ratio >= 1).mean()]
            cells.append(f"{rates[0]:.2%} · {rates[1]:.0%} · {rates[2]:.0%}")
            if name != "orthogonal":
                pooled[size] += [(p < LEVEL).sum(), layers]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    shares = [f"**{rejected / layers:.3%}** of {layers:,}" for rejected, layers in pooled.values()]
    print("| all but orthogonal, by the test | " + " | ".join(shares) + " |")


def power(draws: int, rng: np.random.Generator) -> None:
    """Print how often noise is rejected of which a share of the energy was moved into one direction."""
    direction = np.full(9, 1 / 3)
    print("\n| energy moved into one direction | " + " | ".join(f"n = {size:,}" for size in SIZES[:4]) + " |")
    print("|---" * 5 + "|")
    for share in SHARES:
        cells = []
        for size in SIZES[:4]:

            def draw(rng: np.random.Generator, shape: tuple[int, ...], share: float = share) -> np.ndarray:
                more = 3 * np.sqrt(share) * rng.standard_normal((*shape[:2], 1)) * direction
                drawn: np.ndarray = np.sqrt(1 - share) * rng.standard_normal(shape) + more
                return drawn

            p = judge(draw, size, max(20, layers_of(size, draws) // 20), rng)[0]
            cells.append(f"{(p < LEVEL).mean():.0%}")
        print(f"| {share:.1%} | " + " | ".join(cells) + " |", flush=True)


def constants(filters: int, rng: np.random.Generator) -> None:
    """Print the mean squared norm of a max-scaled filter, and the variances of D_ij and D_ii relative to normal raw."""
    print("| weights | SQUARED_NORM | OFF | DIAGONAL |\n|---|---|---|---|")
    for name, draw in OTHERS.items():
        weights = draw(rng, (filters, 9))
        squares = (weights / np.abs(weights).max(axis=1, keepdims=True)) ** 2
        norm, fourth = squares.sum(axis=1), (squares**2).mean()
        second = squares.mean()
        mixed = ((norm**2).mean() - 9 * fourth) / 72
        row = (norm.mean(), mixed / second**2, (fourth - mixed) / (2 * second**2))
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in row) + " |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4_000, help="layers of up to 2,048 filters in a cell")
    parser.add_argument("--constants", action="store_true", help="print variances of max-scaled weights instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.constants:
        constants(1_000_000, rng)
        return
    print(
        f"Share of layers rejected at 0.1 % · by the raw χ² test · with H ≥ T_H; χ² with {FREEDOM} degrees of freedom\n"
    )
    false_rejections(options.draws, rng)
    power(options.draws, rng)


if __name__ == "__main__":
    main()
