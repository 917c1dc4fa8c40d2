"""Which models of a database have filters like those of an ONNX file: drift to it, whole and by depth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from filterdb.analysis.drift_metrics import METRICS
from filterdb.analysis.grouping import DECILES, depth_decile
from filterdb.analysis.noise import FEW
from filterdb.analysis.question import Question
from filterdb.arguments import formerly_positional
from filterdb.errors import UsageError
from filterdb.models.sandbox import Limits
from filterdb.models.sources import as_source, on_disk
from filterdb.numerics.divergence import symmetric_kl
from filterdb.numerics.histogram import sound_probabilities
from filterdb.numerics.sampling import SamplingFloor
from filterdb.reduce.model_summary import Query, reduce_model
from filterdb.store.database import AnyDatabase, as_database

if TYPE_CHECKING:
    from filterdb.models.sources import Source

LABELS = ("task", "visual_category", "training_dataset", "pretraining_dataset", "family", "architecture")


@formerly_positional("n")
def nearest(
    db: AnyDatabase,
    path: Source,
    *,
    n: int = 10,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> xr.Dataset:
    """Rank the models of a view by the drift of their filters from those of an ONNX file.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    path : str, path or onnx.ModelProto
        The file: a path, a URL, or a model in memory.
    n : int
        Models in the result, at least 1.
    limits : Limits
        Time and memory for reading the file.

    Returns
    -------
    xarray.Dataset
        With dims model, decile, component:

        - drift (model): to the file. per_component (component, model): kl of each component, unweighted.
        - floor and floor_q95 (model): mean and 95 % quantile of what two samples of one distribution would show at
          these numbers of filters.
        - closer_than_noise (model): drift ≤ floor_q95, so that the filters of the two cannot be told apart.
        - count (model): filters. few (model): whether these are under 1,000.
        - rank (model): from 1; 0 for models with few filters, which come last.
        - same_content (model): whether it is the same file.
        - decile_drift, decile_floor, decile_floor_q95, decile_count (model, decile): the same of a tenth of the depth;
          NaN where either model has no filter.
        - The attribute query_left_out, JSON: layers of the file that are not finite or cannot be read, with reasons.

    Raises
    ------
    UsageError
        For n < 1.
    InputError
        If the file has no 3×3 filters.

    Notes
    -----
    The file's filters are counted in the frozen basis of the snapshot; the models' counts are summaries: no pass over
    the database. Mode `sound`, and the file's counts are added to the snapshot's that make π. Near means alike
    filters, not accuracy after transfer. Source: method §0 and §4.
    """
    if n < 1:
        raise UsageError(f"n: expected at least 1, got {n}")
    db, source = as_database(db), as_source(path, "path")
    question = Question.in_basis(db, "model")
    with on_disk([source]) as (file,):
        query = reduce_model(file.path, question.projection.histograms, limits, file.alias)
    return _ranked(question, query, n)


def _ranked(question: Question, query: Query, n: int) -> xr.Dataset:
    """Return the models, the `question`'s groups, by their drift from the file's filters."""
    db, models, weights = question.db, question.grouping, question.weights
    theirs, mine = question.layer_counts, query.arrays["counts"]
    one, counts = mine.sum(axis=0), question.counts
    whole = question.snapshot_counts + one
    floors = SamplingFloor(whole, weights)
    drift, parts = _drift(one, counts, whole, weights)
    number = counts[:, 0].sum(axis=-1)
    few = number < FEW
    order = np.lexsort((drift, few))[:n]
    floor = floors.between(one, counts[order])
    own = depth_decile(query.column("conv_depth_norm"))
    decile = depth_decile(db.layers["conv_depth_norm"].values)
    of_decile = np.full((4, len(order), len(DECILES)), np.nan)
    for i in np.unique(own):
        here = [(decile == i) & (models.index == model) for model in order]
        there = np.stack([theirs[rows].sum(axis=0) for rows in here])
        some = there[:, 0].sum(axis=-1) > 0
        if some.any():
            part = mine[own == i].sum(axis=0)
            noise = floors.between(part, there[some])
            values = (_drift(part, there[some], whole, weights)[0], *noise, there[some, 0].sum(axis=-1))
            of_decile[:, some, i] = np.stack(values)
    names = db.models["model"].values.astype(str)
    place = [int(np.flatnonzero(names == models.labels[model])[0]) for model in order]
    table = db.models.isel(model=place)
    one_model, by_decile = ("model",), ("model", "decile")
    return xr.Dataset(
        {
            "drift": (one_model, drift[order], {"long_name": "drift to the file"}),
            "per_component": (("component", "model"), parts[:, order]),
            "floor": (one_model, floor.mean, {"long_name": "mean drift of two samples of one distribution"}),
            "floor_q95": (one_model, floor.q95, {"long_name": "95 % quantile of the same"}),
            "closer_than_noise": (one_model, drift[order] <= floor.q95),
            "count": (one_model, number[order], {"long_name": "number of filters"}),
            "few": (one_model, few[order]),
            "rank": (one_model, np.where(few[order], 0, np.arange(1, len(order) + 1))),
            "same_content": (one_model, table["file_hash"].values.astype(str) == query.file_hash),
            **{
                f"decile_{name}": (by_decile, values)
                for name, values in zip(("drift", "floor", "floor_q95", "count"), of_decile, strict=True)
            },
        },
        coords={
            "model": names[place].astype(object),
            "decile": DECILES,
            **{name: (one_model, table[name].values.astype(object)) for name in LABELS},
            "weights": ("component", weights),
            "query_count": ("decile", np.bincount(own, query.column("row_size"), len(DECILES)).astype(np.int64)),
        },
        attrs=question.provenance(
            scaled=None,
            metric="kl",
            per_component_metric="kl",
            formula=f"{METRICS['kl'].formula}; pi with the file's own counts; floors of method 4",
            query=query.shown,
            query_hash=query.file_hash,
            query_filters=int(one[0].sum()),
            query_layers=len(query.rows),
            query_left_out=json.dumps(query.left_out, ensure_ascii=False),
        ),
    )


def _drift(
    one: np.ndarray, others: np.ndarray, whole: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the drift from one group (9, 70) to others (groups, 9, 70), counts; and that of each component.

    Weighted (groups,), and of each component (9, groups). Term by term, not by matrix products: a copy is at exactly 0.
    """
    p = sound_probabilities(np.concatenate([one[None], others]), whole)
    parts = symmetric_kl(p[0], p[1:])
    return parts @ weights, parts.T
