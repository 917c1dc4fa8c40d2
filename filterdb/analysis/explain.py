"""Why two groups drift: what of it each component, bin, model and layer makes, and what matched strata leave."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from filterdb.analysis.drift import drift
from filterdb.analysis.grouping import Grouping, Key, group
from filterdb.analysis.noise import BY_FEW_MODELS, BY_MODELS, FEW, TOO_FEW
from filterdb.analysis.question import Question
from filterdb.arguments import formerly_positional
from filterdb.errors import UsageError
from filterdb.numerics.divergence import symmetric_kl
from filterdb.numerics.modes import AnyMode
from filterdb.schema import UNKNOWN
from filterdb.store.database import AnyDatabase

_PARTS = 1_000
"""Models or layers left out at a time: 10 MB of histograms for each step."""


@formerly_positional("mode")
def explain(
    db: AnyDatabase,
    by: Key,
    a: str,
    b: str,
    *,
    mode: AnyMode = "sound",
    scaled: bool = True,
    match: str = "family",
) -> xr.Dataset:
    """Explain the drift D (kl) between two groups, from summaries: nothing is read again.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str
        What layers are grouped by.
    a, b : str
        Labels of the two groups.
    mode : {"sound", "paper"}
        As in `drift`.
    scaled : bool
        False: raw filters, without layers whose scale is unknown.
    match : str
        The column whose labels are the matched strata: those that both groups have, `unknown` aside.

    Returns
    -------
    xarray.Dataset
        - component_share (component), bin_share (component, bin): shares of D, at least 0, sum 1.
        - layer_share (layer), model_share (model): a layer's filters pull D by ⟨p − M, r⟩, its share of its group's
          filters times its distance, p, from the middle M = (P+Q)/2 along r = â(log P − log Q), negative in b.
          Negative: it pulls the groups together. They sum to 1 − rest_share, where the rest is what shrinking to π
          (`paper`: empty bins) takes.
        - without_model (model), without_layer (layer): D when the model is left out of both groups, or the layer of
          its own, by subtraction; NaN if it is all a group has. Basis, weights, range and π stay the snapshot's.
        - matched_drift, matched_few, matched_label (matched), matched_count (matched, side): of the matched strata.
        - within_matched: D between the two groups made of the matched strata alone, in the same mix on both sides,
          that of their filters together. left = D − within_matched: what the groups' different mix makes. NaN where
          nothing matches.
        - drift, and in `sound` mode what `drift` says of the noise of this pair: floor, …, verdict, interval (bound).
        - The attribute `summary` is a sentence.

    Raises
    ------
    UsageError
        For labels that are no groups.

    Notes
    -----
    D is a sum over components and bins of âᵢ(P−Q)(log P − log Q).
    """
    whole = Question.in_basis(db, by, mode, scaled=scaled)
    grouping = whole.grouping
    sides = [_position(grouping, label) for label in (a, b)]
    if sides[0] == sides[1]:
        raise UsageError(f"explain: expected two groups, got {a!r} twice")
    place = np.select([grouping.index == side for side in sides], [0, 1], -1)
    view = whole.db.keep(place >= 0, f"{grouping.by} = {a}, {b}")
    side = place[place >= 0]
    question = replace(whole, db=view, grouping=Grouping(grouping.by, [a, b], side, ordered=True))
    layers = question.layer_counts
    p, q = question.probabilities
    weighted = (p - q) * np.log(p / q) * question.weights[:, None]
    total = float(weighted.sum())
    scale = total or np.nan
    names = view.layers["model"].values.astype(str)
    labels, model = np.unique(names, return_inverse=True)
    of_layer = _pulls(question, layers, side) / scale
    number = np.zeros((len(labels), 2), np.int64)
    np.add.at(number, (model, side), view.layers["row_size"].values)
    both = drift(view, by, mode=whole.mode, scaled=scaled)
    of_pair = [name for name, values in both.data_vars.items() if values.dims[:2] == ("group", "other")]
    pair = both[of_pair].sel(group=a, other=b)
    result = xr.Dataset(
        {
            **{name: pair[name].variable for name in of_pair},
            "component_share": ("component", weighted.sum(axis=1) / scale),
            "bin_share": (("component", "bin"), weighted / scale),
            "layer_share": ("layer", of_layer),
            "layer_side": ("layer", np.array([a, b], object)[side]),
            "layer_count": ("layer", view.layers["row_size"].values),
            "model_share": ("model", np.bincount(model, of_layer)),
            "model_count": (("model", "side"), number),
            "without_model": ("model", _without(question, layers, side, model)),
            "without_layer": ("layer", _without(question, layers, side, np.arange(len(side)))),
            "rest_share": 1 - of_layer.sum(),
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


def _position(grouping: Grouping, label: str) -> int:
    if label not in grouping.labels:
        near = difflib.get_close_matches(label, grouping.labels, 1)
        hint = f"did you mean {near[0]!r}? There are" if near else "one of"
        there = ", ".join(grouping.labels[:12]) + (" …" if len(grouping.labels) > 12 else "")
        raise UsageError(f"{grouping.by}: expected a group, got {label!r}; {hint} {there}")
    return grouping.labels.index(label)


def _pulls(question: Question, layers: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Return what each layer's filters add to D, (layers,).

    It is linear in the layer's histogram, so that it sums over layers.
    """
    p, q = question.probabilities
    slope = question.weights[:, None] * np.log(p / q)
    middle = np.einsum("kb,kb->k", (p + q) / 2, slope)
    along = np.einsum("lkb,kb->lk", layers, slope) - layers.sum(axis=-1) * middle
    # The filters that probabilities are made of: in `sound` mode also the pseudo-filters.
    size = question.counts.sum(axis=-1) + question.mode.pseudo_filters
    pulls: np.ndarray = (along / size[side]).sum(axis=1) * np.where(side == 0, 1.0, -1.0)
    return pulls


def _between(question: Question, counts: np.ndarray) -> np.ndarray:
    """Return D of counts of both sides (…, 2, 9, 70), (…); NaN where a side has no filters."""
    probabilities = question.probabilities_of(counts)
    p, q = probabilities[..., 0, :, :], probabilities[..., 1, :, :]
    drift: np.ndarray = symmetric_kl(p, q) @ question.weights
    return np.where(counts.any(axis=(-2, -1)).all(axis=-1), np.maximum(drift, 0.0), np.nan)


def _without(question: Question, layers: np.ndarray, side: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return D without each part, (parts,): from both groups' histograms less what the part has in them.

    `part` (layers,) int: the part of each layer. Some parts at a time, so that memory does not grow with them.
    """
    drifts = np.empty(part.max() + 1)
    for start in range(0, len(drifts), _PARTS):
        some = (part >= start) & (part < start + _PARTS)
        own = np.zeros((min(_PARTS, len(drifts) - start), 2, *layers.shape[1:]), layers.dtype)
        np.add.at(own, (part[some] - start, side[some]), layers[some])
        drifts[start : start + _PARTS] = _between(question, question.counts - own)
    return drifts


def _matched(question: Question, layers: np.ndarray, side: np.ndarray, match: str, total: float) -> dict[str, Any]:
    """Return the drift within each stratum that both groups have, within all in the same mix, and the rest of D."""
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
        # Each side keeps its number of filters; each stratum gets the same share of it on both sides.
        mix = number.sum(axis=1, keepdims=True) / number.sum()
        times = mix * number.sum(axis=0) / number
        within = float(_between(question, (counts * times[:, :, None, None]).sum(axis=0)))
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
    text += f"; component {component} makes {float(result['component_share'][component]):.0%} of it"
    without = result["without_model"].values
    if np.isfinite(without).any():
        least = int(np.nanargmin(without))
        if without[least] < drift:
            text += f"; without model {result['model'].values[least]} it would be {without[least]:.3g}"
    within, number = float(result["within_matched"]), result.sizes["matched"]
    if np.isfinite(within):
        what = f"{result.attrs['match']} label{'s' if number > 1 else ''} that both have, in the same mix,"
        text += f"; within the {number} {what} it is {within:.3g}"
    return text + "."


def _verdict(result: xr.Dataset) -> str:
    """Return the verdict in brackets, with the floor that it is by."""
    verdict = str(result["verdict"].item()) if "verdict" in result else ""
    if not verdict:
        return ""
    if verdict == TOO_FEW:
        return f" (one has under {FEW:,} filters: no verdict)"
    if result["judged_by"].item() == BY_FEW_MODELS:
        return " (the models are too few to tell it from chance)"
    by_models = result["judged_by"].item() == BY_MODELS
    floor = float(result["model_floor_q95" if by_models else "floor_q95"])
    what = "noise of models" if by_models else "the models are too few to judge by, noise of filters alone"
    return f" ({verdict}: {what} reaches {floor:.3g})"
