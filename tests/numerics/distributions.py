"""Histograms to draw from."""

from __future__ import annotations

import numpy as np

WEIGHTS = np.array([0.42, 0.16, 0.12, 0.08, 0.07, 0.05, 0.04, 0.03, 0.03])
EDGES = np.linspace(-3.1, 3.1, 71)


def bells(spread: np.ndarray, mean: np.ndarray | float = 0.0) -> np.ndarray:
    """Normal distributions on 70 bins, (…) → (…, 70)."""
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    density = np.exp(-(((middles - np.asarray(mean)[..., None]) / np.asarray(spread)[..., None]) ** 2) / 2)
    found: np.ndarray = density / density.sum(axis=-1, keepdims=True)
    return found


def models(number: int, filters: int, rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """Histograms of models that differ, (number, 9, 70): each has means and spreads of its own."""
    spread = np.linspace(1.0, 0.35, 9)
    mean = rng.normal(0, 0.25, (number, 9)) * spread
    mean[:, 0] += shift
    found: np.ndarray = rng.multinomial(filters, bells(spread * np.exp(rng.normal(0, 0.15, (number, 9))), mean))
    return found
