"""The plain NumPy twins of the compiled loops: independent, slow, obvious."""

from __future__ import annotations

import numpy as np


def scaled(filters: np.ndarray) -> np.ndarray:
    """f / max|f| in float64; zero stays zero."""
    values = filters.astype(np.float64)
    peak = np.max(np.abs(values), axis=1)
    out = np.zeros_like(values)
    out[peak > 0] = values[peak > 0] / peak[peak > 0, None]
    return out


def moments(values: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """count, mean, centred sum of products, by longdouble sums."""
    if not len(values):
        return 0, np.zeros(9), np.zeros((9, 9))
    wide = values.astype(np.longdouble)
    mean = wide.mean(axis=0)
    centred = wide - mean
    return len(values), mean.astype(np.float64), (centred.T @ centred).astype(np.float64)


def svd_pca(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components by the sign rule, singular values, ratios: from the SVD of the centred float64 matrix."""
    centred = values.astype(np.float64) - values.astype(np.float64).mean(axis=0)
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    leader = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(len(components)), leader])[:, None]
    return components, singular, singular**2 / (singular**2).sum()


def runs(sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and stops of consecutive runs."""
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return edges[:-1], edges[1:]


def columns(filters: np.ndarray) -> np.ndarray:
    """(n, 9) rows as (9, n) float32 columns, read-only as those of a chunk are."""
    columns = np.ascontiguousarray(filters.astype(np.float32).T)
    columns.flags.writeable = False
    return columns


def sphericity(filters: np.ndarray) -> float:
    """Return the p-value of the test of sphericity, with its variances looked up; NaN for fewer than 16 filters."""
    from scipy.stats import chi2

    from filterdb.numerics import max_scaled
    from filterdb.numerics import sphericity as constants

    u = scaled(filters)
    n, k = u.shape
    if n < max(16, k / 2) or not u.any():
        return float("nan")
    second = np.sum([np.outer(row, row) for row in u], axis=0) / n
    size = sum(second[i, i] for i in range(k))
    knots = (constants.SQUARED_NORM, constants.OFF, constants.DIAGONAL, 0 * constants.OFF)
    norms, *columns = knots if k == 9 else max_scaled.variances(k)
    off, diagonal, excess = (np.interp(size, norms, column) for column in columns)
    total = 0.0
    for i in range(k):
        for j in range(k):
            departure = second[i, j] / size - (i == j) / k
            total += departure**2 / (diagonal if i == j else off)
    freedom = k * (k + 1) / 2 - 1
    return float(chi2.sf(freedom + (n * k**2 / 2 * total - freedom) / np.sqrt(1 + excess / n), freedom))


def paper_drift(values: np.ndarray, groups: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """P1's drift, the slow way: SVD of everything, numpy.histogram, a double loop over scipy.stats.entropy."""
    from scipy.stats import entropy

    size = values.shape[1]
    mean = values.mean(axis=0)
    u, s, components = np.linalg.svd(values - mean, full_matrices=False)
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(size)])
    coefficients = (values - mean) @ (components * signs[:, None]).T
    weights = s**2 / (s**2).sum()
    span = (coefficients.min(), coefficients.max())
    density = {}
    for label, index in groups.items():
        parts = [np.histogram(coefficients[index, k], bins=70, range=span, density=True)[0] for k in range(size)]
        density[label] = np.where(np.array(parts) == 0, np.finfo(np.float32).eps, parts)
    labels = list(groups)
    matrix = np.zeros((len(labels), len(labels)))
    for i, a in enumerate(labels):
        for j, b in enumerate(labels):
            both = [entropy(density[a][k], density[b][k]) + entropy(density[b][k], density[a][k]) for k in range(size)]
            matrix[i, j] = weights @ both
    counts = {
        label: np.array([np.histogram(coefficients[index, k], bins=70, range=span)[0] for k in range(size)])
        for label, index in groups.items()
    }
    return matrix, counts
