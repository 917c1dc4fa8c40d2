"""Rank models by their drift from a file over all kernel shapes that both have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from filterdb.analysis.compared_shape import Compared, Variables
from filterdb.analysis.noise import FEW
from filterdb.numerics.sampling import Z_RELATED
from filterdb.verdicts import BY_FILTERS, BY_LAYERS, BY_SAMPLING, INDISTINGUISHABLE, RELATED, TOO_FEW

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ENOUGH = 0.5
"""Least share of the file's weights in shapes that a model has too, for the model to be ranked with the others."""

_OF_SHAPES = ("drift", "excess", "floor", "floor_q95", "count", "verdict")
"""The variables of a shape that are in the result for each shape."""


def over_shapes(compared: Sequence[Compared], leading: Compared, n: int) -> tuple[list[str], Variables]:
    """Return the ids of the first `n` models, and their variables along `model`; see `nearest`.

    `leading` is the shape whose components, swaps and deciles are in the result.
    """
    names = list(dict.fromkeys(name for shape in compared for name in shape.positions))
    few, used = _used(compared, names)
    file_weights = np.array([shape.file_filters * shape.question.db.weights for shape in compared], np.float64)
    weights = np.where(used, file_weights[:, None], 0.0)
    share = weights.sum(axis=0) / file_weights.sum()
    combined = {
        "drift": _mean(weights, [_of(shape, shape.drift, names) for shape in compared]),
        "floor": _mean(weights, [_of(shape, shape.floors.mean, names) for shape in compared]),
        "floor_q95": _mean(weights, [_of(shape, shape.floors.q95, names) for shape in compared]),
        "related_below": _mean(weights, [_of(shape, shape.floors.quantile(Z_RELATED), names) for shape in compared]),
    }
    combined["excess"] = combined["drift"] - combined["floor"]
    order = np.lexsort((combined["drift"], combined["excess"], share < ENOUGH, few))[:n]
    chosen = [names[model] for model in order]
    by_shape = [_variables(shape, chosen) for shape in compared]
    verdict, judged_by = _verdicts(by_shape, used[:, order])
    of_leading = by_shape[[shape is leading for shape in compared].index(True)]
    count = np.where(used, [_of(shape, shape.count, names) for shape in compared], 0).sum(axis=0).astype(np.int64)
    model = ("model",)
    variables: Variables = {
        **of_leading,
        **{name: (model, values[order], of_leading[name][2]) for name, values in combined.items()},
        "verdict": (model, verdict),
        "judged_by": (model, judged_by),
        "closer_than_noise": (model, (combined["drift"] <= combined["floor_q95"])[order]),
        "count": (model, count[order], {"long_name": "number of filters"}),
        "few": (model, few[order]),
        "compared_share": (model, share[order], {"long_name": "share of the file's weights that is compared"}),
    }
    for name in _OF_SHAPES:
        variables[f"shape_{name}"] = (("shape", "model"), np.stack([own[name][1] for own in by_shape]))
    return chosen, variables


def _used(compared: Sequence[Compared], names: Sequence[str]) -> tuple[Bools, Bools]:
    """Return which models have too few filters in every shape, (models,), and which shapes count, (shapes, models).

    Those count of which file and model have enough filters, or all that both have if there is no such shape.
    """
    counts = np.array([_of(shape, shape.count, names) for shape in compared])
    has = counts > 0
    enough = (counts >= FEW) & (np.array([shape.file_filters for shape in compared]) >= FEW)[:, None]
    few = ~enough.any(axis=0)
    return few, np.where(few, has, enough)


def _of(shape: Compared, values: npt.NDArray[np.generic], names: Sequence[str]) -> Floats:
    """Return a number of each model in one shape, NaN where it has no such filters."""
    return np.array(
        [values[shape.positions[name]] if name in shape.positions else np.nan for name in names], np.float64
    )


def _mean(weights: Floats, values: Sequence[Floats]) -> Floats:
    """Return the weighted mean over shapes of numbers (shapes, models); a weight of 0 hides a NaN."""
    total: Floats = np.where(weights > 0, weights * np.array(values), 0.0).sum(axis=0) / weights.sum(axis=0)
    return total


def _variables(shape: Compared, names: Sequence[str]) -> Variables:
    """Return the variables of models in one shape: NaN, 0 or an empty text where a model has no such filters."""
    order = np.array([shape.positions[name] for name in names if name in shape.positions], np.int64)
    places = [place for place, name in enumerate(names) if name in shape.positions]
    spread: Variables = {}
    for name, (dims, values, *attrs) in {**shape.variables(order), **shape.by_decile(order)}.items():
        axis = dims.index("model")
        missing = {"f": np.nan, "O": "", "i": 0, "b": False}[values.dtype.kind]
        full = np.full((*values.shape[:axis], len(names), *values.shape[axis + 1 :]), missing, values.dtype)
        full[(slice(None),) * axis + (places,)] = values
        spread[name] = (dims, full, *(attrs or [{}]))
    return spread


def _verdicts(by_shape: Sequence[Variables], used: Bools) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """Return verdict and `judged_by` of models over the shapes that count, (models,) each."""
    verdicts = np.where(used, [own["verdict"][1] for own in by_shape], "")
    by_layers = np.where(used, [own["judged_by"][1] for own in by_shape], BY_LAYERS) == BY_LAYERS
    few = ((verdicts == TOO_FEW) | (verdicts == "")).all(axis=0)
    same = ((verdicts == INDISTINGUISHABLE) | (verdicts == "")).all(axis=0)
    verdict = np.where(same, INDISTINGUISHABLE, BY_FILTERS).astype(object)
    verdict[(verdicts == RELATED).any(axis=0)] = RELATED
    verdict[few] = TOO_FEW
    return verdict, np.where(by_layers.all(axis=0), BY_LAYERS, BY_SAMPLING).astype(object)
