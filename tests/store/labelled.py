"""A few models with labels, and their filters as plain arrays with a label of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tests.models import weights

MODELS = {
    "A": ("detection", (weights(6, 5, seed=1), weights(7, 6, seed=2))),
    "B": ("classification", (weights(4, 4, seed=3),)),
    "C": ("detection", (weights(3, 5, seed=4), weights(2, 3, seed=5))),
}
"""Task and layers of each model; the task of A and C is that of rows that do not lie together."""


@dataclass(frozen=True)
class Truth:
    """The filters of some models as plain arrays, with a label of each filter."""

    filters: np.ndarray
    labels: dict[str, np.ndarray]

    @classmethod
    def of(cls, models: str) -> Truth:
        rows = [
            (layer.reshape(-1, 9), {"model": model, "task": task, "layer": f"{model}/conv{depth}", "conv_depth": depth})
            for model in models
            for task, layers in [MODELS[model]]
            for depth, layer in enumerate(layers)
        ]
        sizes = [len(filters) for filters, _ in rows]
        labels = {name: np.repeat([label[name] for _, label in rows], sizes) for name in rows[0][1]}
        return cls(np.concatenate([filters for filters, _ in rows]), labels)

    def where(self, **labels: Any) -> np.ndarray:
        mask = np.ones(len(self.filters), bool)
        for name, value in labels.items():
            mask &= self.labels[name] == value
        return self.filters[mask]

    def by(self, name: str, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.array([function(self.where(**{name: value})) for value in np.unique(self.labels[name])])

    def each(self, name: str, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        result = np.empty_like(self.filters)
        for value in np.unique(self.labels[name]):
            result[self.labels[name] == value] = function(self.where(**{name: value}))
        return result


Act = Callable[[xr.Dataset], Any]
Expected = Callable[[Truth], np.ndarray] | str
