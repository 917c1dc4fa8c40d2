"""Compare the weights of all pairs of models, layer by layer, by the sketches of the layers."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.analysis.aligned_layers import AlignedLayers, aligned_layers, directions, p_values, place_of, sketches
from filterdb.analysis.grouping import chosen
from filterdb.engine.run import stored, summaries
from filterdb.engine.sketches import SketchReduction
from filterdb.errors import UsageError
from filterdb.numerics import alignment, sphericity
from filterdb.numerics.sketch import BUCKETS
from filterdb.store.database import Database

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Singles = npt.NDArray[np.float32]

MODEL_LIMIT = 5_000
"""Largest number of models that are compared: the matrices of all pairs would take gigabytes."""

FALSE_FAMILIES = 0.01
"""Probability that strangers are related, for any of all pairs of models together."""

LEAST_DEVIATIONS = 4.0
"""Fewest standard deviations from which models are related, however few they are."""

_CHANNELS = 2.0
"""The cosine of two unrelated layers of n filters has a variance of at most this by n: filters of one channel are not
independent. A chosen bound."""

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

_ALL_COMPARED = 1_024
"""Models up to which all pairs are compared; of more, only the blocks in which there are relatives."""

_STACKED = 8
"""Places of which sketches are multiplied at once."""

_BLOCK = 1_024
"""Models of a block of the matrices, so that the sums of pairs take 60 MB however many models are compared."""


class Kinship(NamedTuple):
    """Hold what all pairs of models have in common, (models, models) each, and which models are initialisations.

    Of more than 1,024 models, the first four are zero for most pairs of which neither has a relative.
    """

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
        return _threshold(len(self.initial))

    @property
    def related(self) -> Bools:
        """Return which pairs share an ancestor, (models, models)."""
        related = self.shares_layer.copy()
        for row, compared in enumerate(self.compared):
            others = np.flatnonzero(compared)
            similarity, deviation = self.similarity[row, others], self.deviation[row, others]
            related[row, others] |= np.nan_to_num(similarity) >= self.threshold * np.nan_to_num(deviation, nan=np.inf)
        np.fill_diagonal(related, val=False)
        return related


def _threshold(models: int) -> float:
    """Return `Kinship.threshold` for so many models."""
    pairs = max(models * (models - 1) // 2, 1)
    return max(LEAST_DEVIATIONS, NormalDist().inv_cdf(1 - FALSE_FAMILIES / pairs))


def kinship(db: Database) -> Kinship:
    """Compare all pairs of the view's models.

    Layers are aligned by shape and position: the k-th layer of a shape with the other model's k-th of that shape. The
    cosine is that of the weights without each layer's mean filter. Layers with fewer than ten distinct filters are left
    out. Raises UsageError for more than MODEL_LIMIT models.
    """
    _check_number(db.model_columns.sizes["model"])
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
    models = len(np.unique(db.all_layer_columns["model_index"].values[mask]))
    if sketch:
        _check_number(models)
        sketch_layers(db)
    elif models > MODEL_LIMIT:
        return None
    place = place_of(db, "descendants", mask)
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
    place = place_of(db, "initialisations", mask)
    kept = db.kept.get(place)
    if kept is None:
        models, owner = np.unique(db.all_layer_columns["model_index"].values[mask], return_inverse=True)
        sizes = db.all_layer_columns["row_size"].values[mask]
        kept = {"initial": _initial(p_values(db)[mask], owner.reshape(-1), sizes, len(models))}
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
    model = db.all_layer_columns["model_index"].values
    return np.isin(model, model[chosen(db)])


def _compare(db: Database) -> Kinship:
    """Compare all pairs of the view's models by the sketches of all layers of the snapshot.

    Of many models, only the blocks of pairs are compared in which there are relatives: the rest of the result is zero.
    """
    models = db.model_columns.sizes["model"]
    compares_all, blocks = models <= _ALL_COMPARED, list(_blocks(models))
    layers = aligned_layers(db, sketches if compares_all else _nothing)
    equal, shares_layer = _shared(layers, models)
    if not compares_all:
        wanted = _similar(db, models) | shares_layer
        blocks = [block for block in blocks if wanted[block].any()]
        layers = aligned_layers(db, sketches) if blocks else layers
    similarity, deviation, distance = np.zeros((3, models, models))
    compared = np.zeros((models, models), np.int32)
    matrices: tuple[npt.NDArray[Any], ...] = (similarity, deviation, distance, compared)
    for rows, columns in blocks:
        sums = _sums(layers, rows, columns, alignment.ALL)
        with np.errstate(divide="ignore", invalid="ignore"):
            norms = np.maximum(sums[alignment.NORMS], sums[alignment.OTHER_NORMS])
            values = (*_similarity(sums)[:2], np.sqrt(sums[alignment.SQUARES] / norms), sums[alignment.COMPARED])
        for matrix, block in zip(matrices, values, strict=True):
            if rows != columns:
                matrix[columns, rows] = block.T
            matrix[rows, columns] = block
    np.fill_diagonal(compared, 0)
    initial = _initial(layers.p_value, layers.owner, layers.sizes, models)
    return Kinship(similarity, deviation, distance, compared, equal, shares_layer, initial)


def _nothing(db: Database, mean: Floats) -> Floats:
    """Return no sketches, where only other facts about layers are wanted."""
    return np.empty((len(mean), 0))


def _descend(db: Database) -> Bools:
    """Return which pairs of the view's models are so similar that they share trained weights, (models, models)."""
    models = db.model_columns.sizes["model"]
    candidates, descend = _similar(db, models), np.zeros((models, models), bool)
    near = np.flatnonzero(candidates.any(axis=1))
    if not len(near):
        return descend
    is_near = np.isin(db.layer_columns["model_index"].values, near)
    layers = aligned_layers(db.keep(is_near, "layers of similar models"), sketches)
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


def _similar(db: Database, models: int) -> Bools:
    """Return which pairs of the view's models can be relatives, (models, models): all that are, and few others."""
    place = place_of(db, f"similar, {models} models", _layers_of_models(db))
    kept = db.kept.get(place)
    if kept is None:
        candidates = np.zeros((models, models), bool)
        layers = aligned_layers(db, directions)
        stacks, deviations = _stacks(layers), min(_DESCENT, _threshold(models))
        for rows, columns in _blocks(models):
            candidates[rows, columns] = _candidates(layers, stacks, (rows, columns), deviations)
            candidates[columns, rows] = candidates[rows, columns].T
        _share_place(layers, candidates)
        np.fill_diagonal(candidates, val=False)
        kept = {"bits": np.packbits(candidates, axis=1)}
        db.kept[place] = kept
    return np.unpackbits(kept["bits"], axis=1, count=models).view(bool)


def _candidates(
    layers: AlignedLayers, stacks: list[list[Ints]], block: tuple[slice, slice], deviations: float
) -> Bools:
    """Return which pairs can be so many deviations more similar than strangers, (rows, columns), by sums in float32.

    Their error is below `_SLACK` of the sum of the weights. Layers with the same filters are left to `_share_place`.
    """
    sums = np.zeros((2, *(part.stop - part.start for part in block)), np.float32)
    for places in stacks:
        (left, ours, rows), (right, theirs, columns) = (_stacked(layers, places, part) for part in block)
        if len(rows) and len(columns):
            weight = np.float32(_weight(layers, places[0]))
            alignment.add_cosines(sums, left @ right.T, ours @ theirs.T, rows, columns, weight)
    cosine, weight = sums
    candidates: Bools = (cosine + _SLACK * weight >= np.float32(deviations) * np.sqrt(weight)) & (weight > 0)
    return candidates


def _stacks(layers: AlignedLayers) -> list[list[Ints]]:
    """Return the places in stacks of the same weight and of about the same models, so that products are large."""
    stacks: list[list[Ints]] = []
    for place in sorted(layers.aligned, key=lambda place: (layers.sizes[place[0]], -len(place))):
        stack = stacks[-1] if stacks else []
        is_alike = stack and layers.sizes[stack[0][0]] == layers.sizes[place[0]] and len(place) >= 0.7 * len(stack[0])
        if is_alike and len(stack) < _STACKED:
            stack.append(place)
        else:
            stacks.append([place])
    return stacks


def _stacked(layers: AlignedLayers, places: list[Ints], part: slice) -> tuple[Singles, Singles, Ints]:
    """Return the sketches at some places of the models in a range, which places they have, and their rows in the range.

    They are (models, 128 · places), with zeros where a model lacks a place, and (models, places).
    """
    own = [place[slice(*np.searchsorted(layers.owner[place], (part.start, part.stop)))] for place in places]
    models, row = np.unique(np.concatenate([layers.owner[some] for some in own]), return_inverse=True)
    stacked, has = np.zeros((len(models), len(own), BUCKETS), np.float32), np.zeros((len(models), len(own)), np.float32)
    start = 0
    for k, some in enumerate(own):
        rows = row.reshape(-1)[start : start + len(some)]
        stacked[rows, k], has[rows, k] = layers.sketch[some], 1
        start += len(some)
    return stacked.reshape(len(models), len(own) * BUCKETS), has, models - part.start


def _share_place(layers: AlignedLayers, candidates: Bools) -> None:
    """Mark the pairs of models, (models, models), that have a layer with the same filters at the same place."""
    for place in layers.aligned:
        values, index, number = np.unique(layers.content[place], return_inverse=True, return_counts=True)
        if len(values) == len(place):
            continue
        for value in np.flatnonzero(number > 1).tolist():
            models = layers.owner[place[index.reshape(-1) == value]]
            candidates[np.ix_(models, models)] = True


def _blocks(models: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of the blocks on and above the diagonal of a matrix (models, models)."""
    parts = [slice(start, min(start + _BLOCK, models)) for start in range(0, models, _BLOCK)]
    yield from itertools.combinations_with_replacement(parts, 2)


def _sums(layers: AlignedLayers, rows: slice, columns: slice, number: int) -> Floats:
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


def _of_models(layers: AlignedLayers, place: Ints, *parts: slice) -> list[Ints]:
    """Return the layers at a place that belong to models in some ranges, for each range."""
    return [place[slice(*np.searchsorted(layers.owner[place], (part.start, part.stop)))] for part in parts]


def _side(layers: AlignedLayers, some: Ints, models: slice) -> alignment.Side:
    """Return some layers at one place, of a range of models, without the squares of their sketches."""
    nothing = np.empty(0)
    position = layers.owner[some] - models.start
    return alignment.Side(position, nothing, nothing, layers.isotropic[some], layers.content[some])


def _weight(layers: AlignedLayers, place: Ints) -> float:
    """Return the weight of a place, whose layers have the same size."""
    return float(1 / (1 / BUCKETS + _CHANNELS / layers.sizes[place[0]]))


def _squares(layers: AlignedLayers, *parts: Ints) -> list[Floats]:
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


def _shared(layers: AlignedLayers, models: int) -> tuple[npt.NDArray[np.int32], Bools]:
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
    """Return whether each model's layers of at least 64 filters together look like isotropic noise, (models,).

    `p_value` (layers,) is that of the test of sphericity; Fisher's method joins those of a model's layers. Models
    without such a layer are not initial.
    """
    tested = (sizes >= _LARGE) & np.isfinite(p_value)
    number = np.bincount(owner[tested], minlength=models)
    return (number > 0) & (sphericity.joint_p_values(p_value[tested], owner[tested], models) > _MOVED)
