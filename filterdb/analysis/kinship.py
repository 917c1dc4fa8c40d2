"""Compare the weights of all pairs of models, layer by layer, by the sketches of the layers."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.analysis.grouping import chosen
from filterdb.engine.moments import SCALED, MomentsReduction, raw_state, state
from filterdb.engine.reduction import LayerReduction
from filterdb.engine.run import in_parts, stored, summaries
from filterdb.engine.sketches import SketchReduction
from filterdb.errors import UsageError
from filterdb.numerics import alignment, sphericity
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

_LARGE = 64
"""Filters from which a layer tells whether a model is an initialisation, and whether models share a layer: networks
that were initialised with one seed have small first layers in common."""

_DESCENT = 6.0
"""Standard deviations of the similarity of strangers from which models can share trained weights. It is fixed, so that
units do not depend on how many models are compared."""

_MARGIN = 3.0
"""Standard deviations by which a similarity must exceed what a common initialisation explains."""

_SLACK = 1e-3
"""Error of a sum of cosines in float32, as a share of the weights: that of a thousand terms is 1e-4 at most."""

_BLOCK = 1_024
"""Models of a block of the matrices, so that the sums of pairs take 60 MB however many models are compared."""


class Kinship(NamedTuple):
    """Hold what all pairs of models have in common, (models, models) each, and which models are initialisations."""

    similarity: Floats
    """Weighted mean of the cosines of the aligned layers, 1 for the same filters; NaN without any."""
    deviation: Floats
    """Standard deviation of the similarity of strangers."""
    distance: Floats
    """‖W − W′‖ of the aligned layers divided by the larger of ‖W‖ and ‖W′‖."""
    compared: npt.NDArray[np.int32]
    """Number of aligned layers."""
    equal: npt.NDArray[np.int32]
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
        related = self.shares_layer.copy()
        for row, (similarity, deviation) in enumerate(zip(self.similarity, self.deviation, strict=True)):
            related[row] |= np.nan_to_num(similarity) >= self.threshold * np.nan_to_num(deviation, nan=np.inf)
        np.fill_diagonal(related, val=False)
        return related


def kinship(db: Database) -> Kinship:
    """Compare all pairs of the view's models.

    Layers are aligned by shape and position: the k-th layer of a shape with the other model's k-th of that shape. The
    cosine is that of the weights without each layer's mean filter. Layers with fewer than ten distinct filters are left
    out. Raises UsageError for more than MODEL_LIMIT models.
    """
    _check_number(db.models.sizes["model"])
    return _compare(db)


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
        if not stored(db, SketchReduction())[mask].all():
            return None
        kept = {"descend": _descend(db.whole.keep(mask, "all layers of the models"))}
        db.kept[place] = kept
    return kept["descend"]


def initialisations(db: Database) -> Bools:
    """Return which of the view's models look like an initialisation in all of their layers, (models,)."""
    mask = _layers_of_models(db)
    place = _place(db, "initialisations", mask)
    kept = db.kept.get(place)
    if kept is None:
        models, owner = np.unique(db.all_layers["model_index"].values[mask], return_inverse=True)
        sizes = db.all_layers["row_size"].values[mask]
        kept = {"initial": _initial(_p_values(db)[mask], owner.reshape(-1), sizes, len(models))}
        db.kept[place] = kept
    return kept["initial"]


def has_sketches(db: Database) -> bool:
    """Return whether all layers of the snapshot have a stored sketch."""
    return bool(stored(db, SketchReduction()).all())


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


def _compare(db: Database) -> Kinship:
    """Compare all pairs of the view's models by the sketches of all layers of the snapshot."""
    models, layers = db.models.sizes["model"], _comparable(db, _sketches)
    similarity, deviation, distance = np.full((3, models, models), np.nan)
    compared = np.zeros((models, models), np.int32)
    for rows, columns in _blocks(models):
        sums = _sums(layers, rows, columns, alignment.ALL)
        with np.errstate(divide="ignore", invalid="ignore"):
            norms = np.maximum(sums[alignment.NORMS], sums[alignment.OTHER_NORMS])
            values = (*_similarity(sums)[:2], np.sqrt(sums[alignment.SQUARES] / norms), sums[alignment.COMPARED])
        for matrix, block in zip((similarity, deviation, distance, compared), values, strict=True):
            if rows != columns:
                matrix[columns, rows] = block.T
            matrix[rows, columns] = block
    np.fill_diagonal(compared, 0)
    equal, shares_layer = _shared(layers, models)
    initial = _initial(layers.p_value, layers.owner, layers.sizes, models)
    return Kinship(similarity, deviation, distance, compared, equal, shares_layer, initial)


def _descend(db: Database) -> Bools:
    """Return which pairs of the view's models are so similar that they share trained weights, (models, models)."""
    models = db.models.sizes["model"]
    candidates, descend = np.zeros((2, models, models), bool)
    layers = _comparable(db, _directions)
    for rows, columns in _blocks(models):
        candidates[rows, columns] = _candidates(layers, rows, columns)
        candidates[columns, rows] = candidates[rows, columns].T
    np.fill_diagonal(candidates, val=False)
    near = np.flatnonzero(candidates.any(axis=1))
    if not len(near):
        return descend
    is_near = np.isin(layers.owner, near)
    layers = _comparable(db.keep(is_near, "layers of similar models"), _sketches)
    for rows, columns in _blocks(len(near)):
        pairs = np.ix_(near[rows], near[columns])
        if not candidates[pairs].any():
            continue
        similarity, deviation, explained = _similarity(_sums(layers, rows, columns, alignment.OF_COSINES))
        similarity, deviation = np.nan_to_num(similarity), np.nan_to_num(deviation, nan=np.inf)
        with np.errstate(invalid="ignore"):  # inf · 0 where no layers align
            beyond = similarity - explained > _MARGIN * deviation * (1 - similarity**2)
        descend[pairs] = beyond & (similarity >= _DESCENT * deviation)
        descend[np.ix_(near[columns], near[rows])] = descend[pairs].T
    np.fill_diagonal(descend, val=False)
    return descend


def _candidates(layers: _Layers, rows: slice, columns: slice) -> Bools:
    """Return which pairs of models can be as similar as `_descend` asks, (rows, columns), from sums in float32.

    Few pairs are, and these sums take a third of the time. Their error is below `_SLACK` of the sum of the weights.
    """
    sums = np.zeros((2, rows.stop - rows.start, columns.stop - columns.start), np.float32)
    for place in layers.aligned:
        left, right = _of_models(layers, place, rows, columns)
        if len(left) and len(right):
            cosines = layers.sketch[left] @ layers.sketch[right].T
            sides = _side(layers, left, rows), _side(layers, right, columns)
            alignment.add_cosines(sums, cosines, *sides, _weight(layers, place))
    cosine, weight = sums
    candidates: Bools = cosine + _SLACK * weight >= np.float32(_DESCENT) * np.sqrt(weight)
    return candidates & (weight > 0)


class _Layers(NamedTuple):
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


def _comparable(db: Database, sketches: Callable[[Database, Floats], npt.NDArray[np.floating]]) -> _Layers:
    """Return what is compared of the view's layers, with the sketches that a function makes of view and mean filters.

    Moments and sketches, which are large, are read one after the other, and in parts.
    """
    owner, sizes, view = db.layers["model_index"].values, db.layers["row_size"].values, chosen(db)
    mean, spectrum = _of_moments(db)
    is_full = spectrum[:, 0] > _FULL_RANK * spectrum[:, -1]
    isotropic = _isotropic_share(spectrum, sizes)
    aligned = _aligned(_places(db), is_full, owner)
    content, p_value = db.same_filters[view], _p_values(db)[view]
    return _Layers(sketches(db, mean), isotropic, content, is_full, p_value, owner, sizes, aligned)


def _sketches(db: Database, mean: Floats) -> Floats:
    """Return the sketches of the view's layers without their mean filters, (layers, 128)."""
    sketch = of_repeated(mean, db.layers["row_size"].values)
    for _, part, arrays in _parts(db, SketchReduction()):
        np.subtract(arrays["sketch"], sketch[part], out=sketch[part])
    return sketch


def _directions(db: Database, mean: Floats) -> npt.NDArray[np.float32]:
    """Return what `_sketches` returns, in float32 and of unit length."""
    direction = np.empty((len(mean), BUCKETS), np.float32)
    for _, part, arrays in _parts(db, SketchReduction()):
        sketch = arrays["sketch"] - of_repeated(mean[part], arrays["count"])
        with np.errstate(divide="ignore", invalid="ignore"):
            direction[part] = sketch / np.sqrt(np.einsum("lb,lb->l", sketch, sketch))[:, None]
    return direction


def _of_moments(db: Database) -> tuple[Floats, Floats]:
    """Return the mean filter and the eigenvalues of the covariance, ascending, of the view's layers, (layers, 9)."""
    mean, spectrum = np.empty((2, db.layers.sizes["layer"], WEIGHTS))
    for _, part, arrays in _parts(db, MomentsReduction()):
        raw = raw_state(arrays)
        mean[part], spectrum[part] = raw.mean, _spectrum(raw)
    return mean, spectrum


def _p_values(db: Database) -> Floats:
    """Return the p-value of the test of sphericity of the snapshot's layers, (layers,)."""
    whole = db.whole
    place = _place(whole, "sphericity", np.ones(whole.all_layers.sizes["layer"], bool))
    kept = db.kept.get(place)
    if kept is None:
        p_value = np.empty(whole.all_layers.sizes["layer"])
        for part, _, arrays in _parts(whole, MomentsReduction()):
            p_value[part] = sphericity.p_value(state(arrays, SCALED))
        kept = {"p_value": p_value}
        db.kept[place] = kept
    return kept["p_value"]


def _parts(db: Database, reduction: LayerReduction) -> Iterator[tuple[slice, slice, Arrays]]:
    """Yield a reduction's arrays of some of the view's layers at a time, with their ranges in snapshot and view.

    What is computed from them takes little memory, and that of the summary is free for the next.
    """
    start = 0
    for rows, arrays in in_parts(db, reduction):
        some = arrays if db.chosen is None else {name: array[db.chosen[rows]] for name, array in arrays.items()}
        stop = start + len(next(iter(some.values())))
        yield rows, slice(start, stop), some
        start = stop


def _blocks(models: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of the blocks on and above the diagonal of a matrix (models, models)."""
    parts = [slice(start, min(start + _BLOCK, models)) for start in range(0, models, _BLOCK)]
    yield from itertools.combinations_with_replacement(parts, 2)


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


def _places(db: Database) -> Ints:
    """Return the place of each of the view's layers: its shape, and its number among its model's layers of this shape.

    Places are numbers, equal for equal places, (layers,).
    """
    names = ("out_channels", "in_channels", "groups")
    shape = _codes(*(db.all_layers[name].values for name in names))
    in_model = _codes(db.all_layers["model_index"].values, shape)
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


def _sums(layers: _Layers, rows: slice, columns: slice, number: int) -> Floats:
    """Return sums over the aligned layers of pairs of models, (number, rows, columns): the first ones of `alignment`.

    Rows and columns are ranges of models.
    """
    sums = np.zeros((number, rows.stop - rows.start, columns.stop - columns.start))
    for place in layers.aligned:
        left, right = _of_models(layers, place, rows, columns)
        if not (len(left) and len(right)):
            continue
        products = layers.sketch[left] @ layers.sketch[right].T
        squares = [np.ascontiguousarray(np.diag(products))] * 2 if rows == columns else _squares(layers, left, right)
        sides = [
            _side(layers, some, part)._replace(square=square, length=np.sqrt(square))
            for some, part, square in zip((left, right), (rows, columns), squares, strict=True)
        ]
        alignment.add_pairs(sums, products, *sides, _weight(layers, place))
    return sums


def _of_models(layers: _Layers, place: Ints, *parts: slice) -> list[Ints]:
    """Return the layers at a place that belong to models in some ranges, for each range."""
    return [place[slice(*np.searchsorted(layers.owner[place], (part.start, part.stop)))] for part in parts]


def _side(layers: _Layers, some: Ints, models: slice) -> alignment.Side:
    """Return some layers at one place, of a range of models, without the squares of their sketches."""
    nothing = np.empty(0)
    position = layers.owner[some] - models.start
    return alignment.Side(position, nothing, nothing, layers.isotropic[some], layers.content[some])


def _weight(layers: _Layers, place: Ints) -> float:
    """Return the weight of a place, whose layers have the same size."""
    return float(1 / (1 / BUCKETS + _CHANNELS / layers.sizes[place[0]]))


def _squares(layers: _Layers, *parts: Ints) -> list[Floats]:
    """Return ‖S‖² of the sketches of some layers, for each part."""
    return [np.einsum("lb,lb->l", layers.sketch[part], layers.sketch[part]) for part in parts]


def _similarity(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the similarity of pairs of models, its deviation, and the largest that an initialisation explains."""
    weight = sums[alignment.WEIGHT]
    with np.errstate(divide="ignore", invalid="ignore"):
        similarity = np.clip(sums[alignment.COSINE] / weight, -1, 1)
        explained = sums[alignment.ISOTROPIC] / weight
        deviation = 1 / np.sqrt(weight)
    deviation[weight == 0] = np.nan
    return similarity, deviation, explained


def _shared(layers: _Layers, models: int) -> tuple[npt.NDArray[np.int32], Bools]:
    """Return how many layers of full rank each pair of models has in common, and which have a large one in common.

    Both are (models, models); the layers are equal apart from the scales of their channels, at any position.
    """
    equal, shares_layer = np.zeros((models, models), np.int32), np.zeros((models, models), bool)
    owners: dict[int, set[int]] = defaultdict(set)
    large: set[int] = set()
    columns = (layers.content, layers.owner, layers.is_full, layers.is_full & (layers.sizes >= _LARGE))
    for content, model, is_full, is_large in zip(*(column.tolist() for column in columns), strict=True):
        if is_full:
            owners[content].add(model)
        if is_large:
            large.add(content)
    # Copies of a model have all layers in common: add layers with the same owners at once.
    numbers: Counter[tuple[int, ...]] = Counter()
    telling: set[tuple[int, ...]] = set()
    for content, group in owners.items():
        if len(group) > 1:
            members = tuple(sorted(group))
            numbers[members] += 1
            if content in large:
                telling.add(members)
    for members, number in numbers.items():
        equal[np.ix_(members, members)] += number
    for members in telling:
        shares_layer[np.ix_(members, members)] = True
    np.fill_diagonal(equal, 0)
    np.fill_diagonal(shares_layer, val=False)
    return equal, shares_layer


def _initial(p_value: Floats, owner: Ints, sizes: Ints, models: int) -> Bools:
    """Return whether the layers of at least 64 filters together cannot be told from isotropic noise, (models,).

    `p_value` (layers,) is that of the test of sphericity; Fisher's method joins those of a model's layers. Models
    without such a layer are not initial.
    """
    tested = (sizes >= _LARGE) & np.isfinite(p_value)
    number = np.bincount(owner[tested], minlength=models)
    return (number > 0) & (sphericity.joint_p_values(p_value[tested], owner[tested], models) > _MOVED)
