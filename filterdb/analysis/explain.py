"""Explain the drift of two groups: shares of components, bins, models and layers, and the drift in matched strata."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.drift import drift
from filterdb.analysis.grouping import Grouping, Key, group
from filterdb.analysis.noise import FEW, FLOOR_BEHIND, REPLICATION
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.arguments import formerly_positional
from filterdb.errors import UsageError
from filterdb.numerics.divergence import symmetric_kl
from filterdb.numerics.modes import AnyMode
from filterdb.schema import UNKNOWN, AnyKernel
from filterdb.store.database import AnyDatabase, as_database
from filterdb.verdicts import BY_LAYERS, BY_MODELS, BY_SAMPLING, RELATED, TOO_FEW, sentence, verdict_of
from filterdb.wording import near

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NOISE = {
    BY_MODELS: "noise of models",
    BY_LAYERS: "swapping layers of the two models",
    BY_SAMPLING: "noise of filters alone",
}
"""The noise behind a verdict, by `judged_by`."""

_BATCH = 1_000
"""Models or layers that are left out in one batch: 10 MB of histograms."""


@formerly_positional("mode")
@returns_result
def explain(  # noqa: PLR0913 - the options of the command
    db: AnyDatabase,
    by: Key,
    a: str,
    b: str,
    *,
    mode: AnyMode = "sound",
    scaled: bool = True,
    match: str = "family",
    unit: str | None = None,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Split the drift D (kl) between two groups into the shares of components, bins, models and layers.

    Uses only summaries: no filter is read again.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str
        The labels by which layers are grouped.
    a, b : str
        Labels of the two groups.
    mode : {"sound", "paper"}
        As in `drift`. Default: "sound".
    scaled : bool
        False: raw filters, without layers whose scale is unknown. Default: True.
    match : str
        The column whose labels are the matched strata: those that both groups have, except `unknown`. Default:
        "family".
    unit : str, optional
        As in `drift`. Default: none.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims component, bin, layer, model, side (a, b), matched, float64 unless stated otherwise:

        - drift (): D. In `sound` mode also the noise of this pair as in `drift`: floor, …, verdict, interval (bound),
          and models, units, effective_units (side). The pair is tested alone, so its q-value is its p-value.
        - component_share (component) and bin_share (component, bin): shares of D, at least 0, with sum 1.
        - layer_share (layer) and model_share (model): shares of D; a negative one pulls the groups together. They sum
          to 1 − rest_share.
        - rest_share (): the share of shrinking to π (in `paper` mode: of empty bins).
        - without_model (model) and without_layer (layer): D without the model, or without the layer, by subtraction;
          NaN if a group has nothing else. Basis, weights, range and π stay the snapshot's.
        - layer_side (layer), str: the layer's group. layer_count (layer), model_count (model, side), count (side),
          int64: filters.
        - matched_drift (matched), matched_label (matched), str, matched_few (matched), bool, matched_count (matched,
          side), int64: the matched strata.
        - within_matched (): D of the matched strata alone, mixed on both sides as in their filters together; NaN if
          nothing matches.
        - left (): D − within_matched, the part that the groups' different mix explains.
        - Coordinates layer_model (layer), weights (component), bin_edges (edge).

        The attribute `summary` is a sentence.

    Raises
    ------
    UsageError
        For labels that are not groups, or the same label twice.

    Notes
    -----
    D is the sum over components i and bins of âᵢ (P − Q)(log P − log Q). With r = â (log P − log Q) and the middle
    M = (P + Q)/2, a layer with histogram p contributes ⟨p − M, r⟩ times its share of its group's filters, negated
    for b.

    Examples
    --------
    >>> result = fdb.explain(db, "task", "classification", "detection")
    >>> result["component_share"].values.round(2)
    array([0.58, 0.08, 0.01, 0.11, 0.16, 0.06, 0.  , 0.  , 0.  ])
    >>> result["model_share"].to_series().round(2).to_dict()
    {'classifier-1': 0.25, 'classifier-2': 0.25, 'detector-10': 0.25, 'detector-20': 0.25}
    """
    db = as_database(db, kernel=kernel)
    question = _two_groups(Question.in_basis(db, by, mode, scaled=scaled), a, b)
    view, side, layers = question.db, question.grouping.index, question.layer_counts
    p, q = question.probabilities
    weighted = (p - q) * np.log(p / q) * question.weights[:, None]
    total = float(weighted.sum())
    scale = total or np.nan
    names = view.layers["model"].values.astype(str)
    labels, model = np.unique(names, return_inverse=True)
    layer_share = _contributions(question, layers, side) / scale
    number = np.zeros((len(labels), 2), np.int64)
    np.add.at(number, (model, side), view.layers["row_size"].values)
    both = drift(view, by, mode=question.mode, scaled=scaled, unit=unit)
    pairwise = [name for name, values in both.data_vars.items() if values.dims[:2] == ("group", "other")]
    pair = both[pairwise].sel(group=a, other=b)
    result = xr.Dataset(
        {
            **{name: pair[name].variable for name in pairwise},
            **{name: ("side", both[name].sel(group=[a, b]).values) for name in REPLICATION if name in both},
            "component_share": ("component", weighted.sum(axis=1) / scale),
            "bin_share": (("component", "bin"), weighted / scale),
            "layer_share": ("layer", layer_share),
            "layer_side": ("layer", np.array([a, b], object)[side]),
            "layer_count": ("layer", view.layers["row_size"].values),
            "model_share": ("model", np.bincount(model, layer_share)),
            "model_count": (("model", "side"), number),
            "without_model": ("model", _without(question, layers, side, model)),
            "without_layer": ("layer", _without(question, layers, side, np.arange(len(side)))),
            "rest_share": 1 - layer_share.sum(),
            "count": ("side", number.sum(axis=0)),
            **_matched(question, layers, side, match, total),
        },
        coords={
            "side": [a, b],
            "model": labels,
            "layer": view.layers["layer"].values,
            "layer_model": ("layer", names),
            "weights": ("component", question.weights),
            "bin_edges": ("edge", question.edges),
        },
        attrs={
            **{key: value for key, value in pair.attrs.items() if key not in {"metric", "formula"}},
            "match": match,
            "formula": "sum_i a_i sum_b (P-Q)(log P - log Q) and its terms",
        },
    )
    result.attrs["summary"] = _summary(result)
    return result


def _two_groups(question: Question, a: str, b: str) -> Question:
    """Return the question about two of its groups alone."""
    grouping = question.grouping
    sides = [_position(grouping, label) for label in (a, b)]
    if sides[0] == sides[1]:
        raise UsageError(f"explain: expected two groups, got {a!r} twice")
    side = np.select([grouping.index == position for position in sides], [0, 1], -1)
    view = question.db.keep(side >= 0, f"{grouping.by} = {a}, {b}")
    return replace(question, db=view, grouping=Grouping(grouping.by, [a, b], side[side >= 0], ordered=True))


def _position(grouping: Grouping, label: str) -> int:
    """Return the position of a label among the groups; raise UsageError, with a similar label, if it is no group."""
    if label not in grouping.labels:
        guess = near(label, grouping.labels)
        hint = f"did you mean {guess!r}? There are" if guess else "one of"
        labels = ", ".join(grouping.labels[:12]) + (" …" if len(grouping.labels) > 12 else "")
        raise UsageError(f"{grouping.by}: expected a group, got {label!r}; {hint} {labels}")
    return grouping.labels.index(label)


def _contributions(question: Question, layers: Ints, side: Ints) -> Floats:
    """Return the contribution of each layer's filters to D, (layers,).

    A contribution is linear in the layer's histogram, so it can be summed over layers.
    """
    p, q = question.probabilities
    slope = question.weights[:, None] * np.log(p / q)
    middle = np.einsum("kb,kb->k", (p + q) / 2, slope)
    along = np.einsum("lkb,kb->lk", layers, slope) - layers.sum(axis=-1) * middle
    # The denominators of the probabilities: in `sound` mode they include the pseudo-filters.
    size = question.counts.sum(axis=-1) + question.mode.pseudo_filters
    contributions: Floats = (along / size[side]).sum(axis=1) * np.where(side == 0, 1.0, -1.0)
    return contributions


def _between(question: Question, counts: Ints | Floats) -> Floats:
    """Return D, (…), of counts of both sides (…, 2, K, 70); NaN if a side has no filters."""
    probabilities = question.probabilities_of(counts)
    p, q = probabilities[..., 0, :, :], probabilities[..., 1, :, :]
    drift: Floats = symmetric_kl(p, q) @ question.weights
    return np.where(counts.any(axis=(-2, -1)).all(axis=-1), np.maximum(drift, 0.0), np.nan)


def _without(question: Question, layers: Ints, side: Ints, part: Ints) -> Floats:
    """Return D without each part, (parts,), by subtracting the part's histograms from those of both groups.

    `part` (layers,) is the part of each layer. Parts are processed in batches, so that memory stays bounded.
    """
    drifts = np.empty(part.max() + 1)
    for start in range(0, len(drifts), _BATCH):
        some = (part >= start) & (part < start + _BATCH)
        own = np.zeros((min(_BATCH, len(drifts) - start), 2, *layers.shape[1:]), layers.dtype)
        np.add.at(own, (part[some] - start, side[some]), layers[some])
        drifts[start : start + _BATCH] = _between(question, question.counts - own)
    return drifts


def _matched(question: Question, layers: Ints, side: Ints, match: str, total: float) -> dict[str, Any]:
    """Return the drift within each stratum that both groups have, within all of them together, and the rest of D."""
    strata = group(question.db, match, question.mode)
    labels, stratum = np.array(strata.labels, dtype=str), strata.index
    counts = np.zeros((len(labels), 2, *layers.shape[1:]), layers.dtype)
    np.add.at(counts, (stratum, side), layers)
    number = np.zeros((len(labels), 2), np.int64)
    np.add.at(number, (stratum, side), question.db.layers["row_size"].values)
    known = (number > 0).all(axis=1) & (labels != UNKNOWN)
    counts, number = counts[known], number[known]
    within = np.nan
    if known.any():
        # Each side keeps its number of filters, and each stratum has the same share of them on both sides.
        mix = number.sum(axis=1, keepdims=True) / number.sum()
        factor = mix * number.sum(axis=0) / number
        within = float(_between(question, (counts * factor[:, :, None, None]).sum(axis=0)))
    return {
        "matched_drift": ("matched", _between(question, counts)),
        "matched_count": (("matched", "side"), number),
        "matched_few": ("matched", (number < FEW).any(axis=1)),
        "matched_label": ("matched", labels[known].astype(object)),
        "within_matched": within,
        "left": total - within,
    }


def _summary(result: xr.Dataset) -> str:
    """Describe the result in a sentence."""
    a, b = result["side"].values.tolist()
    drift = float(result["drift"])
    if drift == 0:
        return f"{a} and {b} do not drift at all."
    text = f"{a} and {b} drift by {drift:.3g}{_verdict(result)}"
    component = int(result["component_share"].values.argmax())
    text += f"; component {component} accounts for {float(result['component_share'][component]):.0%} of it"
    without = result["without_model"].values
    if np.isfinite(without).any():
        least = int(np.nanargmin(without))
        if without[least] < drift:
            text += f"; without model {result['model'].values[least]} it would be {without[least]:.3g}"
    within, number = float(result["within_matched"]), result.sizes["matched"]
    if np.isfinite(within):
        what = f"{result.attrs['match']} label{'s' if number > 1 else ''} that both have, with the same mix,"
        text += f"; within the {number} {what} it is {within:.3g}"
    return text + "."


def _verdict(result: xr.Dataset) -> str:
    """Return the verdict in brackets, with the floor behind it."""
    verdict = str(result["verdict"].item()) if "verdict" in result else ""
    if not verdict:
        return ""
    judged_by = str(result["judged_by"].item())
    if verdict == RELATED:
        why = f"independent filters would drift by {float(result['floor']):.3g}"
    elif verdict == TOO_FEW or judged_by not in _NOISE:
        why = _clause(sentence(verdict, judged_by))
    else:
        why = f"{_NOISE[judged_by]} reaches {float(result[FLOOR_BEHIND[judged_by]]):.3g}"
        if judged_by != BY_MODELS:
            why = f"{_clause(sentence(verdict, judged_by))}; {why}"
    return f" ({verdict_of(verdict).text}: {why})"


def _clause(text: str) -> str:
    """Return a sentence as a part of another one."""
    return text[0].lower() + text[1:].removesuffix(".")
