"""What the page is made from: every result that the database gives, and a sentence for each that it cannot give."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from filterdb.analysis.degeneration import degeneration
from filterdb.analysis.drift import drift
from filterdb.analysis.grouping import DECILES, depth_decile, group, provenance
from filterdb.analysis.pca import pca
from filterdb.analysis.series import series
from filterdb.analysis.surveys import filter_scale, statistics
from filterdb.errors import InputError
from filterdb.page.joint_densities import Planes, affordable, fits, planes
from filterdb.page.leave_one_out import Leaving, without_models
from filterdb.reduce.basis import projection
from filterdb.schema import UNKNOWN, WEIGHTS
from filterdb.store.database import Database

GROUPINGS = ("task", "visual_category", "training_dataset", "family", "model", "depth_decile")
"""The groupings that the page shows, those with fewer than two groups left out."""

MANY_PAIRS, MOST_PAIRS, DRAWS = 500, 20_000, 200
"""From so many pairs of groups on, and up to so many, models are permuted so often: a page should not take minutes."""

LABELS = ("task", "visual_category", "training_dataset", "family")
"""Labels of models that are counted, and that figures highlight and order by."""

GROUP_LIMIT = 1_000
"""A grouping with more groups is left out, and the page says so."""

TILES, TILED_LAYERS, TILED_MODELS, TILED_CHUNKS = 12, 48, 12, 8
"""First filters: of a layer, layers of a model, models, and chunks that may be read for them."""


@dataclass(frozen=True)
class Results:
    """Everything the page shows. `notes`: figure → why it is not there."""

    db: Database
    mode: str
    statistics: xr.Dataset
    basis: xr.Dataset
    degeneration: xr.Dataset
    drifts: dict[str, xr.Dataset]
    leaving: dict[str, Leaving]
    deciles: xr.Dataset | None
    scale: xr.Dataset
    series: xr.Dataset | None
    tiles: xr.Dataset | None
    planes: Planes | None
    notes: dict[str, str] = field(default_factory=dict)


def gather(db: Database, mode: str, densities: bool | None = None) -> Results:
    """All results of a view's layers; `densities`: None where the pass that they need is affordable."""
    db, _ = projection(db, mode)  # the snapshot that has the basis, once for all: each analysis would look for it
    notes = {}
    drifts = {}
    for by in GROUPINGS:
        number = groups(db, by, mode)
        if number < 2:
            notes[by] = "has fewer than two known labels"
        elif number > GROUP_LIMIT:
            notes[by] = f"has {number:,} groups, too many for a picture; `filterdb drift --json` has them"
        else:
            drifts[by] = drift(db, by, mode, noise=_draws(by, number, mode))
    return Results(
        db=db,
        mode=mode,
        statistics=statistics(db, LABELS),
        basis=pca(db),
        degeneration=degeneration(db, mode),
        drifts=drifts,
        leaving={by: without_models(db, by, mode) for by in drifts if by != "model"},
        scale=filter_scale(db, "model"),
        series=_series(db, mode, notes),
        deciles=_deciles(db, mode) if "model" in drifts and "depth_decile" in drifts else None,
        tiles=first_filters(db),
        planes=planes(db, _plane_groups(drifts), mode) if densities or (densities is None and affordable(db)) else None,
        notes=notes,
    )


def _draws(by: str, number: int, mode: str) -> int | None:
    """Permutations of models for a grouping of so many groups; None: as many as `drift` makes unasked.

    Fewer of them make the 95 % quantile coarser, and the verdict no less honest: the groups as they are count as one.
    """
    pairs = number * (number - 1) // 2
    return DRAWS if mode == "sound" and by != "model" and MANY_PAIRS < pairs <= MOST_PAIRS else None


def _series(db: Database, mode: str, notes: dict[str, str]) -> xr.Dataset | None:
    """Checkpoints and retrainings; None, with a note, where the catalog tells of none."""
    try:
        found = series(db, mode)
    except InputError as error:
        notes["series"] = str(error)
        return None
    if found.sizes["checkpoint"] or found.sizes["pair"]:
        return found
    notes["series"] = (
        "The catalog has no column epoch or seed that tells checkpoints or retrainings of one architecture and "
        "training set apart."
    )
    return None


def _plane_groups(drifts: dict[str, xr.Dataset]) -> str | None:
    """The first grouping whose groups are few enough for bivariate densities."""
    return next((by for by, result in drifts.items() if fits(result.sizes["group"])), None)


def groups(db: Database, by: str, mode: str) -> int:
    """How many groups a label makes; `unknown` alone is none."""
    return len(set(group(db, by, mode).labels) - {UNKNOWN})


def _deciles(db: Database, mode: str) -> xr.Dataset:
    """Drift between the models within each tenth of the depth: `drift` (stratum, group, other)."""
    codes = depth_decile(db.layers["conv_depth_norm"].values)
    parts = {}
    for code in np.unique(codes):
        view = db.keep(codes == code, f"depth_decile = {DECILES[code]}")
        parts[DECILES[code]] = drift(view, "model", mode, noise=False)["drift"]
    labels = [str(label) for label in np.unique(db.layers["model"].values.astype(str))]
    same = [one.reindex(group=labels, other=labels) for one in parts.values()]
    result = xr.concat(same, dim="stratum").assign_coords(stratum=list(parts)).to_dataset(name="drift")
    return result.assign_attrs(provenance(db, by="model", within="depth_decile", mode=mode))


def first_filters(db: Database) -> xr.Dataset | None:
    """The first filters of the first layers of some models, one of each family first (P1 fig. 1).

    Dims: layer, number, weight. Variables: filters, NaN where a layer has fewer; coordinates layer_model, layer_name,
    model_index (layer). Reads a bounded number of chunks; None where even one model would take more.
    """
    layers = db.layers
    starts = np.concatenate([[0], np.cumsum([segment.rows for segment in db.segments])])
    segment = layers["segment"].values
    row = layers["first_row"].values - starts[segment]
    chunk_rows = np.array([one.chunk_rows for one in db.segments])[segment]
    chunk = row // chunk_rows
    number = np.minimum(np.minimum(TILES, layers["row_size"].values), (chunk + 1) * chunk_rows - row)
    chosen: list[np.ndarray] = []
    wanted: set[tuple[int, int]] = set()
    for model in _varied(db):
        of_model = np.flatnonzero(layers["model_index"].values == model)[:TILED_LAYERS]
        needs = set(zip(segment[of_model].tolist(), chunk[of_model].tolist(), strict=True))
        if len(wanted | needs) <= TILED_CHUNKS:
            chosen.append(of_model)
            wanted |= needs
        if len(chosen) == TILED_MODELS:
            break
    if not chosen:
        return None
    picked = np.concatenate(chosen)
    filters = np.full((len(picked), TILES, WEIGHTS), np.nan, np.float32)
    for which, part in sorted(wanted):
        found = db.segments[which].read_chunk(part)
        for place in np.flatnonzero((segment[picked] == which) & (chunk[picked] == part)):
            layer = picked[place]
            first = int(row[layer] - part * chunk_rows[layer])
            filters[place, : number[layer]] = found[first : first + number[layer]]
    return xr.Dataset(
        {"filters": (("layer", "number", "weight"), filters)},
        coords={
            "layer": layers["layer"].values[picked],
            "layer_model": ("layer", layers["model"].values[picked]),
            "layer_name": ("layer", layers["layer_name"].values[picked]),
            "model_index": ("layer", layers["model_index"].values[picked]),
        },
        attrs=provenance(db, formula="P1 fig. 1"),
    )


def _varied(db: Database) -> list[int]:
    """The view's models, the largest of each family first, then the next of each."""
    layers = db.layers
    index = layers["model_index"].values
    models, first = np.unique(index, return_index=True)
    filters = np.bincount(index, layers["row_size"].values)[models]
    family = layers["family"].values.astype(str)[first]
    turn: dict[str, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for i in np.argsort(-filters, kind="stable"):
        turn[family[i]] = turn.get(family[i], 0) + 1
        ranked.append((turn[family[i]], len(ranked), int(models[i])))
    return [model for *_, model in sorted(ranked)]
