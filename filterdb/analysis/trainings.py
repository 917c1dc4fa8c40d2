"""Identify the training of each model by the catalog's columns.

A training is known by all label columns but `epoch`, or by the column `training` if the catalog has one. Columns that
measure a checkpoint, such as an accuracy, are not labels: they change from epoch to epoch.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence

from filterdb.arguments import as_names
from filterdb.columns import Columns
from filterdb.errors import UsageError
from filterdb.schema import LABELS, UNKNOWN
from filterdb.store.database import Database
from filterdb.wording import meant

EPOCH, SEED, TRAINING = "epoch", "seed", "training"

SCRATCH = ("", "none", "scratch", UNKNOWN)
"""Values of `pretraining_dataset`, in lower case, of models without pretraining."""

NEEDED = ("architecture", "training_dataset")
"""Labels without which the training of a model is unknown, unless columns are given."""

_PLACES = ("path", "name", "url", EPOCH, TRAINING)
"""Columns that are no label of a training: they differ between the checkpoints of one, or name it."""

Key = tuple[str, ...]


def column(models: Columns, name: str) -> list[str]:
    """Return a column of a table of models as text, `unknown` where it has no value or does not exist."""
    values = models[name].values if name in models else [UNKNOWN] * models.sizes["model"]
    return [str(value).strip() or UNKNOWN for value in values]


def training_columns(models: Columns) -> list[str]:
    """Return the columns that identify a training: all labels of the catalog but epochs, places and measurements."""
    further = dict.fromkeys(name for text in models["extra"].values for name in json.loads(text))
    names = [name for name in [*LABELS, *further] if name not in _PLACES]
    numeric = [name for name in names if _is_fractional(column(models, name))]
    labels = [name for name in names if name not in numeric]
    before = _with_epochs(models, labels)
    return [name for name in names if name not in numeric or 2 * _with_epochs(models, [*labels, name]) >= before]


def models_with_layers(db: Database) -> Columns:
    """Return the table of a view's models that have layers, in the order of the snapshot."""
    models = db.model_columns
    return models.isel(model=models["layers"].values > 0)


def training_keys(
    db: Database, columns: str | Sequence[str] | None = None, *, models: Columns | None = None
) -> list[Key | None]:
    """Return the values that identify the training of each model; None where it is unknown.

    Parameters
    ----------
    db : Database
        The view. Which columns identify a training does not depend on it, only on the snapshot.
    columns : str or list of str, optional
        The columns that identify a training, joined with commas or as a list; a model of which none is known has no
        training. Default: the column `training` where it is known, else all that `training_columns` returns.
    models : Columns, optional
        The table of the models. Default: `models_with_layers`.

    Returns
    -------
    list of tuple of str, or None
        In the order of the models.

    Raises
    ------
    UsageError
        For a column that the catalog does not have.
    """
    models = models_with_layers(db) if models is None else models
    if columns is not None:
        rows = list(zip(*(column(models, name) for name in given_columns(models, columns)), strict=True))
        return [row if set(row) != {UNKNOWN} else None for row in rows]
    names = training_columns(db.whole.model_columns)
    rows = list(zip(*(column(models, name) for name in names), strict=True))
    needed = list(zip(*(column(models, name) for name in NEEDED), strict=True))
    named = column(models, TRAINING)
    return [
        (name,) if name != UNKNOWN else None if UNKNOWN in known else row
        for name, known, row in zip(named, needed, rows, strict=True)
    ]


def given_columns(models: Columns, columns: str | Sequence[str]) -> list[str]:
    """Return the columns that a user named; raise UsageError for one that the catalog does not have."""
    names = [part.strip() for part in columns.split(",")] if isinstance(columns, str) else as_names(columns, TRAINING)
    for name in names:
        if name not in models:
            raise UsageError(f"training: expected columns of the catalog, got {name!r}{meant(name, models.variables)}")
        if name == EPOCH:
            raise UsageError("training: expected columns that all epochs of a training share, got 'epoch'")
    return names


def begin_at_initialisation(models: Columns) -> list[bool]:
    """Return which models the catalog knows to come from a training without pretraining: they have an epoch."""
    pretraining = column(models, "pretraining_dataset")
    return [
        math.isfinite(epoch_number(epoch)) and dataset.lower() in SCRATCH
        for epoch, dataset in zip(column(models, EPOCH), pretraining, strict=True)
    ]


def epoch_number(text: str) -> float:
    """Return an epoch of the catalog: NaN if it is unknown, infinity if it is no number."""
    if text == UNKNOWN:
        return math.nan
    try:
        number = float(text)
    except ValueError:
        return math.inf
    return math.inf if math.isnan(number) else number


def _is_fractional(values: list[str]) -> bool:
    """Return whether all known values are numbers and some of them are not whole."""
    try:
        numbers = [float(value) for value in values if value != UNKNOWN]
    except ValueError:
        return False
    return not all(number.is_integer() for number in numbers)


def _with_epochs(models: Columns, names: list[str]) -> int:
    """Return how many models share the values of `names` with a model of another epoch."""
    epochs: dict[Key, set[str]] = defaultdict(set)
    number: dict[Key, int] = defaultdict(int)
    keys = zip(*(column(models, name) for name in names), strict=True)
    for key, epoch in zip(keys, column(models, EPOCH), strict=True):
        if epoch != UNKNOWN:
            epochs[key].add(epoch)
            number[key] += 1
    return sum(number[key] for key, some in epochs.items() if len(some) > 1)
