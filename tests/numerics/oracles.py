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
