"""Find which models descend from which: fine-tuned, frozen and continued copies, and checkpoints of one training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.family_tree import toward_root
from filterdb.analysis.grouping import chosen, provenance
from filterdb.analysis.kinship import Kinship, kinship
from filterdb.analysis.returning import returns_result
from filterdb.analysis.trainings import (
    EPOCH,
    SCRATCH,
    Key,
    begin_at_initialisation,
    column,
    epoch_number,
    training_keys,
)
from filterdb.numerics.components import Components
from filterdb.numerics.fingerprint import models_by_filters
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.shapes import check_has_filters

EARLIER, EITHER, SIBLING, LATER = "earlier", "either", "sibling", "later"
"""Whether a related model precedes another one: yes; not known; not, because both were trained from scratch; no."""

_TIE = 3.0
"""Standard deviations by which similarities must differ before one of them counts as larger."""

_BY_EPOCH, _BY_PRETRAINING, _BY_INITIALISATION = "epoch", "pretraining_dataset", "initialisation"
_BY_NEARNESS = "nearer the initialisation"

_SURE = (_BY_EPOCH, _BY_PRETRAINING, _BY_INITIALISATION)
"""Evidence that one model precedes the other. A model nearer the initialisation can also be a sibling: of two copies
fine-tuned on the same data, the one that moved less lies on the way to the other."""


@returns_result
def lineage(db: AnyDatabase, *, training: str | list[str] | None = None, kernel: AnyKernel | None = None) -> xr.Dataset:
    """Find the likeliest parent of each of the view's models.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    training : str or list of str, optional
        The columns in which checkpoints of one training agree. Default: the column `training` where it is known, else
        every label but `epoch`, places and measurements, as in `series`.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dim model, the models in the order of the database:

        - parent, str: the likeliest parent, or "" if the model is related to none that could be.
        - direction, str: "parent" if the evidence says that it precedes the model; "" if only that both are relatives.
        - evidence, str: what the direction is known by: "epoch", "pretraining_dataset" or "initialisation"; "nearer the
          initialisation" if the parent may be a sibling that moved less, so that direction is ""; else "".
        - similarity, float64: mean cosine of the aligned layers, which is 1 for layers that differ in the scales of
          output channels only; NaN without a parent, or where no layers align.
        - distance, float64: ‖W − W′‖ of these layers, relative to the larger norm, to about ±8 %.
        - equal_layers, compared_layers, int64: layers with equal weights apart from the scales of output channels, at
          any position; layers that were aligned.
        - same_filters, bool: whether it has all filters of its parent apart from these scales, and no others.
        - family, int64: the number of the family of related models, from 1; 0 for a model without relatives.
        - is_initialisation, bool: whether all layers are as isotropic as noise.

    Raises
    ------
    UsageError
        For an unknown column, or for more than 5,000 models.

    Notes
    -----
    The raw weights of each layer are sketched by 128 sums, at ingest, or in a pass if they are missing. The k-th layer
    of a shape is compared with the other model's k-th of that shape, without the layers' mean filters. Two models are
    related if strangers are so similar in at most 1 % of the databases of this size, or if a layer of at least 64
    filters is equal apart from the scales of its output channels, which a folded batch normalisation changes. Copies
    with permuted or pruned channels are not recognised: docs/explanation/lineage.md.

    Examples
    --------
    >>> tuned = fdb.ingest("tuned", ["models/detector-10.onnx", "models/tuned.onnx", "models/fresh.onnx"]).database
    >>> result = fdb.lineage(tuned)
    >>> result["parent"].values.tolist(), result["similarity"].values.round(2)
    (['', 'models/detector-10.onnx', ''], array([ nan, 0.98,  nan]))
    """
    db = as_database(db, kernel=kernel)
    check_has_filters(db)
    labels = _labels(db, training)
    pairs = kinship(db)
    related, epoch = pairs.related, np.array(labels.epoch)
    family = _families(related)
    families = [set(np.flatnonzero(family == number).tolist()) for number in range(1, family.max(initial=0) + 1)]
    could_be_initial = pairs.initial & ~(epoch > 0)
    tree = toward_root(pairs.similarity, related, could_be_initial, families)
    # After an epoch a network can still be as isotropic as noise. Without epochs only the root is an initialisation.
    is_initialisation, pairs = pairs.initial, pairs._replace(initial=could_be_initial & ((tree < 0) | (epoch == 0)))
    relations = _relations(related, pairs, labels)
    parents = _parents(related, pairs, labels, relations, tree)
    names = db.model_columns["model"].values.astype(str)
    child, parent = np.arange(len(names)), np.array([link.parent for link in parents], np.int64)
    none, model = parent < 0, ("model",)

    def of_parent(values: npt.NDArray[np.float64] | npt.NDArray[np.int32], missing: float) -> npt.NDArray[np.generic]:
        kind = np.float64 if values.dtype.kind == "f" else np.int64
        return np.where(none, missing, values[child, parent]).astype(kind)

    return xr.Dataset(
        {
            "parent": (model, np.array(["" if p < 0 else names[p] for p in parent], object)),
            "direction": (model, np.array(["parent" if link.evidence in _SURE else "" for link in parents], object)),
            "evidence": (model, np.array([link.evidence for link in parents], object)),
            "similarity": (model, of_parent(pairs.similarity, np.nan)),
            "distance": (model, of_parent(pairs.distance, np.nan)),
            "equal_layers": (model, of_parent(pairs.equal, 0)),
            "compared_layers": (model, of_parent(pairs.compared, 0)),
            "same_filters": (model, _has_filters_of(db, parent)),
            "family": (model, family),
            "is_initialisation": (model, is_initialisation),
        },
        coords={"model": names.astype(object)},
        attrs=provenance(db, formula="mean cosine of aligned layers, from sketches of 128 sums"),
    )


def _has_filters_of(db: Database, parent: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return whether each model has the filters of its parent, a position or −1 for none, (models,)."""
    layers = db.layer_columns
    fingerprints, sizes, owner = (layers[name].values for name in ("fingerprint", "row_size", "model_index"))
    keys = models_by_filters(db.same_filters[chosen(db)], fingerprints, sizes, owner, len(parent))
    is_same = [p >= 0 and key is not None and keys[p] == key for key, p in zip(keys, parent.tolist(), strict=True)]
    return np.array(is_same, bool)


def _families(related: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the number of each model's family, from 1 by first model; 0 for a model without relatives."""
    joined = Components(len(related))
    joined.join_pairs(related)
    roots, has_relatives = joined.roots(), related.any(axis=1)
    family = np.zeros(len(related), np.int64)
    family[has_relatives] = np.unique(roots[has_relatives], return_inverse=True)[1].reshape(-1) + 1
    return family


@dataclass(frozen=True)
class _Labels:
    """Hold what the catalog says of each model; an unknown epoch is NaN."""

    training: list[Key | None]
    dataset: list[str]
    pretraining: list[str]
    epoch: list[float]
    is_from_scratch: list[bool]
    """Whether the catalog knows the model's training, which began at an initialisation."""


def _labels(db: Database, training: str | list[str] | None) -> _Labels:
    """Return the labels of the view's models."""
    models = db.model_columns
    return _Labels(
        training_keys(db, training, models=models),
        column(models, "training_dataset"),
        column(models, "pretraining_dataset"),
        [number if math.isfinite(number) else math.nan for number in map(epoch_number, column(models, EPOCH))],
        begin_at_initialisation(models),
    )


def _relations(
    related: npt.NDArray[np.bool_], pairs: Kinship, labels: _Labels
) -> dict[tuple[int, int], tuple[str, str]]:
    """Return, for each ordered pair of related models (model, other), whether the other is earlier, and why."""
    return {
        (model, other): _relation(model, other, related, pairs, labels)
        for model, other in zip(*(axis.tolist() for axis in np.nonzero(related)), strict=True)
    }


def _relation(
    model: int, other: int, related: npt.NDArray[np.bool_], pairs: Kinship, labels: _Labels
) -> tuple[str, str]:
    """Return whether `other` precedes `model`, and the evidence."""
    epochs = labels.epoch[model], labels.epoch[other]
    if _is_one_training(model, other, labels) and all(map(math.isfinite, epochs)):
        return (EITHER, "") if epochs[0] == epochs[1] else (EARLIER if epochs[1] < epochs[0] else LATER, _BY_EPOCH)
    forward, backward = _is_pretrained_on(labels, model, other), _is_pretrained_on(labels, other, model)
    if forward != backward:
        return EARLIER if forward else LATER, _BY_PRETRAINING
    if pairs.initial[model] != pairs.initial[other]:
        return EARLIER if pairs.initial[other] else LATER, _BY_INITIALISATION
    if labels.is_from_scratch[model] and not pairs.initial[other]:
        return SIBLING, ""
    nearer = _nearer_initialisation(model, other, related, pairs)
    if nearer:
        return EARLIER if nearer > 0 else LATER, _BY_NEARNESS
    return EITHER, ""


def _is_one_training(model: int, other: int, labels: _Labels) -> bool:
    """Return whether two models are checkpoints of one known training."""
    return labels.training[model] is not None and labels.training[model] == labels.training[other]


def _is_pretrained_on(labels: _Labels, model: int, other: int) -> bool:
    """Return whether the model was pretrained on the data set on which the other was trained."""
    pretraining = labels.pretraining[model]
    return pretraining.lower() not in SCRATCH and pretraining == labels.dataset[other] != labels.dataset[model]


def _nearer_initialisation(model: int, other: int, related: npt.NDArray[np.bool_], pairs: Kinship) -> int:
    """Return 1 if `other` is nearer a related initialisation than `model`, −1 if it is farther, 0 if unclear."""
    roots = np.flatnonzero(pairs.initial & related[model] & related[other])
    if not len(roots) or pairs.initial[model]:
        return 0
    difference = float((pairs.similarity[roots, other] - pairs.similarity[roots, model]).mean())
    margin = _margin(pairs, model, other)
    return 0 if not abs(difference) > margin else 1 if difference > 0 else -1


def _margin(pairs: Kinship, first: int, second: int) -> float:
    """Return by how much the similarities of two models to a third one must differ.

    Both are estimated by the same sums, so the error of their difference shrinks with the distance of the two.
    """
    return float(_TIE * pairs.deviation[first, second] * np.sqrt(2 - 2 * pairs.similarity[first, second]))


@dataclass(frozen=True)
class _Link:
    """Hold the position of a model's parent, −1 for none, and the evidence for the order, "" for none."""

    parent: int = -1
    evidence: str = ""


def _parents(
    related: npt.NDArray[np.bool_],
    pairs: Kinship,
    labels: _Labels,
    relations: dict[tuple[int, int], tuple[str, str]],
    tree: npt.NDArray[np.int64],
) -> list[_Link]:
    """Return the parent of each model. The links have no cycles; the surest and nearest are set first.

    `tree` (models,) is the next model on the way to the root of a tree of similarities.
    """
    ordered = []
    for model in range(len(related)):
        possible = _preferred(
            model, np.flatnonzero(related[model]).tolist(), pairs, labels, relations, int(tree[model])
        )
        if possible:
            rank = _rank(*relations[model, possible[0]])
            ordered.append((rank, -_similarity(pairs, model, possible[0]), -model, possible))
    links = [_Link()] * len(related)
    for *_, negative, possible in sorted(ordered, key=lambda row: row[:3]):
        model = -negative
        parent = next((other for other in possible if not _descends(links, other, model)), -1)
        if parent >= 0:
            relation, evidence = relations[model, parent]
            # Where the likeliest one is a descendant already, another one is an ancestor at best, not the parent.
            is_parent = relation == EARLIER and (parent == possible[0] or evidence in (_BY_EPOCH, _BY_PRETRAINING))
            links[model] = _Link(parent, evidence if is_parent else "")
    return links


def _descends(links: list[_Link], model: int, ancestor: int) -> bool:
    """Return whether a model is the other one or one of its descendants, by the links set so far."""
    while model >= 0:
        if model == ancestor:
            return True
        model = links[model].parent
    return False


def _preferred(
    model: int,
    others: list[int],
    pairs: Kinship,
    labels: _Labels,
    relations: dict[tuple[int, int], tuple[str, str]],
    next_to_root: int,
) -> list[int]:
    """Return the possible parents of a model, the likeliest first.

    These are the last earlier checkpoint of its training; else the data set's most similar model, if the model was
    pretrained; else the next one toward the root of the tree. Among several checkpoints of another training that are
    equally near, the last is the likeliest.
    """

    def key(other: int) -> tuple[float, float, float, int]:
        rank = _rank(*relations[model, other])
        first = -labels.epoch[other] if rank == 0 else -float(rank > 1 and other == next_to_root)
        return rank, first, -_similarity(pairs, model, other), other

    possible = sorted((other for other in others if relations[model, other][0] != LATER), key=key)
    if possible and _rank(*relations[model, possible[0]]):
        first = possible[0]
        near = [
            other
            for other in possible
            if key(other)[0] == key(first)[0]
            and _is_one_training(other, first, labels)
            and labels.epoch[other] > labels.epoch[first]
            and key(other)[2] <= key(first)[2] + _margin(pairs, first, other)
        ]
        if near:
            last = max(near, key=lambda other: labels.epoch[other])
            possible = [last, *(other for other in possible if other != last)]
    return possible


def _similarity(pairs: Kinship, model: int, other: int) -> float:
    """Return the similarity, −1 where no layers align."""
    value = float(pairs.similarity[model, other])
    return value if math.isfinite(value) else -1.0


def _rank(relation: str, evidence: str) -> int:
    """Return the order in which links are set: by labels, by weights, between trainings from scratch."""
    if relation == EARLIER and evidence in (_BY_EPOCH, _BY_PRETRAINING):
        return 0 if evidence == _BY_EPOCH else 1
    return 3 if relation == SIBLING else 2
