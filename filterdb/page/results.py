"""Compute the results that several sections of the page share, and explain which groupings it cannot show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.degeneration import degeneration
from filterdb.analysis.drift import drift
from filterdb.analysis.grouping import group, raw_view
from filterdb.analysis.kinship import has_sketches, sketch_layers
from filterdb.analysis.pca import pca
from filterdb.analysis.series import series
from filterdb.errors import InputError
from filterdb.numerics.modes import ModeName, as_mode
from filterdb.reduce.basis import projection
from filterdb.schema import UNKNOWN
from filterdb.store.database import Database
from filterdb.wording import counted

GROUPINGS = ("task", "visual_category", "training_dataset", "family", "model", "depth_decile")
"""The groupings that the page shows, if they have at least two groups."""

MANY_PAIRS, MOST_PAIRS, PERMUTATIONS = 500, 20_000, 200
"""A grouping of more than the first and at most the second number of pairs has this many permutations of models, so
that a page does not take minutes."""

LABELS = ("task", "visual_category", "training_dataset", "family")
"""Labels of models that are counted, and that figures highlight and order by."""

GROUP_LIMIT = 1_000
"""Largest number of groups of a grouping that the page shows."""

NO_SERIES = (
    "The catalog has no columns epoch or seed that identify checkpoints or retrainings of one architecture and "
    "training set."
)

SKETCH_LIMIT = 10_000_000
"""Most filters of a database without sketches that the page sketches by itself: the pass takes about a second."""


@dataclass(frozen=True)
class Results:
    """Hold shared results. `notes` maps a grouping to why it is missing; `densities` is as in `report`."""

    db: Database
    mode: ModeName
    densities: bool | None
    basis: xr.Dataset
    degeneration: xr.Dataset
    drifts: dict[str, xr.Dataset]
    notes: dict[str, str]

    @property
    def nbytes(self) -> int:
        """The bytes of the shared results, most of which are the matrices of pairs."""
        return sum(int(result.nbytes) for result in (self.basis, self.degeneration, *self.drifts.values()))

    @cached_property
    def model_index(self) -> npt.NDArray[np.int64]:
        """Return the positions in `db.models` of the models that have layers, (models,) int."""
        return np.unique(self.db.layers["model_index"].values)

    @cached_property
    def skipped(self) -> xr.Dataset:
        """The convolutions of the view's models that are not stored (skipped)."""
        return self._of_view(self.db.skipped)

    @cached_property
    def unread(self) -> xr.Dataset:
        """Those of them that should have been read but could not be (skipped)."""
        return self._of_view(self.db.unread)

    def _of_view(self, ledger: xr.Dataset) -> xr.Dataset:
        """Return the rows of the whole snapshot's ledger that are about models of the view."""
        if self.db.chosen is None:
            return ledger
        names = set(self.db.models["model"].values.astype(str).tolist())
        rows = [name in names for name in ledger["skipped_model"].values.astype(str).tolist()]
        return ledger.isel(skipped=np.array(rows, bool))

    @cached_property
    def raw(self) -> tuple[Database, str]:
        """Return the layers whose raw filters can be compared, and a sentence about those left out."""
        view, number = raw_view(self.db)
        if not number:
            return view, ""
        are, their = ("is", "its") if number == 1 else ("are", "their")
        return view, (
            f"{counted(number, 'layer')} {are} left out, because {their} batch normalisation is not where most "
            "filters have it, so that raw weights have another scale."
        )

    @cached_property
    def trainings(self) -> tuple[xr.Dataset | None, str]:
        """Return the trainings and retrainings of the catalog, or None and the reason why there are none."""
        try:
            result = series(self.db, mode=self.mode)
        except InputError as error:
            return None, str(error)
        return (result, "") if result.sizes["checkpoint"] or result.sizes["pair"] else (None, NO_SERIES)

    @property
    def labels(self) -> dict[str, tuple[list[str], list[int]]]:
        """Return the values of each label, and the code of each model that has layers."""
        models = self.db.models
        models = models.isel(model=models["layers"].values > 0)
        labels = {}
        for by in LABELS:
            values, codes = np.unique(models[by].values.astype(str), return_inverse=True)
            if len(values) > 1 or values.tolist() != [UNKNOWN]:
                labels[by] = (values.tolist(), codes.tolist())
        return labels


def gather(
    db: Database,
    mode: ModeName,
    densities: bool | None = None,
    *,
    begin: Callable[[str], None] = lambda step: None,
) -> Results:
    """Compute the shared results of a view's layers. `begin` is called with the name of each step."""
    begin("basis")
    if not has_sketches(db) and db.whole.counts["filters"] <= SKETCH_LIMIT:
        sketch_layers(db)
    db, _ = projection(db, mode)  # find the snapshot with the basis once, not in each analysis
    notes = {}
    drifts = {}
    for by in GROUPINGS:
        number = groups(db, by, mode)
        if number < 2:
            notes[by] = "has fewer than two known labels"
        elif number > GROUP_LIMIT:
            notes[by] = f"has {number:,} groups, too many for a picture; `filterdb drift --json` has them"
        else:
            begin(f"drift by {by}")
            drifts[by] = drift(db, by, mode=mode, noise=_permutations(by, number, mode))
    begin("degeneration")
    return Results(db, mode, densities, pca(db), degeneration(db, mode=mode), drifts, notes)


def _permutations(by: str, number: int, mode: ModeName) -> int | None:
    """Return the number of permutations for a grouping of `number` groups; None: the default of `drift`.

    Fewer permutations make the 95 % quantile coarser but do not bias the verdict, because the actual groups count as
    one of the permutations.
    """
    pairs = number * (number - 1) // 2
    return PERMUTATIONS if as_mode(mode).has_noise and by != "model" and MANY_PAIRS < pairs <= MOST_PAIRS else None


def family_of_models(db: Database, result: xr.Dataset) -> npt.NDArray[Any]:
    """Return the family of each group of a `drift` result by model, (group,) str."""
    family = dict(zip(db.models["model"].values.astype(str), db.models["family"].values.astype(str), strict=True))
    return np.array([family[str(label)] for label in result["group"].values])


def groups(db: Database, by: str, mode: ModeName) -> int:
    """Return the number of groups of a label, without `unknown`."""
    return len(set(group(db, by, mode).labels) - {UNKNOWN})
