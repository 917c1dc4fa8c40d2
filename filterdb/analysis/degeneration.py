"""Degenerated layers: sparsity, variance entropy, randomness, and what follows from them (P1 §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from filterdb.analysis.grouping import chosen, provenance
from filterdb.errors import UsageError
from filterdb.numerics.eigen import decompose
from filterdb.numerics.moments import Moments
from filterdb.numerics.quality import randomness_threshold, variance_entropy
from filterdb.reduce.basis import check_mode
from filterdb.reduce.passes import summaries
from filterdb.reduce.reductions import CLEAN, SPARSE, MomentsReduction, raw_state, state
from filterdb.store.database import Database

VERDICTS = ("dead", "sparse", "collapsed", "random")


@dataclass(frozen=True, slots=True)
class Rules:
    """Where a verdict begins. P1 gives none beyond T_H(n): these are ours."""

    sparse: float = 0.5
    collapsed: float = 2.0
    smallest: int = 64
    smallest_paper: int = 3
    untrained_sparsity: float = 0.01


def degeneration(db: Database, mode: str = "sound", rules: Rules | None = None) -> xr.Dataset:
    """Per layer of the view, on raw filters. Dim: layer (and verdict, model).

    sparsity S: share of filters whose |w| are all below peak/100 (an all-zero layer: 1, in `paper` mode 0);
    variance_entropy H of the layer's own raw PCA, in [0, log₁₀ 9]; threshold T_H(n); ratio H/T_H (NaN where
    T_H ≤ 0); random (bool); clean_* the same for the filters that are not sparse; orthogonality; verdict
    (layer, verdict) bool; untrained (model) bool. Where a layer's scale is unknown, S and H are NaN and it gets no
    verdict. Source: P1 eq. 7 and 8, torchconvquality.
    """
    check_mode(mode)
    rules = rules or Rules()
    (arrays,) = summaries(db, MomentsReduction())
    arrays = {name: array[chosen(db)] for name, array in arrays.items()}
    layers = db.layers
    known = layers["scale_known"].values
    raw, clean, sparse = raw_state(arrays), state(arrays, CLEAN), state(arrays, SPARSE)
    dead = layers["peak"].values == 0
    sparsity = np.where(dead, float(mode == "sound"), sparse.count / raw.count)
    sparsity, entropy = np.where(known, sparsity, np.nan), np.where(known, _entropy(raw), np.nan)
    threshold = randomness_threshold(raw.count)
    enough = raw.count >= (rules.smallest if mode == "sound" else rules.smallest_paper)
    is_random = (entropy > 0) & (entropy >= threshold) & enough
    clean_entropy = np.where(known, np.where(clean.count > 0, _entropy(clean), 0.0), np.nan)
    clean_threshold = randomness_threshold(np.maximum(clean.count, 1))
    verdict = {
        "dead": dead,
        "sparse": (sparsity > rules.sparse) & ~dead,
        "collapsed": (raw.count >= rules.smallest) & (10**entropy < rules.collapsed) & ~dead,
        "random": is_random,
    }
    of_model = layers["model_index"].values
    _, position = np.unique(of_model, return_inverse=True)
    judged = known & (raw.count >= rules.smallest)
    fresh = is_random & (sparsity < rules.untrained_sparsity)
    untrained = (np.bincount(position, judged & ~fresh) == 0) & (np.bincount(position, judged) > 0)
    one = ("layer",)
    return xr.Dataset(
        {
            "filters": (one, raw.count),
            "sparsity": (one, sparsity, {"formula": "filters with all |w| < peak/100, share"}),
            "variance_entropy": (one, entropy, {"formula": "P1 eq. 7"}),
            "threshold": (one, threshold, {"formula": "P1 eq. 8"}),
            "ratio": (one, _ratio(entropy, threshold)),
            "random": (one, is_random),
            "clean_filters": (one, clean.count),
            "clean_variance_entropy": (one, clean_entropy),
            "clean_ratio": (one, np.where(clean.count > 0, _ratio(clean_entropy, clean_threshold), np.nan)),
            "orthogonality": (one, layers["orthogonality"].values),
            "peak": (one, layers["peak"].values),
            "span": (
                one,
                arrays["span"] / raw.count,
                {"long_name": "mean of max w − min w over filters (P2 fig. 6)"},
            ),
            "verdict": (("layer", "rule"), np.stack([verdict[name] for name in VERDICTS], axis=1)),
            "untrained": ("model", untrained),
        },
        coords={
            "model": layers["model"].values[np.unique(of_model, return_index=True)[1]],
            "layer_model": (one, layers["model"].values),
            "layer_name": (one, layers["layer_name"].values),
            "conv_depth": (one, layers["conv_depth"].values),
            "conv_depth_norm": (one, layers["conv_depth_norm"].values),
            "rule": list(VERDICTS),
        },
        attrs=provenance(db, mode=mode, formula="P1 eq. 7-8, torchconvquality"),
    )


def _entropy(states: Moments) -> np.ndarray:
    return variance_entropy(decompose(states).explained_variance_ratio)


def _ratio(entropy: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(entropy, threshold, out=np.full_like(entropy, np.nan), where=threshold > 0)
    return ratio


def exclude_verdict(db: Database, verdicts: Sequence[str], mode: str = "sound") -> Database:
    """A view without the layers that have any of these verdicts. Raises UsageError for an unknown one."""
    unknown = sorted(set(verdicts) - set(VERDICTS))
    if unknown:
        raise UsageError(f"verdict: expected one of {', '.join(VERDICTS)}, got {unknown[0]!r}")
    if not verdicts:
        return db
    result = degeneration(db, mode)
    bad = result["verdict"].sel(rule=list(verdicts)).any("rule").values
    return db.keep(~bad, f"verdict not {', '.join(verdicts)}")
