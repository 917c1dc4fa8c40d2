"""Compare the weights of all pairs of models, layer by layer, by the sketches of the layers."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.analysis.grouping import chosen
from filterdb.engine.moments import SCALED, MomentsReduction, raw_state, state
from filterdb.engine.run import stored, summaries
from filterdb.engine.sketches import SketchReduction
from filterdb.errors import UsageError
from filterdb.numerics import sphericity
from filterdb.numerics.moments import Moments
from filterdb.numerics.sketch import BUCKETS, of_repeated
from filterdb.schema import WEIGHTS
from filterdb.store.canonical import canonical
from filterdb.store.database import Database
from filterdb.store.summary import Arrays, Key

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MODEL_LIMIT = 5_000
"""Largest number of models that are compared: the matrices of all pairs would take gigabytes."""

FALSE_FAMILIES = 0.01
"""Probability that strangers are related, for any of all pairs of models together."""

LEAST_DEVIATIONS = 4.0
"""Fewest standard deviations from which models are related, however few they are."""

_CHANNELS = 2.0
"""The cosine of two unrelated layers of n filters has a variance of at most this by n: filters of one channel are not
independent. A chosen bound."""

_FULL_RANK = 1e-12
"""Share of the largest eigenvalue below which the smallest is zero: a layer of few distinct, such as fixed, filters."""

_MOVED = 0.01
"""Share of initialisations that are not recognised. Networks that were trained for a few steps can be taken for one."""

_SMALLEST_P = 1e-300
"""Smaller p-values count as this, because 0 has no logarithm."""

_LARGE = 64
"""Filters from which a layer tells whether a model is an initialisation, and whether models share a layer: networks
that were initialised with one seed have small first layers in common."""

_DESCENT = 6.0
"""Standard deviations of the similarity of strangers from which models can share trained weights. It is fixed, so that
units do not depend on how many models are compared."""

_MARGIN = 3.0
"""Standard deviations by which a similarity must exceed what a common initialisation explains."""


class Kinship(NamedTuple):
    """Hold what all pairs of models have in common, (models, models) each, and which models are initialisations."""

    similarity: Floats
    """Weighted mean of the cosines of the aligned layers, 1 for the same filters; NaN without any."""
    deviation: Floats
    """Standard deviation of the similarity of strangers."""
    explained: Floats
    """Largest similarity that one initialisation in common explains; NaN without aligned layers."""
    distance: Floats
    """‖W − W′‖ of the aligned layers divided by the larger of ‖W‖ and ‖W′‖."""
    compared: Ints
    """Number of aligned layers."""
    equal: Ints
    """Number of layers with equal filters apart from the scales of output channels, at any position."""
    shares_layer: Bools
    """Whether one of these has at least 64 filters, (models, models)."""
    initial: Bools
    """Whether all layers of a model are as isotropic as noise, (models,)."""

    @property
    def threshold(self) -> float:
        """Return the number of standard deviations of strangers' similarity from which two models are related.

        The more pairs are compared, the more similar are the most similar strangers: 4.1 for 30 models, 6 for 5,000.
        """
        models = len(self.initial)
        pairs = max(models * (models - 1) // 2, 1)
        return max(LEAST_DEVIATIONS, NormalDist().inv_cdf(1 - FALSE_FAMILIES / pairs))

    @property
    def related(self) -> Bools:
        """Return which pairs share an ancestor, (models, models)."""
        beyond = np.nan_to_num(self.similarity) >= self.threshold * np.nan_to_num(self.deviation, nan=np.inf)
        related: Bools = beyond | self.shares_layer
        np.fill_diagonal(related, val=False)
        return related

    @property
    def descend(self) -> Bools:
        """Return which pairs are so similar that they share trained weights, not just an initialisation."""
        similarity = np.nan_to_num(self.similarity)
        deviation = np.nan_to_num(self.deviation, nan=np.inf)
        with np.errstate(invalid="ignore"):  # inf · 0 where no layers align
            beyond = similarity - self.explained > _MARGIN * deviation * (1 - similarity**2)
        descend: Bools = beyond & (similarity >= _DESCENT * deviation)
        np.fill_diagonal(descend, val=False)
        return descend


def kinship(db: Database) -> Kinship:
    """Compare all pairs of the view's models.

    Layers are aligned by shape and position: the k-th layer of a shape with the other model's k-th of that shape. The
    cosine is that of the weights without each layer's mean filter. Layers with fewer than ten distinct filters are left
    out. Raises UsageError for more than MODEL_LIMIT models.
    """
    _check_number(db.models.sizes["model"])
    (arrays,) = summaries(db, SketchReduction())
    return _compare(db, arrays)


def _check_number(models: int) -> None:
    """Raise UsageError for more than MODEL_LIMIT models."""
    if models > MODEL_LIMIT:
        raise UsageError(f"lineage: expected at most {MODEL_LIMIT:,} models, got {models:,}; choose some with --where")


def descendants(db: Database, *, sketch: bool) -> Bools | None:
    """Return which pairs of the view's models share trained weights, (models, models), by all layers that these have.

    With `sketch`, layers without a sketch are sketched, which takes a pass over the filters; UsageError for more than
    MODEL_LIMIT models. Otherwise None if a layer has no sketch, or for more than MODEL_LIMIT models.
    """
    mask = _layers_of_models(db)
    models = len(np.unique(db.all_layers["model_index"].values[mask]))
    if sketch:
        _check_number(models)
        sketch_layers(db)
    elif models > MODEL_LIMIT:
        return None
    place = _place(db, "descendants", mask)
    kept = db.kept.get(place)
    if kept is None:
        arrays, is_stored = stored(db, SketchReduction())
        if not is_stored[mask].all():
            return None
        kept = {"descend": _compare(db.whole.keep(mask, "all layers of the models"), arrays).descend}
        db.kept[place] = kept
    return kept["descend"]


def initialisations(db: Database) -> Bools:
    """Return which of the view's models look like an initialisation in all of their layers, (models,)."""
    mask = _layers_of_models(db)
    place = _place(db, "initialisations", mask)
    kept = db.kept.get(place)
    if kept is None:
        (moments,) = summaries(db, MomentsReduction())
        models, owner = np.unique(db.all_layers["model_index"].values[mask], return_inverse=True)
        p_value, sizes = sphericity.p_value(state(moments, SCALED).pick(mask)), db.all_layers["row_size"].values[mask]
        kept = {"initial": _initial(p_value, owner.reshape(-1), sizes, len(models))}
        db.kept[place] = kept
    return kept["initial"]


def has_sketches(db: Database) -> bool:
    """Return whether all layers of the snapshot have a stored sketch."""
    return bool(stored(db, SketchReduction())[1].all())


def sketch_layers(db: Database) -> None:
    """Compute and store the missing sketches of the snapshot's layers, in a pass over the filters of their segments."""
    summaries(db, SketchReduction())


def _layers_of_models(db: Database) -> Bools:
    """Return which of the snapshot's layers belong to the view's models, (layers,)."""
    model = db.all_layers["model_index"].values
    return np.isin(model, model[chosen(db)])


def _place(db: Database, kind: str, mask: Bools) -> tuple[str, Key]:
    """Return the place in memory of a result about all layers of some models; it depends on nothing else."""
    content = {
        "segments": [entry.id for entry in db.state.segments],
        "layers": hashlib.sha256(np.flatnonzero(db.present)[mask].tobytes()).hexdigest(),
    }
    return "", Key(kind, 1, canonical(content).decode())


def _compare(db: Database, arrays: Arrays) -> Kinship:
    """Compare all pairs of the view's models by the sketches of all layers of the snapshot."""
    models, view = db.models.sizes["model"], chosen(db)
    (moments,) = summaries(db, MomentsReduction())
    raw = raw_state(moments).pick(view)
    # Without the mean, layers whose filters have the same average shape are not taken for relatives.
    sketches = arrays["sketch"][view] - of_repeated(raw.mean, arrays["count"][view])
    spectrum = _spectrum(raw)
    is_full = spectrum[:, 0] > _FULL_RANK * spectrum[:, -1]
    owner, sizes = db.layers["model_index"].values, db.layers["row_size"].values
    contents, isotropic = db.same_filters[view], _isotropic_share(spectrum, sizes)
    totals = _totals(sketches, isotropic, contents, _aligned(db, is_full), owner, sizes, models)
    compared = _shared(owner, _places(db), is_full, models)
    equal = _shared(owner, contents, is_full, models)
    shares_layer = _shared(owner, contents, is_full & (sizes >= _LARGE), models) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        similarity, explained = np.clip(totals.cosine / totals.weight, -1, 1), totals.isotropic / totals.weight
        distance = np.sqrt(totals.squares / np.maximum(totals.norms, totals.norms.T))
        deviation = 1 / np.sqrt(totals.weight)
    deviation[totals.weight == 0] = np.nan
    initial = _initial(sphericity.p_value(state(moments, SCALED).pick(view)), owner, sizes, models)
    return Kinship(similarity, deviation, explained, distance, compared, equal, shares_layer, initial)


def _spectrum(raw: Moments) -> Floats:
    """Return the eigenvalues of the covariance of each layer, ascending, (layers, 9)."""
    spectrum: Floats = np.clip(np.linalg.eigvalsh(raw.covariance), 0, None)
    return spectrum


def _isotropic_share(spectrum: Floats, sizes: Ints) -> Floats:
    """Return the largest share of each layer's variance that an initialisation can be, (layers,).

    An initialisation varies equally in all nine directions, so by at most the smallest eigenvalue in each. That of the
    covariance of n isotropic filters is too small by (1 − √(9/n))² (Marchenko and Pastur 1967).
    """
    mean = spectrum.mean(axis=1)
    edge = np.maximum(1 - np.sqrt(WEIGHTS / sizes), 0) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        share: Floats = np.nan_to_num(np.minimum(spectrum[:, 0] / mean / edge, 1), nan=1.0)
    return share


def _places(db: Database) -> npt.NDArray[np.str_]:
    """Return the shape of each of the view's layers and its number among the layers of this shape in its model."""
    layers = db.all_layers
    columns = ("model_index", "out_channels", "in_channels", "groups")
    shapes = list(zip(*(layers[name].values.tolist() for name in columns), strict=True))
    numbers: dict[tuple[int, ...], int] = defaultdict(int)
    places = []
    for shape in shapes:
        numbers[shape] += 1
        places.append("x".join(map(str, (*shape[1:], numbers[shape]))))
    return np.array(places, np.str_)[chosen(db)]


def _aligned(db: Database, usable: Bools) -> list[Ints]:
    """Return the usable layers at each place that at least two models have."""
    _, index, number = np.unique(_places(db), return_inverse=True, return_counts=True)
    order = np.flatnonzero(usable & (number[index] > 1))
    by_place: dict[int, list[int]] = defaultdict(list)
    for layer in order.tolist():
        by_place[int(index[layer])].append(layer)
    return [np.array(layers) for layers in by_place.values() if len(layers) > 1]


class _Totals(NamedTuple):
    """Hold sums over the aligned layers of all pairs of models, (models, models) each."""

    cosine: Floats
    isotropic: Floats
    """Of the similarities that a common initialisation explains."""
    weight: Floats
    """Of the two sums above; the precision of the similarity of strangers."""
    squares: Floats
    """‖W − W′‖²."""
    norms: Floats
    """‖W‖²."""


def _totals(
    sketches: Floats,
    isotropic: Floats,
    contents: Ints,
    aligned: list[Ints],
    owner: Ints,
    sizes: Ints,
    models: int,
) -> _Totals:
    """Return the sums of all pairs of models; `isotropic` (layers,) is from `_isotropic_share`.

    Layers with equal `contents` (layers,) have the same filters apart from the scales of channels: their cosine is 1.
    """
    totals = _Totals(*np.zeros((5, models, models)))
    for layers in aligned:
        place = np.ix_(owner[layers], owner[layers])
        products = sketches[layers] @ sketches[layers].T
        square = np.diag(products)
        length = np.sqrt(square)
        weight = 1 / (1 / BUCKETS + _CHANNELS / sizes[layers[0]])
        is_same = contents[layers][:, None] == contents[layers]
        totals.cosine[place] += weight * np.where(is_same, 1.0, products / np.outer(length, length))
        totals.isotropic[place] += weight * np.sqrt(np.outer(isotropic[layers], isotropic[layers]))
        totals.weight[place] += weight
        totals.squares[place] += np.maximum(square[:, None] + square - 2 * products, 0)
        totals.norms[place] += square[:, None]
    return totals


def _shared(owner: Ints, names: npt.NDArray[np.str_] | Ints, usable: Bools, models: int) -> Ints:
    """Return how many names of layers each pair of models has in common, (models, models)."""
    shared = np.zeros((models, models), np.int64)
    owners: dict[str | int, set[int]] = defaultdict(set)
    for name, model, is_usable in zip(names.tolist(), owner.tolist(), usable.tolist(), strict=True):
        if is_usable:
            owners[name].add(model)
    for group in owners.values():
        if len(group) > 1:
            members = sorted(group)
            shared[np.ix_(members, members)] += 1
    np.fill_diagonal(shared, 0)
    return shared


def _initial(p_value: Floats, owner: Ints, sizes: Ints, models: int) -> Bools:
    """Return whether the layers of at least 64 filters together cannot be told from isotropic noise, (models,).

    `p_value` (layers,) is that of the test of sphericity; Fisher's method joins those of a model's layers. Models
    without such a layer are not initial.
    """
    tested = (sizes >= _LARGE) & np.isfinite(p_value)
    number = np.bincount(owner[tested], minlength=models)
    # Half of Fisher's statistic, whose tail at 2L degrees of freedom is that of a Poisson variable below L.
    half = np.bincount(owner[tested], -np.log(np.maximum(p_value[tested], _SMALLEST_P)), models)
    tails = [_poisson_below(layers, mean) for layers, mean in zip(number.tolist(), half.tolist(), strict=True)]
    return (number > 0) & (np.array(tails) > _MOVED)


def _poisson_below(number: int, mean: float) -> float:
    """Return the probability that a Poisson variable is smaller than a number."""
    if mean <= 0:
        return 1.0
    return math.fsum(math.exp(k * math.log(mean) - math.lgamma(k + 1) - mean) for k in range(number))
