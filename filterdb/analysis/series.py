"""Checkpoints of one training, and retrainings, by the catalog's columns `epoch` and `seed` (P1 fig. 7).

A training is known by its architecture, training set and seed; models whose architecture or training set is unknown
belong to none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import xarray as xr

from filterdb.analysis.drift import drift
from filterdb.analysis.grouping import TIMES, provenance
from filterdb.arguments import formerly_positional
from filterdb.errors import InputError
from filterdb.numerics.modes import AnyMode, Mode, as_mode
from filterdb.schema import UNKNOWN
from filterdb.store.database import AnyDatabase, Database, as_database

FLOORS = ("floor", "floor_q95")
WORDS = ("verdict", "judged_by")


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    architecture: str
    training_dataset: str
    seed: str
    epoch: float
    """NaN where the catalog has none."""

    @property
    def kind(self) -> tuple[str, str]:
        """What retrainings share."""
        return self.architecture, self.training_dataset

    @property
    def is_known(self) -> bool:
        return UNKNOWN not in self.kind


@formerly_positional("mode")
def series(
    db: AnyDatabase,
    *,
    mode: AnyMode = "sound",
) -> xr.Dataset:
    """Drift along trainings, and between retrainings, for the view's models. No pass of its own.

    Checkpoints are models of one architecture, training set and seed (`unknown` counts as one) with an `epoch`, two or
    more: along `checkpoint`, by training and epoch, stand training, model, epoch, last (the model of the last epoch),
    drift to that, floor and floor_q95 of that drift, verdict and judged_by, count (filters). Retrainings are models of
    one architecture and training set with a `seed`, two seeds or more, of each the last epoch: along `pair` stand
    pair_training, one, other (models), pair_drift, pair_floor, pair_floor_q95, pair_verdict, pair_judged_by; along
    `retraining` seeds (their number), mean_drift and largest_drift among them, and to_others and to_nearest, the median
    and least drift to the last models of other trainings (NaN without any), and nearest. Floors and verdicts are those
    of `drift`, NaN and "" in `paper` mode; one model against one is judged by its number of filters alone. Where the
    catalog says nothing, all are empty. Raises InputError for an epoch that is no number.
    """
    db, mode = as_database(db), as_mode(mode)
    models = _models(db)
    trainings = _trainings(models)
    checkpoints = {key: of for key, of in trainings.items() if len({one.epoch for one in of}) > 1}
    last = [of[-1] for of in trainings.values()]
    seeds: dict[tuple[str, str], list[_Model]] = defaultdict(list)
    for one in last:
        if one.seed != UNKNOWN:
            seeds[one.kind].append(one)
    retrainings = {kind: of for kind, of in seeds.items() if len(of) > 1}
    in_training = {one.name for of in trainings.values() for one in of}
    single = [one for one in models if one.name not in in_training]
    found = _Drifts(db, mode) if checkpoints or retrainings else None
    tables = {
        **_checkpoint_table(checkpoints, found),
        **_pair_table(retrainings, found),
        **_retraining_table(retrainings, [*last, *single], found),
    }
    attrs = provenance(db, mode=mode.name, formula="drift by model, P1 fig. 7")
    if found is not None:  # the first drift may have committed a basis
        attrs |= {
            name: found.result.attrs[name]
            for name in ("snapshot", "basis", "basis_moved", "basis_warning")
            if name in found.result.attrs
        }
    return xr.Dataset(tables, coords={"retraining": np.array([*map(TIMES.join, retrainings)], object)}, attrs=attrs)


def _models(db: Database) -> list[_Model]:
    """The view's models that have layers."""
    table = db.models
    table = table.isel(model=table["layers"].values > 0)

    def column(name: str) -> list[str]:
        values = table[name].values if name in table else [UNKNOWN] * table.sizes["model"]
        return [str(value).strip() or UNKNOWN for value in values]

    names = [str(name) for name in table["model"].values]
    epochs = [_epoch(db.url, *pair) for pair in zip(names, column("epoch"), strict=True)]
    columns = [column(name) for name in ("architecture", "training_dataset", "seed")]
    return [_Model(*row) for row in zip(names, *columns, epochs, strict=True)]


def _epoch(url: str, model: str, text: str) -> float:
    if text == UNKNOWN:
        return math.nan
    try:
        epoch = float(text)
    except ValueError:
        epoch = math.inf
    if not math.isfinite(epoch):
        raise InputError(
            f"{url} model {model!r}: expected a number in the catalog's column `epoch`, got {text!r}; "
            "mend the catalog, then `filterdb relabel`"
        )
    return epoch


def _trainings(models: list[_Model]) -> dict[tuple[str, str, str], list[_Model]]:
    """Models of each training by epoch, as far as the catalog tells of one: by an epoch or by a seed.

    Without any epoch a training has one model; of several under one seed it is not known which is the last.
    """
    found: dict[tuple[str, str, str], list[_Model]] = defaultdict(list)
    for one in models:
        if one.is_known and (one.seed != UNKNOWN or not math.isnan(one.epoch)):
            found[*one.kind, one.seed].append(one)
    trainings = {}
    for key in sorted(found):
        with_epoch = [one for one in found[key] if not math.isnan(one.epoch)]
        of = sorted(with_epoch, key=lambda one: (one.epoch, one.name)) or found[key]
        if with_epoch or len(of) == 1:
            trainings[key] = of
    return trainings


class _Drifts:
    """Drift of all pairs of the view's models, looked up by their names."""

    def __init__(self, db: Database, mode: Mode) -> None:
        self.result = drift(db, "model", mode=mode)
        self.place = {str(name): i for i, name in enumerate(self.result["group"].values)}

    def of(self, variable: str, pairs: list[tuple[str, str]]) -> np.ndarray:
        """`drift`, a floor or a word of each pair; NaN or "" where the mode has none."""
        if variable not in self.result:
            return np.array([""] * len(pairs), object) if variable in WORDS else np.full(len(pairs), np.nan)
        rows, columns = ([self.place[pair[side]] for pair in pairs] for side in (0, 1))
        values: np.ndarray = self.result[variable].values[rows, columns]
        return values

    def counts(self, models: list[str]) -> np.ndarray:
        """Filters of each model."""
        values: np.ndarray = self.result["count"].values[[self.place[name] for name in models]]
        return values


Tables = dict[str, tuple[str, np.ndarray]]


def _pairwise(found: _Drifts | None, dim: str, prefix: str, pairs: list[tuple[str, str]]) -> Tables:
    """Drift, floors and verdict of pairs of models."""
    names = ("drift", *FLOORS, *WORDS)
    if found is None:
        return {f"{prefix}{name}": (dim, np.empty(0, object if name in WORDS else np.float64)) for name in names}
    return {f"{prefix}{name}": (dim, found.of(name, pairs)) for name in names}


def _checkpoint_table(checkpoints: dict[tuple[str, str, str], list[_Model]], found: _Drifts | None) -> Tables:
    rows = [(TIMES.join(key), one, of[-1]) for key, of in checkpoints.items() for one in of]
    names = [one.name for _, one, _ in rows]
    return {
        "training": ("checkpoint", np.array([training for training, _, _ in rows], object)),
        "model": ("checkpoint", np.array(names, object)),
        "epoch": ("checkpoint", np.array([one.epoch for _, one, _ in rows], np.float64)),
        "last": ("checkpoint", np.array([end.name for _, _, end in rows], object)),
        "count": ("checkpoint", np.empty(0, np.int64) if found is None else found.counts(names)),
        **_pairwise(found, "checkpoint", "", [(one.name, end.name) for _, one, end in rows]),
    }


def _pair_table(retrainings: dict[tuple[str, str], list[_Model]], found: _Drifts | None) -> Tables:
    rows = [(TIMES.join(kind), *pair) for kind, of in retrainings.items() for pair in combinations(of, 2)]
    return {
        "pair_training": ("pair", np.array([training for training, _, _ in rows], object)),
        "one": ("pair", np.array([one.name for _, one, _ in rows], object)),
        "other": ("pair", np.array([other.name for _, _, other in rows], object)),
        **_pairwise(found, "pair", "pair_", [(one.name, other.name) for _, one, other in rows]),
    }


def _retraining_table(
    retrainings: dict[tuple[str, str], list[_Model]], complete: list[_Model], found: _Drifts | None
) -> Tables:
    """How far seeds lie apart, and how far the last models of everything else (`complete`) from them."""
    rows = []
    for kind, of in retrainings.items():
        if found is None:  # no drift was computed: there are no models to compare
            continue
        among = found.of("drift", [(a.name, b.name) for a, b in combinations(of, 2)])
        others = [one.name for one in complete if one.kind != kind]
        away = np.array([found.of("drift", [(one.name, name) for name in others]) for one in of])
        at = int(away.min(axis=0).argmin()) if others else None
        nearest = "" if at is None else others[at]
        far = (math.nan, math.nan) if at is None else (float(np.median(away)), float(away.min()))
        rows.append((len(of), float(among.mean()), float(among.max()), *far, nearest))
    columns = list(zip(*rows, strict=True)) or [()] * 6
    names = ("seeds", "mean_drift", "largest_drift", "to_others", "to_nearest", "nearest")
    dtypes = (np.int64, *[np.float64] * 4, object)
    return {
        name: ("retraining", np.array(values, dtype))
        for name, values, dtype in zip(names, columns, dtypes, strict=True)
    }
