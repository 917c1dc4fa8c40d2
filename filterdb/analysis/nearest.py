"""Find the models of a database whose filters are most like those of an ONNX file, as a whole and by depth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from filterdb.analysis.compared_shape import Compared, Variables
from filterdb.analysis.drift_metrics import METRICS
from filterdb.analysis.nearest_over_shapes import over_shapes
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.analysis.shared_filters import FileLayers, find_shared
from filterdb.arguments import formerly_positional
from filterdb.columns import Columns
from filterdb.errors import InputError, UsageError
from filterdb.extras import require
from filterdb.models.sandbox import Limits
from filterdb.models.sources import as_source, on_disk
from filterdb.numerics.depth import DECILES
from filterdb.reduce.model_summary import examine_model, reduce_examined
from filterdb.schema import KERNEL, AnyKernel, Kernel, kernel_name
from filterdb.store.database import AnyDatabase, Database, as_database

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.models.sources import NamedFile, Order, Source

_MODEL_LABELS = ("task", "visual_category", "training_dataset", "pretraining_dataset", "family", "architecture")
"""Columns of the models that the result has as coordinates."""


@formerly_positional("n")
@returns_result
def nearest(
    db: AnyDatabase,
    path: Source,
    *,
    n: int = 10,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    key: str = "",
    order: Order | None = None,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Rank the models of a view by how little their filters differ from those of a model file, beyond chance.

    All kernel shapes that file and database have are compared. The drift to a model is the mean over those that both
    have, weighted by the file's weights.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    path : str, path, onnx.ModelProto, torch.nn.Module or keras.Model
        The file: a path, a URL, or a model in memory.
    n : int
        Number of models in the result, at least 1. Default: 10.
    limits : Limits
        Time and memory for reading the file. Default: `Limits()`.
    key : str
        Which network to read of a checkpoint with several, such as "ema".
    order : str, path or list of str, optional
        The names of the weights in the order of execution, or a JSON file with them, for a file without a graph.
    kernel : (int, int) or str, optional
        Compare only filters of this shape, such as "5x5". Default: all shapes, for a view of some layers its own.

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
        - verdict (model), str: "related" (drift < related_below: one was derived from the other, or both from a third),
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
        - With several shapes, shape_drift, shape_excess, shape_floor, shape_floor_q95, shape_count (int64) and
          shape_verdict (str) (shape, model): the same in each shape; NaN, 0 and "" where the model has none. Then
          drift, excess, floors and count are those of the shapes of which file and model have 1,000 filters, or of all
          shapes if there is none; per_component, swaps and deciles are those of the shape with most of the file's
          weights; a model is related if it is in any shape, and indistinguishable if it is in all.
        - compared_share (model), with several shapes: the share of the file's weights that is in these. Models with
          less than half follow the others.
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
    return rank_models(db, path, n=n, limits=limits, key=key, order=order, kernel=kernel).to_dataset()


def rank_models(
    db: AnyDatabase,
    path: Source,
    *,
    n: int,
    limits: Limits,
    key: str = "",
    order: Order | None = None,
    kernel: AnyKernel | None = None,
) -> Columns:
    """Return what `nearest` returns, without xarray."""
    if n < 1:
        raise UsageError(f"n: expected at least 1, got {n}")
    opened, source = as_database(db, kernel=kernel), as_source(path, "path")
    with on_disk([source], key, order) as (file,):
        return rank_models_by_file(opened, file, n=n, limits=limits, kernel=kernel)


def rank_models_by_file(
    db: AnyDatabase, file: NamedFile, *, n: int, limits: Limits, kernel: AnyKernel | None = None
) -> Columns:
    """Return what `nearest` returns for a file on this machine or a URL, which `on_disk` has named."""
    opened = as_database(db, kernel=kernel)
    is_one_shape = kernel is not None or opened.kernel != KERNEL or opened.labels is None
    shapes = (opened.kernel,) if is_one_shape else opened.kernels
    examined = examine_model(file, limits, shapes)
    wanted = [shape for shape in shapes if examined.rows.get(shape)]
    if not wanted:
        examined.check(shapes[0])
    questions = _questions(opened, wanted or list(shapes[:1]))
    reductions = {shape: question.projection.histograms for shape, question in questions.items()}
    queries = reduce_examined(examined, reductions, limits)
    compared = [Compared.of(question, queries[shape]) for shape, question in questions.items()]
    return _ranked(compared, n)


def _questions(db: Database, shapes: Sequence[Kernel]) -> dict[Kernel, Question]:
    """Return the question about the models of each shape that some of them have. Bases are fitted if needed."""
    questions = {}
    for shape in shapes:
        with suppress(InputError):  # no model of the view has such filters
            questions[shape] = Question.in_basis(db.bank(shape), "model")
            db = questions[shape].db.bank(db.kernel)  # at the snapshot that has the basis
    return questions or {shapes[0]: Question.in_basis(db.bank(shapes[0]), "model")}


def _ranked(compared: Sequence[Compared], n: int) -> Columns:
    """Return the first `n` models by their excess drift from the file's filters, over all shapes that both have."""
    leading = max(compared, key=lambda shape: shape.file_filters * shape.question.db.weights)
    if len(compared) == 1:
        names, variables = _of_one_shape(leading, n)
    else:
        names, variables = over_shapes(compared, leading, n)
    question, query = leading.question, leading.query
    shapes = {kernel_name(shape.question.db.kernel): shape.file_filters for shape in compared}
    labels = _models(compared)
    ids = labels["model"].values.astype(str)
    position = [int(np.flatnonzero(ids == name)[0]) for name in names]
    same, stored_as = _same_models(compared, labels)
    few = variables["few"][1]
    deciles = {name: variables.pop(name) for name in list(variables) if name.startswith("decile_")}
    model = ("model",)
    return Columns.of(
        {
            **variables,
            "rank": (model, np.where(few, 0, np.arange(1, len(names) + 1))),
            **{name: (model, values[position]) for name, values in same.items()},
            **deciles,
        },
        coords={
            "model": ids[position].astype(object),
            "decile": DECILES,
            **{name: (model, labels[name].values[position].astype(object)) for name in _MODEL_LABELS},
            "weights": ("component", question.weights),
            "query_count": ("decile", leading.decile_counts),
            **({"shape": list(shapes)} if len(compared) > 1 else {}),
        },
        attrs=question.provenance(
            scaled=None,
            metric="kl",
            per_component_metric="kl",
            formula=f"{METRICS['kl'].formula}; pi with the file's own counts; floors of method 4; by excess, method 7",
            query=query.shown,
            query_hash=query.file_hash,
            query_filters=sum(shape.file_filters for shape in compared),
            query_layers=sum(len(shape.query.rows) for shape in compared),
            query_stored_as=json.dumps(stored_as, ensure_ascii=False),
            query_left_out=json.dumps(query.left_out, ensure_ascii=False),
            query_shapes=json.dumps(shapes),
        ),
    )


def _of_one_shape(compared: Compared, n: int) -> tuple[list[str], Variables]:
    """Return the ids and variables of the first models in one shape."""
    order = np.lexsort((compared.drift, compared.excess, compared.few))[:n]
    names = [str(compared.question.grouping.labels[model]) for model in order]
    return names, {**compared.variables(order), **compared.by_decile(order)}


def _models(compared: Sequence[Compared]) -> Columns:
    """Return the view's models that have filters of one of the shapes."""
    views = [shape.question.db.model_columns for shape in compared]
    if len(views) == 1:
        return views[0]
    with_filters = {str(model) for view in views for model in view["model"].values}
    models = compared[0].question.db.root.model_columns
    return models.isel(model=np.array([str(model) in with_filters for model in models["model"].values], bool))


def _same_models(compared: Sequence[Compared], models: Columns) -> tuple[dict[str, npt.NDArray[np.generic]], list[str]]:
    """Return the variables that say what models share with the file, (models,), and which are the same."""
    same_file = models["file_hash"].values.astype(str) == compared[0].query.file_hash
    position = {str(model): number for number, model in enumerate(models["model"].values)}
    equal, same, tells = np.zeros(len(same_file), np.int64), np.ones(len(same_file), bool), False
    for shape in compared:
        hashes, fingerprints = (shape.query.column(name).tolist() for name in ("hash", "fingerprint"))
        shared = find_shared(shape.question.db, FileLayers(hashes, fingerprints, shape.query.column("row_size")))
        rows = [position[str(model)] for model in shape.question.db.model_columns["model"].values]
        equal[rows] += shared.equal_layers
        if shared.can_tell:
            tells = True
            has_filters = np.zeros(len(same), bool)
            has_filters[rows] = shared.same_filters
            same &= has_filters
    same_filters = same_file | (same & tells)
    variables = {"same_content": same_file, "same_filters": same_filters, "equal_layers": equal}
    return variables, models["model"].values[same_filters].astype(str).tolist()
