"""Join models that are not independent into units of replication, usually one for each training.

The filters of a fine-tuned copy are not a new draw from the population of models. Permutations, draws of models and the
guard for few filters therefore count units instead of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.lineage import relatives
from filterdb.analysis.trainings import EPOCH, TRAINING, Key, column, models_with_layers, training_keys
from filterdb.schema import UNKNOWN
from filterdb.store.database import Database

Ints = npt.NDArray[np.int64]

RELATED = "related"
"""The unit that joins models which `lineage` finds related."""

SHARED_LAYER_FILTERS = 64
"""Fewest filters of a layer that two models can share only if one is made from the other, or both from a third."""

_PARALLEL = 1e-6
"""Orthogonality below which all channels of a layer are one filter, such as a fixed blur, which is no sign of kinship.
"""


def find_units(db: Database, unit: str | None = None, related: Iterable[tuple[str, str]] = ()) -> Ints:
    """Return the unit of the model of each of a view's layers, (layers,) int.

    Two models are in one unit if they are checkpoints of one training, have equal content or an equal layer of at least
    64 filters, have the same known value in the column `unit`, or are a pair of `related`; and if a chain of such pairs
    connects them.

    Parameters
    ----------
    db : Database
        The view.
    unit : str, optional
        A column of models or layers; or "related", for the models that `lineage` finds related by their weights, which
        takes a pass over all filters once. Default: none.
    related : iterable of pairs of str
        Ids of models that were found to be related in another way. Default: none.

    Raises
    ------
    UsageError
        For an unknown column.
    """
    models = models_with_layers(db)
    positions, of_layer = np.unique(db.layers["model_index"].values, return_inverse=True)
    names = models["model"].values.astype(str).tolist()
    joined = _Joined(len(positions))
    joined.share(_trainings(db, models))
    originals = models["duplicate_of"].values.astype(str).tolist()
    joined.share([original or name for name, original in zip(names, originals, strict=True)])
    joined.share_rows(of_layer, _layer_hashes(db))
    if unit == RELATED:
        related = [*related, *_relatives(db)]
    elif unit is not None:
        joined.share_rows(of_layer, _known(db.column(unit)))
    place = {name: i for i, name in enumerate(names)}
    for left, right in related:
        if left in place and right in place:
            joined.join(place[left], place[right])
    return joined.roots()[of_layer.reshape(-1)]


def _relatives(db: Database) -> Iterator[tuple[str, str]]:
    """Yield pairs of ids that connect the models of each family."""
    names = db.models["model"].values.astype(str).tolist()
    for family in relatives(db):
        yield from pairwise(names[position] for position in sorted(family))


def effective_number(weights: npt.NDArray[np.float64]) -> float:
    """Return (Σw)²/Σw²: how many units of equal weight average as well as units of these weights (units,)."""
    total = float((weights**2).sum())
    return float(weights.sum()) ** 2 / total if total else 0.0


class _Joined:
    """Join positions into sets (union-find); the root of a set is its smallest position."""

    def __init__(self, number: int) -> None:
        self.parent = list(range(number))

    def root(self, position: int) -> int:
        """Return the smallest position of the set, and shorten the way to it."""
        while self.parent[position] != position:
            self.parent[position] = self.parent[self.parent[position]]
            position = self.parent[position]
        return position

    def join(self, left: int, right: int) -> None:
        """Join the sets of two positions."""
        low, high = sorted((self.root(left), self.root(right)))
        self.parent[high] = low

    def share(self, values: Iterable[object]) -> None:
        """Join the positions that have the same value; None equals nothing."""
        first: dict[object, int] = {}
        for position, value in enumerate(values):
            if value is not None:
                self.join(first.setdefault(value, position), position)

    def share_rows(self, position: Ints, values: npt.NDArray[np.str_]) -> None:
        """Join positions (rows,) whose rows have the same text in `values` (rows,); an empty text equals nothing."""
        chosen = np.flatnonzero(values != "")
        order = chosen[np.lexsort((position[chosen], values[chosen]))]
        for before, after in pairwise(order.tolist()):
            if values[before] == values[after]:
                self.join(int(position[before]), int(position[after]))

    def roots(self) -> Ints:
        """Return the root of each position."""
        return np.array([self.root(position) for position in range(len(self.parent))], np.int64)


def _trainings(db: Database, models: xr.Dataset) -> list[Key | None]:
    """Return the training of each model; None for a model that is no checkpoint of a known one."""
    is_checkpoint = [
        epoch != UNKNOWN or training != UNKNOWN
        for epoch, training in zip(column(models, EPOCH), column(models, TRAINING), strict=True)
    ]
    return [key if known else None for key, known in zip(training_keys(db), is_checkpoint, strict=True)]


def _layer_hashes(db: Database) -> npt.NDArray[np.str_]:
    """Return the hash of each layer that only kin can share, else an empty text, (layers,)."""
    layers = db.layers
    is_telling = (layers["row_size"].values >= SHARED_LAYER_FILTERS) & (layers["peak"].values > 0)
    is_telling &= ~(layers["orthogonality"].values < _PARALLEL)
    return np.where(is_telling, layers["hash"].values.astype(str), "")


def _known(values: npt.NDArray[np.generic]) -> npt.NDArray[np.str_]:
    """Return values as text, with an empty one where they are unknown."""
    text = values.astype(str)
    return np.where(text == UNKNOWN, "", text)
