"""Find degenerated layers: sparsity, variance entropy, randomness, and the verdicts that follow (P1 §4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from filterdb.analysis.degeneration_groups import group_layers, summarise
from filterdb.analysis.grouping import Key, check_raw, chosen, provenance, with_depth
from filterdb.analysis.returning import returns_result
from filterdb.analysis.rules import LAYER_MEASURES, VERDICTS, Rules, judge
from filterdb.analysis.untrained import untrained as untrained_models
from filterdb.arguments import as_names, formerly_positional
from filterdb.columns import Columns
from filterdb.engine.moments import CLEAN, SCALED, SPARSE, MomentsReduction, raw_state, state
from filterdb.engine.run import in_parts
from filterdb.errors import UsageError
from filterdb.numerics.directions import direction_names, directions
from filterdb.numerics.eigen import variance_ratio
from filterdb.numerics.modes import AnyMode, Mode, as_mode
from filterdb.numerics.percentiles import by_class, counts, layer_classes, nearby_percentiles
from filterdb.numerics.quality import Sigmoid, paper_threshold, randomness_threshold, variance_entropy
from filterdb.numerics.sphericity import p_value, relative_spread
from filterdb.schema import KERNEL, AnyKernel, Kernel, as_kernel, kernel_text
from filterdb.store import summary
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.shapes import check_has_filters
from filterdb.store.summary import Arrays
from filterdb.wording import meant

if TYPE_CHECKING:
    import xarray as xr

MEASURES = {
    **LAYER_MEASURES,
    "random": "the filters cannot be distinguished from isotropic noise, and n is large enough",
    "clean_filters": "filters that are not sparse",
    "clean_variance_entropy": "H of the filters that are not sparse",
    "clean_ratio": "H / T_H of the filters that are not sparse",
    "orthogonality": "1 - mean |cosine| between output channels",
    "span": "mean of max w - min w over filters (P2 fig. 6)",
}


@formerly_positional("mode", "rules", "threshold")
@returns_result
def degeneration(
    db: AnyDatabase,
    *,
    by: Key | None = None,
    mode: AnyMode = "sound",
    rules: Rules | None = None,
    threshold: xr.Dataset | None = None,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Measure every layer of the view on raw filters, and judge it.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        The labels by which layers are grouped for the summaries. Default: one group of all layers.
    mode : {"sound", "paper"}
        In `paper` mode the sparsity of an all-zero layer is 0, and layers of at least 3 filters are random by their
        entropy: if H > 0 and H ≥ T_H(n).
        Default: "sound".
    rules : Rules, optional
        The thresholds of verdicts. Default: `Rules()`.
    threshold : xarray.Dataset, optional
        A result of `randomness_threshold` for filters of as many weights, which replaces P1's constants of T_H.
        Default: P1's, which are for nine weights; for other kernels T_H is NaN, and no layer is random in `paper` mode.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims layer (the index of `db.layers`), rule, model, group, statistic (low, q1, median, q3, high, mean);
        float64 unless stated otherwise:

        - filters (layer), int64: the number of filters n.
        - sparsity (layer): S, the share of filters whose |w| are all below peak/100 (1 for an all-zero layer).
        - variance_entropy (layer): H of the layer's own raw PCA, in [0, log₁₀ K] for K weights.
        - threshold and ratio (layer): T_H(n) and H / T_H; the ratio is NaN where T_H ≤ 0 or unknown.
        - random (layer), bool: H > 0, H ≥ T_H and n large enough.
        - clean_filters (layer), int64, clean_variance_entropy, clean_ratio (layer): n, H and H / T_H of the filters
          that are not sparse.
        - orthogonality (layer): 1 − mean |cosine| between output channels.
        - peak and span (layer): the largest |w|, and the mean of max w − min w over filters.
        - scale_known (layer), bool: false for an integer weight without a known scale. S and H of such a layer are
          NaN, and it has no verdict.
        - verdict (layer, rule), bool: dead, sparse, collapsed, random.
        - untrained (model), bool: whether no more layers differ from isotropic noise than chance allows; only where
          the kernel's weights are at least half of the convolution weights (docs/explanation/randomness.md).
        - direction (layer), str: of a collapsed layer, "acts as a 1×1 convolution" (at least 90 % of the energy of
          the first component is in the centre weight), "a box blur" (… is in the uniform filter), or the DCT term
          (vertical, horizontal frequency) that explains that component best. Empty for other layers.
        - direction_share (layer): the share of the filters' energy Σf² in that pattern. NaN for other layers.
        - percentile (layer): the share of the database's layers of its size class (⌊log₁₆ n⌋) and similar depth that
          have a smaller H, in percent; ties count half, the layer itself is one of them. Similar is the same decile of
          the depth or, while these are fewer than five layers, one more on either side.
        - percentile_peers (layer), int64: the number of these layers.
        - layer_count (group), int64: the number of layers. All other summaries leave out those of unknown scale.
        - mean_entropy and mean_sparsity (group): the unweighted means of H and S over layers.
        - share_dense and share_sparse (group): the shares of layers with S < 0.01, and with S above `rules.sparse`.
        - verdict_share (group, rule), share_degenerated (group): the shares of layers with the verdict, and with any.
        - entropy_box and sparsity_box (group, statistic): quartiles, Tukey's whiskers low and high, and mean.
        - Coordinates along layer: layer_model, layer_name, conv_depth, conv_depth_norm, layer_group.

    Raises
    ------
    UsageError
        For an unknown mode, or a threshold for filters of another number of weights.

    Notes
    -----
    Whether a model is untrained follows from all its layers, also from those outside the view. Source: P1 eq. 7 and 8,
    torchconvquality; the test of sphericity of John 1971 and Nagao 1973.

    Examples
    --------
    The layers of the detectors use more of the nine directions than those of the classifiers; none is degenerated.

    >>> result = fdb.degeneration(db)
    >>> result["variance_entropy"].groupby("layer_model").mean().values.round(2)
    array([0.49, 0.51, 0.68, 0.69])
    >>> result["threshold"].values.round(2)[:3]
    array([0.95, 0.95, 0.95])
    >>> int(result["verdict"].sum())
    0

    The same by task, as quartiles:

    >>> fdb.degeneration(db, by="task")["entropy_box"].sel(statistic=["q1", "median", "q3"]).values.round(2)
    array([[0.49, 0.5 , 0.51],
           [0.68, 0.69, 0.69]])
    """
    db = as_database(db, kernel=kernel)
    check_has_filters(db)
    return judge_layers(db, by=by, mode=mode, rules=rules, threshold=threshold).to_dataset()


def judge_layers(
    db: AnyDatabase,
    *,
    by: Key | None = None,
    mode: AnyMode = "sound",
    rules: Rules | None = None,
    threshold: xr.Dataset | None = None,
) -> Columns:
    """Return what `degeneration` returns, without xarray."""
    db = as_database(db)
    if by is not None:
        check_raw(db)
        db = with_depth(db, by)
    mode = as_mode(mode)
    rules = rules or Rules()
    # Judge all layers of the snapshot first: whether a model is untrained does not depend on the view.
    judged = _judged(db.whole, mode, rules, _sigmoid(threshold, db.weights))
    models, untrained = _untrained(db.whole, judged, rules, mode)
    judged = {name: values[chosen(db)].copy() for name, values in judged.items()}
    layers, listed = db.layer_columns, db.model_columns
    in_view = np.isin(db.whole.model_columns["model"].values[models].astype(str), layers["model"].values.astype(str))
    layer = ("layer",)
    grouping = group_layers(db, by, mode)
    of_layers = Columns.of(
        {
            **{name: (layer, judged[name], {"long_name": doc}) for name, doc in MEASURES.items()},
            "verdict": (("layer", "rule"), np.stack([judged[name] for name in VERDICTS], axis=1)),
            "untrained": ("model", untrained[in_view]),
            "percentile": (layer, judged["percentile"], {"long_name": "percentile of H among like layers"}),
            "percentile_peers": (layer, judged["percentile_peers"], {"long_name": "number of these layers"}),
            "direction": (layer, judged["direction"], {"long_name": "what the filters of a collapsed layer share"}),
            "direction_share": (layer, judged["direction_share"], {"long_name": "share of their energy in it"}),
        },
        coords={
            "model": listed["model"].values[listed["layers"].values > 0],
            "layer": layers["layer"].values,
            "layer_model": (layer, layers["model"].values),
            "layer_name": (layer, layers["layer_name"].values),
            "conv_depth": (layer, layers["conv_depth"].values),
            "conv_depth_norm": (layer, layers["conv_depth_norm"].values),
            "layer_group": (layer, np.array(grouping.labels, object)[grouping.index]),
            "rule": list(VERDICTS),
        },
        attrs=provenance(
            db,
            by=grouping.by,
            mode=mode.name,
            formula="P1 eq. 7-8, torchconvquality",
            threshold_init=None if threshold is None else threshold.attrs["init"],
        ),
    )
    of_groups = summarise(judged, grouping, rules)
    return Columns(of_layers.variables | of_groups.variables, of_layers.coords | of_groups.coords, of_layers.attrs)


def _sigmoid(threshold: xr.Dataset | None, weights: int) -> Sigmoid:
    """Return the randomness threshold of a result of `randomness_threshold`, or P1's."""
    if threshold is None:
        return paper_threshold(weights)
    kernel = as_kernel(threshold.attrs.get("kernel", KERNEL))
    if kernel[0] * kernel[1] != weights:
        raise UsageError(f"threshold: expected one for filters of {weights} weights, got one for {kernel_text(kernel)}")
    from filterdb.analysis.threshold import sigmoid  # imports xarray, which the result needs anyway

    return sigmoid(threshold)


def _judged(db: Database, mode: Mode, rules: Rules, fit: Sigmoid) -> dict[str, npt.NDArray[Any]]:
    """Return MEASURES and verdicts of every layer of the snapshot, computed once for these rules and kept."""
    place = "", summary.Key("judged", 1, repr((db.layers_key, mode.name, rules, fit)))
    judged = db.kept.get(place)
    if judged is None:
        parts = [_measure(arrays, db.kernel) for _, arrays in in_parts(db, MomentsReduction(db.weights))]
        measured = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        judged = _judge(db, measured, mode, rules, fit)
        db.kept[place] = judged
    return judged


def _measure(arrays: Arrays, kernel: Kernel) -> dict[str, npt.NDArray[Any]]:
    """Return what is measured of some layers from their moments, (layers,) each."""
    raw, clean = raw_state(arrays), state(arrays, CLEAN)
    direction = directions(raw, kernel)
    return {
        "count": raw.count,
        "clean": clean.count,
        "sparse": state(arrays, SPARSE).count,
        "entropy": variance_entropy(variance_ratio(raw)),
        "clean_entropy": variance_entropy(variance_ratio(clean)),
        "p_value": p_value(state(arrays, SCALED)),
        "relative_spread": relative_spread(raw),
        "span": arrays["span"],
        "direction": direction.code,
        "share": direction.share,
    }


def _judge(
    db: Database, measured: dict[str, npt.NDArray[Any]], mode: Mode, rules: Rules, fit: Sigmoid
) -> dict[str, npt.NDArray[Any]]:
    """Return MEASURES and verdicts of every layer of the snapshot, (layers,) each."""
    layers, count = db.layer_columns, measured["count"]
    known: npt.NDArray[np.bool_] = layers["scale_known"].values
    all_sparse = (layers["peak"].values == 0) & mode.dead_layers_are_sparse
    sparsity = np.where(known, np.where(all_sparse, 1.0, measured["sparse"] / count), np.nan)
    entropy = np.where(known, measured["entropy"], np.nan)
    threshold = randomness_threshold(count, fit)
    clean_count = np.where(all_sparse, 0, measured["clean"])
    clean_entropy = np.where(known, np.where(clean_count > 0, measured["clean_entropy"], 0.0), np.nan)
    clean_ratio = _ratio(clean_entropy, randomness_threshold(np.maximum(clean_count, 1), fit))
    dead = (layers["peak"].values == 0) & known
    classes = layer_classes(count, layers["conv_depth_norm"].values)
    percentile, peers = nearby_percentiles(entropy, classes, by_class(entropy, classes), counts(classes))
    measures = {
        "filters": count,
        "sparsity": sparsity,
        "variance_entropy": entropy,
        "threshold": threshold,
        "ratio": _ratio(entropy, threshold),
        "p_value": np.where(known, measured["p_value"], np.nan),
        "relative_spread": np.where(known, measured["relative_spread"], np.nan),
        "clean_filters": clean_count,
        "clean_variance_entropy": clean_entropy,
        "clean_ratio": np.where(clean_count > 0, clean_ratio, np.nan),
        "orthogonality": layers["orthogonality"].values,
        "peak": np.where(known, layers["peak"].values, np.nan),
        "span": np.where(known, measured["span"] / count, np.nan),
        "scale_known": known,
        "percentile": percentile,
        "percentile_peers": peers,
    }
    verdicts = judge(measures, dead, rules, mode, db.weights)
    names = direction_names(measured["direction"], verdicts["collapsed"], db.kernel)
    share = np.where(verdicts["collapsed"], measured["share"], np.nan)
    return {**measures, "direction": names, "direction_share": share, **verdicts}


def _untrained(
    db: Database, judged: dict[str, npt.NDArray[Any]], rules: Rules, mode: Mode
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the positions of models that have layers, and whether each is untrained."""
    models, position = np.unique(db.layer_columns["model_index"].values, return_inverse=True)
    shapes = [str(text) for text in db.model_columns["filter_shapes"].values[models]]
    return models, untrained_models(position, judged, shapes, rules, mode, db.kernel)


def _ratio(entropy: npt.NDArray[np.float64], threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return entropy / threshold, NaN where the threshold is not positive."""
    return np.divide(entropy, threshold, out=np.full_like(entropy, np.nan), where=threshold > 0)


@formerly_positional("mode")
def exclude_verdict(
    db: AnyDatabase,
    verdicts: str | Sequence[str],
    *,
    mode: AnyMode = "sound",
    kernel: AnyKernel | None = None,
) -> Database:
    """Return a view without the layers that have any of the given verdicts.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    verdicts : str or list of str
        Any of dead, sparse, collapsed, random. An empty list leaves the view as it is.
    mode : {"sound", "paper"}
        As in `degeneration`. Default: "sound".
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    Database
        The view; its `conditions` name the verdicts.

    Raises
    ------
    UsageError
        For an unknown verdict or mode.

    Examples
    --------
    >>> fdb.exclude_verdict(db, ["dead", "random"]).conditions
    ('verdict not dead, random',)
    """
    db = as_database(db, kernel=kernel)
    verdicts = as_names(verdicts, "verdicts")
    unknown = sorted(set(verdicts) - set(VERDICTS))
    if unknown:
        hint = meant(unknown[0], VERDICTS)
        raise UsageError(f"verdict: expected one of {', '.join(VERDICTS)}, got {unknown[0]!r}{hint}")
    if not verdicts:
        return db
    result = judge_layers(db, mode=mode)
    excluded = result["verdict"].values[:, np.isin(VERDICTS, verdicts)].any(axis=1)
    return db.keep(~excluded, f"verdict not {', '.join(verdicts)}")
