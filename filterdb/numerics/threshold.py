"""The randomness threshold by experiment: the smallest variance entropy of random layers of each size, and its fit.

P1 §4 draws layers of standard normal filters, takes the smallest entropy of each size and fits a sigmoid by least
squares. Here the distribution of the layers can be chosen, because networks are initialised in other ways too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.quality import P1, Sigmoid, variance_entropy
from filterdb.schema import WEIGHTS

BATCH = 2**22
"""Weights drawn at a time (32 MiB)."""

DIRECT = 256
"""Largest number of filters for which a normal layer itself is drawn; for larger layers only its covariance is."""


def smallest_entropy(init: str, filters: int, draws: int, rng: np.random.Generator, weights: int = WEIGHTS) -> float:
    """Return the smallest variance entropy of `draws` random layers of `filters` filters; `init` is one of INITS."""
    draw = INITS[init]
    size = max(1, BATCH // (weights * filters))
    least = np.inf
    for start in range(0, draws, size):
        values = np.linalg.eigvalsh(draw(filters, min(size, draws - start), rng, weights))
        values = np.maximum(values, 0.0)
        total = values.sum(axis=-1, keepdims=True)
        ratio = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
        least = min(least, float(variance_entropy(ratio).min()))
    return least


def _m2(layers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centred second moments (draws, weights, weights) of layers (draws, n, weights)."""
    layers = layers - layers.mean(axis=1, keepdims=True)
    moments: NDArray[np.float64] = np.swapaxes(layers, 1, 2) @ layers
    return moments


def _normal(filters: int, draws: int, rng: np.random.Generator, weights: int = WEIGHTS) -> NDArray[np.float64]:
    """Draw m2 (draws, weights, weights) of layers of standard normal weights.

    It has a Wishart distribution and is drawn as such for large n: as T Tᵀ, where T has normal entries below the
    diagonal and χ variables of n − 1, n − 2, … degrees of freedom on it (Bartlett 1933).
    """
    if filters <= DIRECT:
        return _m2(rng.standard_normal((draws, filters, weights)))
    root = np.zeros((draws, weights, weights))
    below = np.tril_indices(weights, -1)
    root[:, *below] = rng.standard_normal((draws, len(below[0])))
    index = np.arange(weights)
    root[:, index, index] = np.sqrt(rng.chisquare(filters - 1 - index, (draws, weights)))
    return root @ np.swapaxes(root, 1, 2)


def _uniform(filters: int, draws: int, rng: np.random.Generator, weights: int = WEIGHTS) -> NDArray[np.float64]:
    """Draw m2 (draws, weights, weights) of layers of uniform weights in [−1, 1)."""
    return _m2(rng.uniform(-1.0, 1.0, (draws, filters, weights)))


def _orthogonal(filters: int, draws: int, rng: np.random.Generator, weights: int = WEIGHTS) -> NDArray[np.float64]:
    """Draw m2 (draws, weights, weights) of layers whose (out, in·weights) matrix has orthonormal rows or columns.

    A matrix has orthonormal columns if it has more rows than columns. The matrices are uniform among all such: each is
    the Q of a normal matrix whose R has a positive diagonal (Saxe et al. 2014, Mezzadri 2007). R comes from a Cholesky
    decomposition, which NumPy computes for many small matrices at once.
    """
    out, into = channels(filters)
    layers = rng.standard_normal((draws, out, into * weights))
    if out > into * weights:
        layers = np.swapaxes(layers, 1, 2)
    lower = np.linalg.cholesky(layers @ np.swapaxes(layers, 1, 2))
    layers = np.linalg.solve(lower, layers)
    if out > into * weights:
        layers = np.swapaxes(layers, 1, 2)
    return _m2(layers.reshape(draws, filters, weights))


INITS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "normal": _normal,
    "uniform": _uniform,
    # He et al. 2015: normal weights of one scale, √(2/(weights·in)). The entropy does not depend on the scale.
    "kaiming": _normal,
    "orthogonal": _orthogonal,
}
"""How layers are drawn: functions of filters, draws, generator and weights that return m2."""


def channels(filters: int) -> tuple[int, int]:
    """Return the output and input channels of a layer of `filters` filters: the factors nearest to a square."""
    into = next(i for i in range(int(filters**0.5), 0, -1) if filters % i == 0)
    return filters // into, into


def shift(weights: int) -> float:
    """Return by how much the curve for filters of K weights lies to the right of that for nine, in log₂ n.

    The entropy of noise depends mostly on n/K.
    """
    return math.log2(weights / WEIGHTS)


def fit(filters: Sequence[int] | np.ndarray, entropy: NDArray[np.float64], weights: int = WEIGHTS) -> Sigmoid:
    """Fit a sigmoid to entropies (sizes,) of layers of any kernel shape by least squares; at least four sizes.

    Given rate and centre, span and offset follow by linear least squares, so that only two numbers have to be searched
    (variable projection, Golub and Pereyra 1973). The search is Gauss–Newton with Levenberg's damping and starts at
    P1's rate and centre, the centre shifted by the kernel shape.
    """
    size, wanted = np.log2(np.asarray(filters, np.float64)), np.asarray(entropy, np.float64)

    def residual(search: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the residuals, and span and offset. The rate is searched by its logarithm, so it stays positive."""
        step = 1 / (1 + np.exp(-np.clip(np.exp(search[0]) * (size - search[1]), -500, 500)))
        design = np.column_stack([step, np.ones_like(step)])
        linear = np.linalg.lstsq(design, wanted, rcond=None)[0]
        return wanted - design @ linear, linear

    search, damping = np.array([np.log(P1.rate), P1.centre + shift(weights)]), 1e-3
    left, linear = residual(search)
    for _ in range(200):
        slope = np.column_stack([(residual(search + h)[0] - residual(search - h)[0]) / 2e-6 for h in 1e-6 * np.eye(2)])
        normal = slope.T @ slope
        # Least squares, because the slope can vanish at a jump: then the step is 0 and the search ends.
        step = -np.linalg.lstsq(normal + damping * np.diag(np.diag(normal)), slope.T @ left, rcond=None)[0]
        after, coefficients = residual(search + step)
        if after @ after <= left @ left:
            search, left, linear, damping = search + step, after, coefficients, damping / 10
            if np.abs(step).max() < 1e-10:
                break
        elif damping > 1e12:
            break
        else:
            damping *= 10
    return Sigmoid(float(linear[0]), float(np.exp(search[0])), float(search[1]), float(linear[1]))
