"""Align the layers of models by shape and position, and gather what is compared of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.analysis.grouping import chosen
from filterdb.engine.moments import SCALED, MomentsReduction, raw_state, state
from filterdb.engine.run import view_parts
from filterdb.engine.sketches import SketchReduction
from filterdb.numerics import sphericity
from filterdb.numerics.moments import Moments
from filterdb.numerics.sketch import BUCKETS, of_repeated
from filterdb.store.canonical import canonical
from filterdb.store.database import Database
from filterdb.store.summary import Key

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_FULL_RANK = 1e-12
"""Share of the largest eigenvalue below which the smallest is zero: a layer of few distinct, such as fixed, filters."""


class AlignedLayers(NamedTuple):
    """Hold what is compared of the view's layers, (layers,) each, and the layers at each place."""

    sketch: npt.NDArray[np.floating]
    """(layers, 128), without the layers' mean filters: layers with the same average shape are not taken for relatives.
    """
    isotropic: Floats
    content: Ints
    """Equal for layers with the same filters apart from the scales of channels, whose cosine is 1."""
    is_full: Bools
    p_value: Floats
    owner: Ints
    sizes: Ints
    aligned: list[Ints]


def aligned_layers(db: Database, sketch: Callable[[Database, Floats], npt.NDArray[np.floating]]) -> AlignedLayers:
    """Return what is compared of the view's layers, with the sketches that a function makes of view and mean filters.

    Moments and sketches, which are large, are read one after the other, and in parts.
    """
    owner, sizes, view = db.layer_columns["model_index"].values, db.layer_columns["row_size"].values, chosen(db)
    mean, spectrum = _of_moments(db)
    is_full = spectrum[:, 0] > _FULL_RANK * spectrum[:, -1]
    isotropic = _isotropic_share(spectrum, sizes)
    aligned = _aligned(_places(db), is_full, owner)
    content, p_value = db.same_filters[view], p_values(db)[view]
    return AlignedLayers(sketch(db, mean), isotropic, content, is_full, p_value, owner, sizes, aligned)


def sketches(db: Database, mean: Floats) -> Floats:
    """Return the sketches of the view's layers without their mean filters, (layers, 128)."""
    sketch = of_repeated(mean, db.layer_columns["row_size"].values)
    for _, part, arrays in view_parts(db, SketchReduction()):
        np.subtract(arrays["sketch"], sketch[part], out=sketch[part])
    return sketch


def directions(db: Database, mean: Floats) -> npt.NDArray[np.float32]:
    """Return what `sketches` returns, in float32 and of unit length, or zero."""
    direction = np.empty((len(mean), BUCKETS), np.float32)
    for _, part, arrays in view_parts(db, SketchReduction()):
        sketch = arrays["sketch"] - of_repeated(mean[part], arrays["count"])
        length = np.sqrt(np.einsum("lb,lb->l", sketch, sketch))[:, None]
        direction[part] = sketch / np.where(length > 0, length, 1.0)
    return direction


def _of_moments(db: Database) -> tuple[Floats, Floats]:
    """Return the mean filter and the eigenvalues of the covariance, ascending, of the view's layers, (layers, K)."""
    mean, spectrum = np.empty((2, db.layer_columns.sizes["layer"], db.weights))
    for _, part, arrays in view_parts(db, MomentsReduction(db.weights)):
        raw = raw_state(arrays)
        mean[part], spectrum[part] = raw.mean, _spectrum(raw)
    return mean, spectrum


def p_values(db: Database) -> Floats:
    """Return the p-value of the test of sphericity of the snapshot's layers, (layers,)."""
    whole = db.whole
    place = place_of(whole, "sphericity", np.ones(whole.all_layer_columns.sizes["layer"], bool))
    kept = db.kept.get(place)
    if kept is None:
        p_value = np.empty(whole.all_layer_columns.sizes["layer"])
        for part, _, arrays in view_parts(whole, MomentsReduction(db.weights)):
            p_value[part] = sphericity.p_value(state(arrays, SCALED))
        kept = {"p_value": p_value}
        db.kept[place] = kept
    return kept["p_value"]


def _spectrum(raw: Moments) -> Floats:
    """Return the eigenvalues of the covariance of each layer, ascending, (layers, K)."""
    spectrum: Floats = np.clip(np.linalg.eigvalsh(raw.covariance), 0, None)
    return spectrum


def _isotropic_share(spectrum: Floats, sizes: Ints) -> Floats:
    """Return the largest share of each layer's variance that an initialisation can be, (layers,).

    An initialisation varies equally in all K directions, so by at most the smallest eigenvalue in each. That of the
    covariance of n isotropic filters is too small by (1 − √(K/n))² (Marchenko and Pastur 1967).
    """
    mean = spectrum.mean(axis=1)
    edge = np.maximum(1 - np.sqrt(spectrum.shape[1] / sizes), 0) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        share: Floats = np.nan_to_num(np.minimum(spectrum[:, 0] / mean / edge, 1), nan=1.0)
    return share


def _places(db: Database) -> Ints:
    """Return the place of each of the view's layers: its shape, and its number among its model's layers of this shape.

    Places are numbers, equal for equal places, (layers,).
    """
    names = ("out_channels", "in_channels", "groups")
    shape = _codes(*(db.all_layer_columns[name].values for name in names))
    in_model = _codes(db.all_layer_columns["model_index"].values, shape)
    order = np.argsort(in_model, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order)) - np.searchsorted(in_model[order], in_model[order])
    return _codes(shape, number)[chosen(db)]


def _codes(*columns: Ints) -> Ints:
    """Return a number for each row of some columns (rows,), equal for equal rows."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, index = np.unique(column, return_inverse=True)
        codes = np.unique(codes * len(values) + index.reshape(-1), return_inverse=True)[1].reshape(-1)
    return codes


def _aligned(places: Ints, usable: Bools, owner: Ints) -> list[Ints]:
    """Return the usable layers at each of the `places` (layers,) that at least two models have, in the models' order.

    A model, `owner` (layers,), has at most one layer at a place.
    """
    number = np.bincount(places)
    order = np.flatnonzero(usable & (number[places] > 1))
    order = order[np.argsort(owner[order], kind="stable")]
    by_place: dict[int, list[int]] = defaultdict(list)
    for layer, place in zip(order.tolist(), places[order].tolist(), strict=True):
        by_place[place].append(layer)
    return [np.array(layers) for layers in by_place.values() if len(layers) > 1]


def place_of(db: Database, kind: str, mask: Bools) -> tuple[str, Key]:
    """Return the place in memory of a result about all layers of some models; it depends on nothing else."""
    content = {
        "kernel": list(db.kernel),
        "segments": [entry.id for entry in db.state.segments],
        "layers": hashlib.sha256(np.flatnonzero(db.present)[mask].tobytes()).hexdigest(),
    }
    return "", Key(kind, 1, canonical(content).decode())
