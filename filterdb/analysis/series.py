"""Compare checkpoints of one training, and retrainings, by the catalog's columns `epoch` and `seed` (P1 fig. 7).

`trainings` identifies the training of a model. Retrainings share all labels of a training but the seed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.drift import drift
from filterdb.analysis.grouping import TIMES, provenance
from filterdb.analysis.returning import returns_result
from filterdb.analysis.trainings import (
    EPOCH,
    NEEDED,
    SEED,
    Key,
    column,
    epoch_number,
    given_columns,
    models_with_layers,
    training_columns,
    training_keys,
)
from filterdb.arguments import formerly_positional
from filterdb.errors import InputError
from filterdb.numerics.modes import AnyMode, Mode, as_mode
from filterdb.schema import UNKNOWN, AnyKernel
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.shapes import check_has_filters

FLOORS = ("floor", "floor_q95")
WORDS = ("verdict", "judged_by")

Tables = dict[str, tuple[str, npt.NDArray[Any]]]
"""Variables by name, each with its dimension."""


@dataclass(frozen=True, slots=True)
class _Model:
    """Hold what the catalog says of a model's training.

    `key` identifies the training and is None for a model without one; `kind` is the key without the seed. `training`
    and `recipe` are their names. `epoch` is NaN if the catalog has none.
    """

    name: str
    key: Key | None
    kind: Key | None
    training: str
    recipe: str
    seed: str
    epoch: float


@formerly_positional("mode")
@returns_result
def series(
    db: AnyDatabase,
    *,
    mode: AnyMode = "sound",
    training: str | Sequence[str] | None = None,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Compute the drift along trainings and between retrainings, for the view's models.

    Checkpoints are at least two models of one training with different epochs (`unknown` is a seed too). Retrainings are
    trainings with at least two seeds that share everything else; of each the last epoch counts.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    mode : {"sound", "paper"}
        As in `drift`. Default: "sound".
    training : str or list of str, optional
        The columns that identify a training, joined with commas or as a list. Default: the column `training` where it
        is known, else all labels but `epoch`, `path`, `name`, `url` and fractional numbers that change from epoch to
        epoch, such as an accuracy; a model whose architecture or training set is unknown has no training.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims checkpoint, pair, retraining, float64 unless stated otherwise. All are empty if the catalog has no
        checkpoints or retrainings.

        By training and epoch:

        - training, model, last (checkpoint), str: the training, the checkpoint, and the model of the last epoch.
        - epoch, drift (checkpoint): the drift to the last model. count (checkpoint), int64: filters.
        - floor, floor_q95 (checkpoint); verdict, judged_by (checkpoint), str: the noise of that drift.

        By pair of seeds:

        - pair_training, one, other (pair), str: the training and the two models.
        - pair_drift, pair_floor, pair_floor_q95 (pair); pair_verdict, pair_judged_by (pair), str.

        By retraining:

        - seeds (retraining), int64: the number of seeds.
        - mean_drift and largest_drift (retraining): among the seeds.
        - to_others and to_nearest (retraining): median and smallest drift to the last models of other trainings; NaN
          if there are none. nearest (retraining), str: the nearest model.

    Raises
    ------
    UsageError
        For a column that the catalog does not have.
    InputError
        If an epoch is not a number, or two models have the same training and epoch.

    Notes
    -----
    Floors and verdicts are those of `drift`, NaN and "" in `paper` mode. Checkpoints are judged by their numbers of
    filters alone, two seeds by swapping layers too, if there are six of equal depths and shapes. No filter is read
    again. Source: P1 fig. 7.

    Examples
    --------
    >>> result = fdb.series(db)
    >>> result["model"].values.tolist(), result["drift"].values.round(3)
    (['detector-10', 'detector-20'], array([0.019, 0.   ]))

    Two seeds of the classifier differ far less than the classifier differs from the detector:

    >>> result["mean_drift"].values.round(3), result["to_nearest"].values.round(3)
    (array([0.021]), array([0.343]))
    """
    db, mode = as_database(db, kernel=kernel), as_mode(mode)
    check_has_filters(db)
    models = _models(db, training)
    trainings = _trainings(db.url, models)
    checkpoints = {key: run for key, run in trainings.items() if len({model.epoch for model in run}) > 1}
    last = [run[-1] for run in trainings.values()]
    seeds: dict[Key, list[_Model]] = defaultdict(list)
    for model in last:
        if model.seed != UNKNOWN and model.kind is not None:
            seeds[model.kind].append(model)
    retrainings = {kind: runs for kind, runs in seeds.items() if len(runs) > 1}
    in_training = {model.name for run in trainings.values() for model in run}
    single = [model for model in models if model.name not in in_training]
    drifts = _Drifts(db, mode) if checkpoints or retrainings else None
    tables = {
        **_checkpoint_table(checkpoints, drifts),
        **_pair_table(retrainings, drifts),
        **_retraining_table(retrainings, [*last, *single], drifts),
    }
    columns = None if training is None else ",".join(given_columns(db.whole.model_columns, training))
    attrs = provenance(db, mode=mode.name, training=columns, formula="drift by model, P1 fig. 7")
    if drifts is not None:  # the first drift may have committed a basis
        attrs |= {
            name: drifts.result.attrs[name]
            for name in ("snapshot", "basis", "basis_moved", "basis_warning")
            if name in drifts.result.attrs
        }
    return xr.Dataset(
        tables, coords={"retraining": np.array([runs[0].recipe for runs in retrainings.values()], object)}, attrs=attrs
    )


def _models(db: Database, training: str | Sequence[str] | None) -> list[_Model]:
    """Return the view's models that have layers."""
    table = models_with_layers(db)
    keys = training_keys(db, training)
    seeds, shown = column(table, SEED), [column(table, name) for name in (*NEEDED, SEED)]
    names = [str(name) for name in table["model"].values]
    without_seed = _without_seed(db, training)
    kinds = [None if key is None else without_seed(key) for key in keys]
    basic = [(architecture, dataset, seed) for architecture, dataset, seed in zip(*shown, strict=True)]
    trainings = _titles(keys, basic, by_labels=training is None)
    recipes = _titles(kinds, [row[:-1] for row in basic], by_labels=training is None)
    epochs = [_epoch(db.url, *pair) for pair in zip(names, column(table, EPOCH), strict=True)]
    rows = zip(names, keys, kinds, trainings, recipes, seeds, epochs, strict=True)
    return [_Model(*row) for row in rows]


def _without_seed(db: Database, training: str | Sequence[str] | None) -> Callable[[Key], Key]:
    """Return a function that removes the seed from the key of a training."""
    whole = db.whole.model_columns
    names = training_columns(whole) if training is None else given_columns(whole, training)
    # A key of the column `training` alone has no seed: trainings are then no retrainings of one another.
    return lambda key: (
        tuple(v for n, v in zip(names, key, strict=False) if n != SEED) if len(key) == len(names) else key
    )


def _titles(keys: Sequence[Key | None], basic: Sequence[Key], *, by_labels: bool) -> list[str]:
    """Return the names of trainings: architecture, training set and seed, then the labels in which those differ.

    Without `by_labels` the names are the keys themselves.
    """
    if not by_labels:
        return ["" if key is None else TIMES.join(key) for key in keys]
    same: dict[Key, set[Key]] = defaultdict(set)
    for key, title in zip(keys, basic, strict=True):
        if key is not None:
            same[title].add(key)
    titles = []
    for key, title in zip(keys, basic, strict=True):
        others = [other for other in same[title] if key is not None and len(other) == len(key)]
        differing = [v for i, v in enumerate(key or ()) if len({other[i] for other in others}) > 1]
        titles.append(TIMES.join((*title, *differing)))
    return titles


def _epoch(url: str, model: str, text: str) -> float:
    """Return an epoch of the catalog, NaN if it is unknown; raise InputError if it is not a finite number."""
    epoch = epoch_number(text)
    if math.isinf(epoch):
        raise InputError(
            f"{url} model {model!r}: expected a number in the catalog's column `epoch`, got {text!r}; "
            "fix the catalog, then run `filterdb relabel`"
        )
    return epoch


def _trainings(url: str, models: list[_Model]) -> dict[Key, list[_Model]]:
    """Return the models of each training by epoch. A model with neither epoch nor seed belongs to no training.

    A training without any epoch has one model: among several with one seed, the last is not known. Raises InputError
    for two models of one training and epoch.
    """
    by_training: dict[Key, list[_Model]] = defaultdict(list)
    for model in models:
        if model.key is not None and (model.seed != UNKNOWN or not math.isnan(model.epoch)):
            by_training[model.key].append(model)
    trainings = {}
    for key in sorted(by_training):
        with_epoch = [model for model in by_training[key] if not math.isnan(model.epoch)]
        run = sorted(with_epoch, key=lambda model: (model.epoch, model.name)) or by_training[key]
        for before, after in pairwise(with_epoch and run):
            if before.epoch == after.epoch:
                raise InputError(
                    f"{url}: expected one model of a training and epoch, got {before.name!r} and {after.name!r} at "
                    f"epoch {after.epoch:g}; leave one out (--where) or name the columns that differ (--training)"
                )
        if with_epoch or len(run) == 1:
            trainings[key] = run
    return trainings


class _Drifts:
    """Look up the drift of any pair of the view's models by their names."""

    def __init__(self, db: Database, mode: Mode) -> None:
        self.result = drift(db, "model", mode=mode)
        self.place = {str(name): i for i, name in enumerate(self.result["group"].values)}

    def of(self, variable: str, pairs: list[tuple[str, str]]) -> npt.NDArray[Any]:
        """Return a variable of each pair; NaN or "" if the mode has none."""
        if variable not in self.result:
            return np.array([""] * len(pairs), object) if variable in WORDS else np.full(len(pairs), np.nan)
        rows, columns = ([self.place[pair[side]] for pair in pairs] for side in (0, 1))
        values: npt.NDArray[Any] = self.result[variable].values[rows, columns]
        return values

    def counts(self, models: list[str]) -> npt.NDArray[np.int64]:
        """Return the number of filters of each model."""
        values: npt.NDArray[np.int64] = self.result["count"].values[[self.place[name] for name in models]]
        return values


def _pairwise(drifts: _Drifts | None, dim: str, prefix: str, pairs: list[tuple[str, str]]) -> Tables:
    """Return drift, floors and verdict of pairs of models."""
    names = ("drift", *FLOORS, *WORDS)
    if drifts is None:
        return {f"{prefix}{name}": (dim, np.empty(0, object if name in WORDS else np.float64)) for name in names}
    return {f"{prefix}{name}": (dim, drifts.of(name, pairs)) for name in names}


def _checkpoint_table(checkpoints: dict[Key, list[_Model]], drifts: _Drifts | None) -> Tables:
    """Return the drift of each checkpoint to the last one of its training."""
    rows = [(model.training, model, run[-1]) for run in checkpoints.values() for model in run]
    names = [model.name for _, model, _ in rows]
    return {
        "training": ("checkpoint", np.array([training for training, _, _ in rows], object)),
        "model": ("checkpoint", np.array(names, object)),
        "epoch": ("checkpoint", np.array([model.epoch for _, model, _ in rows], np.float64)),
        "last": ("checkpoint", np.array([last.name for _, _, last in rows], object)),
        "count": ("checkpoint", np.empty(0, np.int64) if drifts is None else drifts.counts(names)),
        **_pairwise(drifts, "checkpoint", "", [(model.name, last.name) for _, model, last in rows]),
    }


def _pair_table(retrainings: dict[Key, list[_Model]], drifts: _Drifts | None) -> Tables:
    """Return the drift of each pair of seeds."""
    rows = [(runs[0].recipe, *pair) for runs in retrainings.values() for pair in combinations(runs, 2)]
    return {
        "pair_training": ("pair", np.array([training for training, _, _ in rows], object)),
        "one": ("pair", np.array([first.name for _, first, _ in rows], object)),
        "other": ("pair", np.array([second.name for _, _, second in rows], object)),
        **_pairwise(drifts, "pair", "pair_", [(first.name, second.name) for _, first, second in rows]),
    }


def _retraining_table(retrainings: dict[Key, list[_Model]], complete: list[_Model], drifts: _Drifts | None) -> Tables:
    """Return the drift among the seeds of each retraining, and to the models of `complete` of other kinds."""
    rows = []
    for kind, runs in retrainings.items():
        if drifts is None:  # without drifts there are no models to compare
            continue
        among = drifts.of("drift", [(a.name, b.name) for a, b in combinations(runs, 2)])
        others = [model.name for model in complete if model.kind != kind]
        away = np.array([drifts.of("drift", [(model.name, name) for name in others]) for model in runs])
        at = int(away.min(axis=0).argmin()) if others else None
        nearest = "" if at is None else others[at]
        far = (math.nan, math.nan) if at is None else (float(np.median(away)), float(away.min()))
        rows.append((len(runs), float(among.mean()), float(among.max()), *far, nearest))
    columns = list(zip(*rows, strict=True)) or [()] * 6
    names = ("seeds", "mean_drift", "largest_drift", "to_others", "to_nearest", "nearest")
    dtypes = (np.int64, *[np.float64] * 4, object)
    return {
        name: ("retraining", np.array(values, dtype))
        for name, values, dtype in zip(names, columns, dtypes, strict=True)
    }
