"""Compute leave-one-out drift: the drift of every pair of groups without each of its models.

The page shows it for the selected cell. `fdb.explain` computes the same for one pair (`without_model`), at the cost of
all pairs here.
"""

from __future__ import annotations

import itertools

import numpy as np

from filterdb.analysis.question import Question
from filterdb.numerics.divergence import symmetric_kl
from filterdb.numerics.histogram import sum_groups
from filterdb.numerics.modes import ModeName
from filterdb.numerics.pairs import distinct_pairs
from filterdb.store.database import Database

NAMED_MODELS = 4
"""Number of models that the page names for a pair: those without which its drift is lowest."""

MAX_PAIRS = 5_000
"""Largest number of pairs of groups for which leave-one-out drift is computed."""

_PART = 128
"""Models of which the probabilities are computed at a time, so that they fit in the cache."""

LeaveOneOut = dict[tuple[str, str], list[tuple[int, float]]]
"""Labels of two groups → positions of models in the snapshot, and D without each."""


def without_models(db: Database, by: str, mode: ModeName) -> LeaveOneOut:
    """Return D of each pair of groups of `by` without each model, the lowest first; {} for too many pairs."""
    question = Question.in_basis(db, by, mode)
    labels = question.grouping.labels
    if len(labels) * (len(labels) - 1) // 2 > MAX_PAIRS:
        return {}
    groups, owners, cell = distinct_pairs(question.grouping.index, question.db.layers["model_index"].values)
    own = sum_groups(question.layer_counts, cell, len(groups))
    rows = [np.flatnonzero(groups == code) for code in range(len(labels))]
    drifts: LeaveOneOut = {}
    for i, j in itertools.combinations(range(len(labels)), 2):
        models = np.union1d(owners[rows[i]], owners[rows[j]])
        without = np.repeat(question.counts[None, [i, j]], len(models), axis=0)
        for side, code in enumerate((i, j)):
            without[np.searchsorted(models, owners[rows[code]]), side] -= own[rows[code]]
        left = without.any(axis=(2, 3)).all(axis=1)
        if not left.any():
            continue
        counts = without[left]
        parts = (question.probabilities_of(counts[start : start + _PART]) for start in range(0, len(counts), _PART))
        drift = np.concatenate([symmetric_kl(part[:, 0], part[:, 1]) for part in parts]) @ question.weights
        best = np.argsort(drift, kind="stable")[:NAMED_MODELS]
        drifts[labels[i], labels[j]] = [(int(models[left][k]), float(drift[k])) for k in best]
    return drifts
