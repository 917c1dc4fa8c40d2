"""Drift without one model, for every pair of groups at once: what the page tells of a cell that is clicked.

The same as `without_model` of `fdb.explain`, which tells of one pair and costs as much as all of these.
"""

from __future__ import annotations

import itertools

import numpy as np

from filterdb.analysis.drift import Groups
from filterdb.analysis.grouping import chosen, group
from filterdb.numerics.divergence import symmetric_kl
from filterdb.reduce.basis import projection
from filterdb.store.database import Database

NAMED = 4
"""Models that the page names of a pair: those without which it would drift least."""

PAIRS = 5_000
"""Pairs of groups up to which it is computed."""

Leaving = dict[tuple[str, str], list[tuple[int, float]]]
"""Labels of two groups → positions of models among the snapshot's, and D without each."""


def without_models(db: Database, by: str, mode: str) -> Leaving:
    """D of each pair of groups of `by` when a model is left out of both, the lowest first; {} for too many pairs."""
    db, found = projection(db, mode)
    groups = Groups(db, group(db, by, mode), found, "kl")
    labels = groups.grouping.labels
    if len(labels) * (len(labels) - 1) // 2 > PAIRS:
        return {}
    layers = groups.histograms["counts"][chosen(db)]
    codes, cell = np.unique(
        np.stack([groups.grouping.index, db.layers["model_index"].values]), axis=1, return_inverse=True
    )
    own = np.zeros((codes.shape[1], *layers.shape[1:]), np.int64)
    np.add.at(own, cell.reshape(-1), layers)
    rows = [np.flatnonzero(codes[0] == one) for one in range(len(labels))]
    leaving: Leaving = {}
    for i, j in itertools.combinations(range(len(labels)), 2):
        models = np.union1d(codes[1, rows[i]], codes[1, rows[j]])
        without = np.repeat(groups.counts[None, [i, j]], len(models), axis=0)
        for side, one in enumerate((i, j)):
            without[np.searchsorted(models, codes[1, rows[one]]), side] -= own[rows[one]]
        left = without.any(axis=(2, 3)).all(axis=1)
        if not left.any():
            continue
        p, q = np.moveaxis(groups.shares(without[left]), 1, 0)
        drift = symmetric_kl(p, q) @ found.weights
        best = np.argsort(drift, kind="stable")[:NAMED]
        leaving[labels[i], labels[j]] = [(int(models[left][k]), float(drift[k])) for k in best]
    return leaving
