"""Split the layers of real models into blocks of output channels, and mix the blocks to pseudo-models."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

import filterdb as fdb
from filterdb.numerics.histogram import bin_edges

BLOCKS = 8
"""Blocks of output channels of a layer."""

FEWEST = 64
"""Filters of a block; layers of smaller blocks are left out."""

LAYERS = 5
"""Average number of layers that a pseudo-model is mixed from."""


class Blocks(NamedTuple):
    """Hold the histograms of blocks: `probabilities` (layers, blocks, 9, 70), and filters of each layer (layers,)."""

    probabilities: np.ndarray
    filters: np.ndarray


@cache
def blocks(database: str) -> Blocks:
    """Return the blocks of the database's layers. Each coefficient is divided by the first one's deviation."""
    db = fdb.open(database)
    coefficients = fdb.coefficients(db)
    layer = coefficients["layer"].values
    values = coefficients.values
    values = values / values[:, 0].std()
    edges = bin_edges(-3.1, 3.1)
    histograms, filters = [], []
    for label in np.unique(layer):
        own = np.clip(values[layer == label], edges[0], edges[-1])
        if len(own) >= BLOCKS * FEWEST:
            parts = np.array_split(own, BLOCKS)
            histograms.append([[np.histogram(c, edges)[0] / len(part) for c in part.T] for part in parts])
            filters.append(len(own))
    return Blocks(np.array(histograms), np.array(filters, np.float64))


def pseudo_models(database: str, number: int, rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """Return the bins' probabilities of pseudo-models, (number, 9, 70).

    A model mixes random blocks of random layers, with random weights. Layers are drawn in proportion to the root of
    their filters, so that one wide layer does not decide. `shift` moves the first component, in deviations (`tilted`).
    """
    real = blocks(database)
    share = np.sqrt(real.filters) / np.sqrt(real.filters).sum()
    weights = rng.gamma(LAYERS * share, size=(number, len(share)))
    block = rng.integers(0, BLOCKS, (number, len(share)))
    chosen = real.probabilities[np.arange(len(share)), block]
    mixed: np.ndarray = np.einsum("ml,mlcb->mcb", weights / weights.sum(axis=1, keepdims=True), chosen)
    mixed[:, 0] = tilted(mixed[:, 0], shift)
    return mixed


def tilted(histograms: np.ndarray, shift: float) -> np.ndarray:
    """Return histograms (models, 70) times exp(shift · x), with x cut off at ±1 deviation.

    It moves a normal distribution by `shift` near its middle. Moving the bins instead would leave empty ones, with
    which the populations would have no finite drift.
    """
    edges = bin_edges(-3.1, 3.1)
    factor = np.exp(shift * np.clip((edges[1:] + edges[:-1]) / 2, -1, 1))
    result: np.ndarray = histograms * factor / (histograms @ factor)[:, None]
    return result
