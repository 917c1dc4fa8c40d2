"""A database of small trained-like models of several families and tasks, and its filters read another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import entropy

import filterdb as fdb
from tests.filters import trained
from tests.models import chain

MODELS = {
    # name: (task, family, layers as (out, in))
    "a0": ("classify", "alpha", ((24, 20), (30, 24))),
    "a1": ("classify", "alpha", ((24, 20), (30, 24))),
    "a2": ("classify", "beta", ((40, 16), (16, 40))),
    "a3": ("classify", "gamma", ((30, 30), (20, 30))),
    "a4": ("classify", "gamma", ((30, 30), (20, 30))),
    "b0": ("segment", "alpha", ((24, 20), (30, 24))),
    "b1": ("segment", "beta", ((40, 16), (16, 40))),
    "b2": ("segment", "beta", ((40, 16), (16, 40))),
    "b3": ("segment", "delta", ((28, 28), (20, 28))),
    "b4": ("segment", "unknown", ((28, 28), (20, 28))),
    "c0": ("depth", "alpha", ((24, 20), (30, 24))),
    "tiny": ("detect", "beta", ((6, 5), (3, 6))),
}
FAMILIES = ["alpha", "beta", "gamma", "delta", "unknown"]


def ingested(folder: Path, models: list[str] | None = None, *, spoil: str | None = None) -> fdb.Database:
    """The models, or some of them, in chunks of 400 rows. `spoil`: a model whose second layer has NaN and infinity."""
    names = list(MODELS) if models is None else models
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        number = list(MODELS).index(name)
        _, family, layers = MODELS[name]
        weights = [trained(out, into, 100 * number + i, FAMILIES.index(family)) for i, (out, into) in enumerate(layers)]
        if name == spoil:
            weights[1][0, 0, 0, 0], weights[1][1, 1, 1, 1] = np.nan, np.inf
        chain(folder / f"{name}.onnx", *weights)
    rows = [f"{name}.onnx,{name},{MODELS[name][0]},{MODELS[name][1]}\n" for name in names]
    (folder / "models.csv").write_text("path,name,task,family\n" + "".join(rows), "utf-8")
    return fdb.ingest(folder / "db", catalog=folder / "models.csv", chunk_rows=400).database


class Frozen:
    """Histograms and drift of a snapshot by numpy and scipy alone: its filters, its SVD, numpy.histogram."""

    def __init__(self, db: fdb.Database) -> None:
        self.filters = db.dataset.filters.values.reshape(-1, 9)
        self.scaled = self.filters / np.abs(self.filters).max(axis=1, keepdims=True).astype(np.float64)
        self.mean = self.scaled.mean(axis=0)
        _, s, v = np.linalg.svd(self.scaled - self.mean, full_matrices=False)
        leader = np.abs(v).argmax(axis=1)
        self.components = v * np.sign(v[np.arange(9), leader])[:, None]
        self.weights = s**2 / (s**2).sum()
        bound = 3 + np.linalg.norm(self.mean)
        self.edges = np.linspace(-bound, bound, 71)
        self.coefficients = (self.scaled - self.mean) @ self.components.T
        self.whole = self.histograms(np.ones(len(self.filters), bool))
        sizes = db.layers["row_size"].values
        self.model = np.repeat(db.layers["model"].values.astype(str), sizes)
        self.layer = np.repeat(np.arange(len(sizes)), sizes)

    def column(self, db: fdb.Database, name: str) -> np.ndarray:
        """A label of each filter."""
        return np.repeat(db.column(name).astype(str), db.layers["row_size"].values)

    def histograms(self, rows: np.ndarray) -> np.ndarray:
        """Of the filters chosen by a mask, (9, 70)."""
        return np.array([np.histogram(self.coefficients[rows, k], self.edges)[0] for k in range(9)])

    def shrunk(self, counts: np.ndarray) -> np.ndarray:
        """Probabilities of method.md §0, from counts (9, 70) of any numbers."""
        pi = (self.whole + 0.5) / (len(self.filters) + 35)
        found: np.ndarray = (counts + 35 * pi) / (counts.sum(axis=1, keepdims=True) + 35)
        return found

    def drift(self, one: np.ndarray, other: np.ndarray) -> float:
        """D of two histograms."""
        p, q = self.shrunk(one), self.shrunk(other)
        return float(self.weights @ (entropy(p, q, axis=1) + entropy(q, p, axis=1)))
