"""Join models that are not independent into units of replication, usually one for each training.

The filters of a fine-tuned copy are not a new draw from the population of models. Permutations, draws of models and the
guard for few filters therefore count units instead of models.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.analysis.grouping import chosen
from filterdb.analysis.kinship import descendants, initialisations
from filterdb.analysis.trainings import (
    EPOCH,
    SEED,
    TRAINING,
    Key,
    begin_at_initialisation,
    column,
    models_with_layers,
    training_keys,
)
from filterdb.columns import Columns
from filterdb.numerics.components import Components
from filterdb.schema import UNKNOWN
from filterdb.store.database import Database

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

RELATED = "related"
"""The unit that sketches the layers that have no sketch, so that all relatives can be joined."""

RELATIVES = "relatives"
"""The evidence that is missing where layers have no sketch."""

CHEAP = ("labels", "copies", "layers")
"""The evidence that every database has."""

SHARED_LAYER_FILTERS = 64
"""Fewest filters of a layer that two models can share only if one is made from the other, or both from a third."""

_PARALLEL = 1e-6
"""Orthogonality below which all channels of a layer are one filter, such as a fixed blur, which is no sign of kinship.
"""


class Units(NamedTuple):
    """Hold the unit of each of a view's layers, (layers,), and the evidence by which models were joined."""

    of_layer: Ints
    evidence: tuple[str, ...]


def find_units(db: Database, unit: str | None = None) -> Units:
    """Return the units of a view's models.

    Two models are in one unit if they are checkpoints of one training, have equal content or an equal layer of at least
    64 filters (apart from the scales of its output channels), share trained weights, or have the same known value in
    the column `unit`; and if a chain of such pairs connects them. An initialisation belongs to no unit but its
    training's, and trainings that began at one initialisation are different units.

    Parameters
    ----------
    db : Database
        The view.
    unit : str, optional
        A column of models or layers; or "related", which sketches the layers that have no sketch yet, in a pass over
        all filters. Default: none; models that share trained weights are joined if all of their layers have sketches.

    Raises
    ------
    UsageError
        For an unknown column.
    """
    models = models_with_layers(db)
    positions, of_layer = np.unique(db.layer_columns["model_index"].values, return_inverse=True)
    of_layer = of_layer.reshape(-1)
    trainings = _trainings(db, models)
    # Trainings with one seed share their initialisation, which says nothing about what they learned.
    is_start = initialisations(db) & np.array([key is not None for key in trainings], bool)
    joined = Components(len(positions))
    joined.share(trainings)
    names, originals = (models[name].values.astype(str).tolist() for name in ("model", "duplicate_of"))
    contents = zip(names, originals, is_start.tolist(), strict=True)
    joined.share([None if start else original or name for name, original, start in contents])
    joined.share_rows(of_layer, np.where(is_start[of_layer], "", _layer_hashes(db)))
    evidence: tuple[str, ...] = CHEAP
    pairs = descendants(db, sketch=unit == RELATED)
    if pairs is not None:
        joined.join_pairs(pairs & ~(is_start | is_start[:, None]) & ~_same_start(models, trainings))
        evidence = (*evidence, RELATIVES)
    if unit not in {None, RELATED}:
        joined.share_rows(of_layer, _known(db.column(str(unit))))
        evidence = (*evidence, str(unit))
    return Units(joined.roots()[of_layer], evidence)


def effective_number(weights: npt.NDArray[np.float64] | Ints) -> float:
    """Return (Σw)²/Σw²: how many units of equal weight average as well as units of these weights (units,)."""
    total = float((weights**2).sum())
    return float(weights.sum()) ** 2 / total if total else 0.0


def _trainings(db: Database, models: Columns) -> list[Key | None]:
    """Return the training of each model; None for a model that is no checkpoint of a known one."""
    is_checkpoint = [
        epoch != UNKNOWN or training != UNKNOWN
        for epoch, training in zip(column(models, EPOCH), column(models, TRAINING), strict=True)
    ]
    return [key if known else None for key, known in zip(training_keys(db), is_checkpoint, strict=True)]


def _same_start(models: Columns, trainings: list[Key | None]) -> Bools:
    """Return which pairs of models the catalog knows to be of two trainings from one seed, (models, models)."""
    _, seed = np.unique(column(models, SEED), return_inverse=True)
    codes: dict[Key | None, int] = {}
    training = np.array([codes.setdefault(key, len(codes)) for key in trainings], np.int64)
    known = np.array(begin_at_initialisation(models), bool) & (np.array(column(models, SEED)) != UNKNOWN)
    known &= np.array([key is not None for key in trainings], bool)
    same: Bools = known & known[:, None] & (seed == seed[:, None]) & (training != training[:, None])
    return same


def _layer_hashes(db: Database) -> npt.NDArray[np.str_]:
    """Return a text for each layer that only kin can share, equal for equal filters, else an empty text, (layers,)."""
    layers = db.layer_columns
    is_telling = (layers["row_size"].values >= SHARED_LAYER_FILTERS) & (layers["peak"].values > 0)
    is_telling &= ~(layers["orthogonality"].values < _PARALLEL)
    return np.where(is_telling, db.same_filters[chosen(db)].astype(str), "")


def _known(values: npt.NDArray[np.generic]) -> npt.NDArray[np.str_]:
    """Return values as text, with an empty one where they are unknown."""
    text = values.astype(str)
    return np.where(text == UNKNOWN, "", text)
