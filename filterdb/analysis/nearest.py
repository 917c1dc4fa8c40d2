"""Find the models of a database whose filters are most like those of an ONNX file, as a whole and by depth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from filterdb.analysis.drift_metrics import METRICS
from filterdb.analysis.layer_swaps import places, swap_pair
from filterdb.analysis.noise import BY_LAYERS, BY_SAMPLING, FEW, INDISTINGUISHABLE, TOO_FEW
from filterdb.analysis.question import Question
from filterdb.analysis.shared_filters import FileLayers, find_shared
from filterdb.arguments import formerly_positional
from filterdb.columns import Columns
from filterdb.errors import UsageError
from filterdb.extras import require
from filterdb.models.sandbox import Limits
from filterdb.models.sources import as_source, on_disk
from filterdb.numerics.depth import DECILES, NO_DECILE, depth_decile
from filterdb.numerics.divergence import symmetric_kl
from filterdb.numerics.histogram import sound_probabilities
from filterdb.numerics.resampling import SymmetricKL
from filterdb.numerics.sampling import Z_RELATED, Floor, SamplingFloor
from filterdb.numerics.significance import LEVEL
from filterdb.reduce.model_summary import Query, reduce_model
from filterdb.store.database import AnyDatabase, Database, as_database

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.models.sources import Order, Source

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RELATED, DIFFERENT_BY_FILTERS = "related", "different_by_filters"

_MODEL_LABELS = ("task", "visual_category", "training_dataset", "pretraining_dataset", "family", "architecture")
"""Columns of the models that the result has as coordinates."""


@formerly_positional("n")
def nearest(
    db: AnyDatabase,
    path: Source,
    *,
    n: int = 10,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    key: str = "",
    order: Order | None = None,
) -> xr.Dataset:
    """Rank the models of a view by how little their filters differ from those of a model file, beyond chance.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    path : str, path or onnx.ModelProto
        The file: a path, a URL, or a model in memory.
    n : int
        Number of models in the result, at least 1. Default: 10.
    limits : Limits
        Time and memory for reading the file. Default: `Limits()`.
    key : str
        Which network to read of a checkpoint with several, such as "ema".
    order : str, path or list of str, optional
        The names of the weights in the order of execution, or a JSON file with them, for a file without a graph.

    Returns
    -------
    xarray.Dataset
        With dims model, decile, component, float64 unless stated otherwise:

        - drift (model): the drift to the file.
        - excess (model): drift − floor, ascending. Floors are larger for models with fewer filters, so the drift itself
          does not rank models of different sizes.
        - per_component (component, model): the drift (kl) of each component, unweighted.
        - floor and floor_q95 (model): mean and 95 % quantile of the drift of two samples of one distribution with
          these numbers of filters.
        - related_below (model): the 0.1 % quantile of the same. Independent models are hardly ever this near.
        - verdict (model), str: "related" (drift < related_below: one was made from the other, or both from a third),
          "indistinguishable" (drift ≤ floor_q95 or swap_p_value > 0.05), "different_by_filters", or "few" (fewer than
          1,000 filters in the model or the file).
        - layer_floor_q95 and swap_p_value (model): if the model's layers correspond to the file's (equal depths and
          shapes, at least six), the 95 % quantile of the drift after swapping some of them, and the share of swaps with
          at least this drift; else NaN.
        - judged_by (model), str: "layers" where there is such a share, else "sampling".
        - closer_than_noise (model), bool: drift ≤ floor_q95, which is true of related models too.
        - count (model), int64: filters. few (model), bool: whether there are fewer than 1,000.
        - rank (model), int64: from 1; 0 for models with few filters, which come last.
        - same_content (model), bool: whether the model is the same file.
        - same_filters (model), bool: whether it has the same filters apart from the scales of output channels, such as
          the same network in another format, with its batch normalisations folded or not.
        - equal_layers (model), int64: layers of the file whose filters the model has, apart from these scales.
        - decile_drift, decile_floor, decile_floor_q95, decile_count (model, decile): the same for a tenth of the
          depth; NaN if either model has no filters there.
        - Coordinates along model: task, visual_category, training_dataset, pretraining_dataset, family, architecture,
          str; weights (component); query_count (decile), int64: the file's filters.

        The attribute query_left_out is JSON of the layers of the file that are not finite or cannot be read, with the
        reasons; query_stored_as is JSON of all models of the view that are the same file or have the same filters.

    Raises
    ------
    UsageError
        For n < 1.
    InputError
        If the file has no filters of the view's kernel shape.

    Notes
    -----
    The mode is `sound`. The file's filters are projected on the snapshot's basis and added to the counts behind π; the
    models' counts are summaries, so no filter of the database is read. Similar filters do not promise accuracy after
    transfer. A long fine-tuning leaves no drift below the floor; `lineage` recognises relatives for longer. Source:
    docs/explanation/method.md.

    Examples
    --------
    >>> result = fdb.nearest(db, "models/detector-10.onnx", n=3)
    >>> result["model"].values.tolist(), result["drift"].values.round(2)
    (['detector-10', 'detector-20', 'classifier-1'], array([0.  , 0.02, 0.35]))
    >>> result["verdict"].values.tolist()
    ['related', 'indistinguishable', 'different_by_filters']
    """
    require("xarray")
    return rank_models(db, path, n=n, limits=limits, key=key, order=order).to_dataset()


def rank_models(
    db: AnyDatabase, path: Source, *, n: int, limits: Limits, key: str = "", order: Order | None = None
) -> Columns:
    """Return what `nearest` returns, without xarray."""
    if n < 1:
        raise UsageError(f"n: expected at least 1, got {n}")
    db, source = as_database(db), as_source(path, "path")
    question = Question.in_basis(db, "model")
    with on_disk([source], key, order) as (file,):
        query = reduce_model(file, question.projection.histograms, limits, db.kernel)
    return _ranked(question, query, n)


def _ranked(question: Question, query: Query, n: int) -> Columns:
    """Return the first `n` models, which are the `question`'s groups, by their excess drift from the file's filters."""
    db, models, weights = question.db, question.grouping, question.weights
    file_counts, counts = query.arrays["counts"].sum(axis=0), question.counts
    whole = question.snapshot_counts + file_counts
    drift, components = _drift(file_counts, counts, whole, weights)
    number = counts[:, 0].sum(axis=-1)
    few = number < FEW
    floors = SamplingFloor(whole, weights).between(file_counts, counts)
    order = np.lexsort((drift, drift - floors.mean, few))[:n]
    floor = Floor(floors.mean[order], floors.q95[order])
    no_verdict = few[order] | (file_counts[0].sum() < FEW)
    swap_q95, by_swaps = np.where(no_verdict, np.nan, _swaps(question, query, whole, order))
    verdict = _verdicts(drift[order], floor, by_swaps, no_verdict)
    by_decile = _decile_variables(question, query, whole, order)
    labels = db.model_columns
    names = labels["model"].values.astype(str)
    position = [int(np.flatnonzero(names == models.labels[model])[0]) for model in order]
    same, stored_as = _same_models(db, query)
    model = ("model",)
    return Columns.of(
        {
            "drift": (model, drift[order], {"long_name": "drift to the file"}),
            "excess": (model, drift[order] - floor.mean, {"long_name": "drift beyond its floor"}),
            "per_component": (("component", "model"), components[:, order]),
            "floor": (model, floor.mean, {"long_name": "mean drift of two samples of one distribution"}),
            "floor_q95": (model, floor.q95, {"long_name": "95 % quantile of the same"}),
            "related_below": (model, floor.quantile(Z_RELATED), {"long_name": "0.1 % quantile of the same"}),
            "verdict": (model, verdict),
            "judged_by": (model, np.where(np.isnan(by_swaps), BY_SAMPLING, BY_LAYERS).astype(object)),
            "layer_floor_q95": (model, swap_q95, {"long_name": "95 % quantile of the drift after swapping layers"}),
            "swap_p_value": (model, by_swaps, {"long_name": "share of swaps of layers with at least this drift"}),
            "closer_than_noise": (model, drift[order] <= floor.q95),
            "count": (model, number[order], {"long_name": "number of filters"}),
            "few": (model, few[order]),
            "rank": (model, np.where(few[order], 0, np.arange(1, len(order) + 1))),
            **{name: (model, values[position]) for name, values in same.items()},
            **{f"decile_{name}": (("model", "decile"), values) for name, values in by_decile.items()},
        },
        coords={
            "model": names[position].astype(object),
            "decile": DECILES,
            **{name: (model, labels[name].values[position].astype(object)) for name in _MODEL_LABELS},
            "weights": ("component", weights),
            "query_count": ("decile", _decile_counts(query)),
        },
        attrs=question.provenance(
            scaled=None,
            metric="kl",
            per_component_metric="kl",
            formula=f"{METRICS['kl'].formula}; pi with the file's own counts; floors of method 4; by excess, method 7",
            query=query.shown,
            query_hash=query.file_hash,
            query_filters=int(file_counts[0].sum()),
            query_layers=len(query.rows),
            query_stored_as=json.dumps(stored_as, ensure_ascii=False),
            query_left_out=json.dumps(query.left_out, ensure_ascii=False),
        ),
    )


def _decile_counts(query: Query) -> Ints:
    """Return the number of the file's filters in each depth decile, (10,)."""
    decile = depth_decile(query.column("conv_depth_norm"))
    known = decile != NO_DECILE
    return np.bincount(decile[known], query.column("row_size")[known], len(DECILES)).astype(np.int64)


def _same_models(db: Database, query: Query) -> tuple[dict[str, npt.NDArray[np.generic]], list[str]]:
    """Return the variables that say what the view's models share with the file, (models,), and which are the same."""
    same_file = db.model_columns["file_hash"].values.astype(str) == query.file_hash
    hashes, fingerprints = (query.column(name).tolist() for name in ("hash", "fingerprint"))
    shared = find_shared(db, FileLayers(hashes, fingerprints, query.column("row_size")))
    same_filters = same_file | shared.same_filters
    variables = {"same_content": same_file, "same_filters": same_filters, "equal_layers": shared.equal_layers}
    return variables, db.model_columns["model"].values[same_filters].astype(str).tolist()


def _verdicts(drift: Floats, floor: Floor, by_swaps: Floats, few: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Return the verdict of each model, (models,); `by_swaps` is the p-value of swapping layers, NaN for none."""
    verdict = np.where((drift <= floor.q95) | (by_swaps > LEVEL), INDISTINGUISHABLE, DIFFERENT_BY_FILTERS)
    verdict[drift < floor.quantile(Z_RELATED)] = RELATED
    verdict[few] = TOO_FEW
    return verdict.astype(object)


def _swaps(question: Question, query: Query, whole: Ints, order: Ints) -> Floats:
    """Return floor and p-value of swapping the file's layers with each model's in `order`, (2, models), or NaN."""
    file_places = places(query.column)
    layers, layer_counts = question.db.layer_columns, question.layer_counts
    model_places = places(lambda name: layers[name].values)
    swaps = np.full((2, len(order)), np.nan)
    for i, model in enumerate(order):
        rows = np.flatnonzero(question.grouping.index == model)
        if len(rows) == len(file_places):
            counts = np.concatenate([query.arrays["counts"], layer_counts[rows]])
            statistic = SymmetricKL(counts, whole, question.weights)
            swaps[:, i] = swap_pair(statistic, file_places, [model_places[row] for row in rows])
    return swaps


def _decile_variables(question: Question, query: Query, whole: Ints, order: Ints) -> dict[str, Floats]:
    """Return drift, floors and count of each model in `order` in each depth decile, (models, 10) each."""
    floors = SamplingFloor(whole, question.weights)
    query_counts, layer_counts = query.arrays["counts"], question.layer_counts
    query_decile = depth_decile(query.column("conv_depth_norm"))
    decile = depth_decile(question.db.layer_columns["conv_depth_norm"].values)
    variables = np.full((4, len(order), len(DECILES)), np.nan)
    for i in np.unique(query_decile[query_decile != NO_DECILE]):
        rows = [(decile == i) & (question.grouping.index == model) for model in order]
        counts = np.stack([layer_counts[chosen].sum(axis=0) for chosen in rows])
        has_filters = counts[:, 0].sum(axis=-1) > 0
        if has_filters.any():
            counts = counts[has_filters]
            file_counts = query_counts[query_decile == i].sum(axis=0)
            drift, _ = _drift(file_counts, counts, whole, question.weights)
            noise = floors.between(file_counts, counts)
            variables[:, has_filters, i] = np.stack((drift, *noise, counts[:, 0].sum(axis=-1)))
    return dict(zip(("drift", "floor", "floor_q95", "count"), variables, strict=True))


def _drift(counts: Ints, others: Ints, whole: Ints, weights: Floats) -> tuple[Floats, Floats]:
    """Return the drift from one group with `counts` (K, 70) to `others` (groups, K, 70), and that of each component.

    The drift is (groups,), that of components (K, groups). It is computed term by term, not by matrix products, so that
    the drift to a copy is exactly 0.
    """
    p = sound_probabilities(np.concatenate([counts[None], others]), whole)
    components = symmetric_kl(p[0], p[1:])
    return components @ weights, components.T
