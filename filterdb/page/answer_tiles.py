"""Build the answer card: a tile for each question that readers of the page ask first.

What is flagged, which pairs of groups are farthest and closest, which model is the odd one out, and whether the numbers
can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr

from filterdb.analysis.noise import FEW
from filterdb.analysis.rules import Rules, fewest_directions
from filterdb.numerics.divergence import symmetric_kl
from filterdb.page.first_filters import read_filters
from filterdb.page.highlights import MANY, address, farthest, floor_behind, judged
from filterdb.page.results import Results
from filterdb.plotting.box_numbers import pairs
from filterdb.plotting.drawing import visible
from filterdb.verdicts import BY_FILTERS, DIFFERENT, JUDGED_BY, TOO_FEW, VERDICTS, Verdict, sentence, verdict_of
from filterdb.wording import counted

State = Literal["good", "warn", "unknown"]

SIGNS: dict[State, str] = {"good": "✓", "warn": "!", "unknown": "?"}
"""The symbol of each state, so that colour is never the only sign."""

STATE_OF_TONE: dict[str, State] = {"bad": "warn", "neutral": "unknown", "unknown": "unknown"}
"""The state of a tile about a pair of groups, by the tone of its verdict."""

CANNOT_TELL = verdict_of(None).word

DOUBTFUL = "differs, but as the largest of all pairs may do so by chance"
"""What is said of a pair that differs and is not named: chance explains the largest of all drifts (`is_telling`)."""

MEANT = {
    "dead": "all weights are zero",
    "collapsed": "the filters are nearly multiples of a few",
    "random": "the filters cannot be distinguished from noise",
    "sparse": "most filters are near zero",
}
"""What each verdict of a layer means, in the few words that a tile has room for."""

SEVERITY = tuple(MEANT)
"""Verdicts of layers, the most severe first."""

MODELS_SHOWN, FILTERS_SHOWN, CELLS = 3, 10, 24
"""Flagged models with a picture, filters in it, and most cells of a strip."""

FEWEST_FOR_OUTLIER = 4
"""Fewest models with enough filters among which one can be called the odd one out."""

PREFERRED = ("task", "family", "model", "visual_category", "training_dataset", "depth_decile")
"""The groupings of which a pair is shown, in the order of preference."""


@dataclass(frozen=True, slots=True)
class Line:
    """Hold a line of a tile: its sign and text, and where it leads."""

    text: str
    state: State | None = None
    name: str = ""
    href: str = ""

    @property
    def sign(self) -> str:
        """The symbol of the state."""
        return SIGNS[self.state] if self.state else ""


@dataclass(frozen=True, slots=True)
class Tile:
    """Hold a question, its answer, and the data of its picture.

    `names` are the groups or models that the answer is about; `picture` is drawn by the summary's script.
    """

    key: str
    question: str
    state: State
    word: str
    answer: str
    sign: str = ""
    names: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    note: str = ""
    link: tuple[str, str] | None = None
    picture: dict[str, Any] = field(default_factory=dict)
    are_models: bool = False
    """Whether the names are those of models, which lead to their pages."""

    @property
    def symbol(self) -> str:
        """The symbol of the state, or that of a verdict."""
        return self.sign or SIGNS[self.state]


def answer_tiles(results: Results, by: str | None) -> list[Tile]:
    """Return the tiles, the most urgent question first. `by` is the grouping of the pairs, as of `grouping`."""
    return [_flagged(results), _trust(results, by), *_pair_tiles(results, by), _outlier(results)]


def grouping(results: Results) -> str | None:
    """Return the grouping whose pairs are shown: where a pair differs, else where there are pairs to compare."""
    present = [by for by in PREFERRED if by in results.drifts]
    for wanted in (_number_differing, lambda result: _number_comparable(result) > 1, _number_comparable):
        for by in present:
            if wanted(results.drifts[by]):
                return by
    return None


def _number_differing(result: xr.Dataset) -> int:
    return int((result["verdict"].values == DIFFERENT).sum()) if "verdict" in result else 0


def _comparable(result: xr.Dataset) -> np.ndarray:
    """Return the pairs (group, other) of which both have enough filters, each once."""
    enough = ~result["few"].values
    return np.triu(enough[:, None] & enough & np.isfinite(result["drift"].values), 1)


def _number_comparable(result: xr.Dataset) -> int:
    return int(_comparable(result).sum())


def _flagged(results: Results) -> Tile:
    """Answer which layers have a verdict: by model, the most severe first."""
    result, question = results.degeneration, "What is flagged?"
    rules, hits = result["rule"].values.astype(str), result["verdict"].values.astype(bool)
    rank = np.array([SEVERITY.index(rule) if rule in SEVERITY else len(SEVERITY) for rule in rules])
    worst = np.where(hits, rank, len(SEVERITY) + 1).min(axis=1)
    flagged = np.flatnonzero(hits.any(axis=1))
    if not len(flagged):
        judged = int(result["scale_known"].values.sum())
        if not judged:
            return Tile("flagged", question, "unknown", CANNOT_TELL, "No layer could be judged.")
        return _nothing_flagged(results, question, judged)
    models = result["layer_model"].values.astype(str)
    of_model: dict[str, list[int]] = {}
    for layer in flagged[np.lexsort((flagged, worst[flagged]))].tolist():
        of_model.setdefault(models[layer], []).append(layer)
    ranked = sorted(of_model.items(), key=lambda item: (worst[item[1][0]], -len(item[1])))
    shown = ranked[:MODELS_SHOWN]
    lines = [
        Line(
            f"{visible(result['layer_name'].values[layers[0]])}: {', '.join(rules[hits[layers[0]]])}"
            + _evidence(results, layers[0], SEVERITY[worst[layers[0]]])
            + (f"; {counted(len(layers) - 1, 'more layer')} flagged" if len(layers) > 1 else ""),
            name=visible(model),
            href=f"model.html#{results.db.layers['model_index'].values[layers[0]]}",
        )
        for model, layers in shown
    ]
    kinds = [f"{int(number):,} {rule}" for rule, number in zip(rules, hits.sum(axis=0), strict=True) if number]
    left = len(ranked) - len(shown)
    return Tile(
        "flagged",
        question,
        "warn",
        counted(len(flagged), "layer"),
        f"{len(flagged):,} of {counted(len(models), 'layer')} in {len(ranked):,} of "
        f"{counted(len(np.unique(models)), 'model')}: {', '.join(kinds)}.",
        lines=tuple(lines),
        note=_meanings(rules[hits.any(axis=0)].tolist(), left, overlap=bool((hits.sum(axis=1) > 1).any())),
        link=("See the layers", address("layers")),
        picture={"filters": _filters(results, [layers[0] for _, layers in shown])},
    )


def _evidence(results: Results, layer: int, rule: str) -> str:
    """Return the number behind the most severe verdict of a layer, in parentheses; nothing for dead layers."""
    result, weights = results.degeneration, results.db.weights
    entropy, sparsity, p = (float(result[name].values[layer]) for name in ("variance_entropy", "sparsity", "p_value"))
    is_narrow = 10**entropy < fewest_directions(Rules().collapsed, weights)
    texts = {
        "collapsed": f" (uses {10**entropy:.2g} of {weights} directions)"
        if is_narrow
        else " (its filters are nearly equal)",
        "sparse": f" ({sparsity:.0%} of its filters near zero)",
        "random": f" (p = {p:.2g})" if np.isfinite(p) else "",
    }
    return texts.get(rule, "")


def _nothing_flagged(results: Results, question: str, judged: int) -> Tile:
    """Return the tile of layers without verdicts, with the filters of the first layer of the largest models."""
    result = results.degeneration
    models, first, index = np.unique(result["layer_model"].values.astype(str), return_index=True, return_inverse=True)
    sizes = np.bincount(index, result["filters"].values)
    largest = np.argsort(-sizes, kind="stable")[: MODELS_SHOWN - 1]
    return Tile(
        "flagged",
        question,
        "good",
        "nothing",
        f"None of {counted(judged, 'layer')} is dead, sparse, collapsed or random.",
        lines=tuple(
            Line(
                f"{visible(result['layer_name'].values[first[i]])}, its first filters",
                name=visible(models[i]),
                href=address("layers", layers=visible(models[i])),
            )
            for i in largest
        ),
        link=("See the layers", address("layers")),
        picture={"filters": _filters(results, [int(first[i]) for i in largest])},
    )


def _meanings(verdicts: list[str], left: int, *, overlap: bool) -> str:
    """Say what verdicts mean, in the order of severity, and how many models are not named."""
    texts = [f"The most severe first; {counted(left, 'more model')} in the table."] if left else []
    texts += [f"{rule.capitalize()}: {MEANT[rule]}." for rule in SEVERITY if rule in verdicts]
    return " ".join([*texts, *(["A layer can have several verdicts."] if overlap else [])])


def _filters(results: Results, layers: list[int]) -> list[list[list[int]]]:
    """Return the first filters of some layers, each layer scaled to its largest weight, as integers up to ±99."""
    shown = []
    for filters in read_filters(results.db, np.array(layers, np.int64), FILTERS_SHOWN):
        whole = filters[np.isfinite(filters).all(axis=1)]
        largest = np.abs(whole).max(initial=0.0) or 1.0
        shown.append(np.rint(99 * whole / largest).astype(int).tolist())
    return shown


def _pair_tiles(results: Results, by: str | None) -> list[Tile]:
    """Answer which pair of groups is farthest and which is closest."""
    if by is None:
        answer = "There are no two groups with enough filters to compare."
        return [Tile("farthest", "Farthest pair", "unknown", CANNOT_TELL, answer)]
    result = results.drifts[by]
    comparable = _comparable(result)
    values = np.where(comparable, result["drift"].values, np.nan)
    named = farthest(result)
    far = named or np.unravel_index(int(np.nanargmax(values)), values.shape)
    near = np.unravel_index(int(np.nanargmin(values)), values.shape)
    tiles = [_pair_tile(result, "farthest", f"Farthest {MANY[by]}", (int(far[0]), int(far[1])))]
    if comparable.sum() > 1:
        tiles.append(_pair_tile(result, "closest", f"Closest {MANY[by]}", (int(near[0]), int(near[1]))))
    return tiles


def _pair_tile(result: xr.Dataset, key: str, question: str, pair: tuple[int, int]) -> Tile:
    """Return the tile of a pair of groups: names, verdict, ruler, and the histograms of its main component."""
    by, (i, j) = str(result.attrs["by"]), pair
    a, b = (visible(result["group"].values[k]) for k in pair)
    verdict, judged_by = _verdict(result, i, j)
    p, q = (result["probabilities"].values[k] for k in pair)
    parts = result["weights"].values * symmetric_kl(p, q)
    component = int(np.argmax(parts))
    drift = float(result["drift"].values[i, j])
    return Tile(
        key,
        question,
        STATE_OF_TONE[verdict.tone],
        verdict.word,
        f"D = {drift:.2g}",
        sign=verdict.symbol,
        names=(a, b),
        are_models=by == "model",
        lines=(Line(sentence(verdict.code, judged_by)),),
        note=_exclusions(result, key, pair),
        link=("Compare the two", address("drift", by=by, a=a, b=b)),
        picture={
            "drift": drift,
            "floor": floor_behind(result, i, j),
            "judged": JUDGED_BY.index(judged_by) if judged_by in JUDGED_BY else 0,
            "largest": float(np.nanmax(result["drift"].values)),
            "component": component,
            "share": float(parts[component] / (parts.sum() or 1.0)),
            "p": [round(float(value), 5) for value in p[component]],
            "q": [round(float(value), 5) for value in q[component]],
        },
    )


def _verdict(result: xr.Dataset, i: int, j: int) -> tuple[Verdict, str]:
    """Return the verdict of a pair and what it is judged by."""
    if "verdict" not in result:
        return verdict_of(None), ""
    return verdict_of(str(result["verdict"].values[i, j])), str(result["judged_by"].values[i, j])


def _exclusions(result: xr.Dataset, key: str, pair: tuple[int, int]) -> str:
    """Say among which groups a pair has the largest or smallest drift, and why larger drifts are not named."""
    by = str(result.attrs["by"])
    few = int(result["few"].sum())
    larger = _larger(result, pair) if key == "farthest" else {}
    what = "largest D" if key == "farthest" else "smallest D"
    if larger:
        what += " that differs beyond doubt" if DOUBTFUL in larger else " that differs"
        if _verdict(result, *pair)[0].code == BY_FILTERS:
            what = "largest D that is more than chance between these filters"
    among = f"the {result.sizes['group'] - few:,} {MANY[by]} of at least 1,000 filters" if few else f"all {MANY[by]}"
    text = f"The {what} among {among}"
    if few:
        text += f"; {_left_out(few)}"
    if larger:
        number = sum(larger.values())
        verdicts = ", ".join(f"{of_word:,} {word}" for word, of_word in larger.items())
        text += f"; {counted(number, 'pair')} {'has' if number == 1 else 'have'} a larger D: {verdicts}"
    return f"{text}."


def _left_out(few: int) -> str:
    return f"{few:,} smaller {'one is' if few == 1 else 'ones are'} left out"


def _larger(result: xr.Dataset, pair: tuple[int, int]) -> dict[str, int]:
    """Return the number of pairs with a larger drift than a pair by the word of their verdict."""
    is_larger = _comparable(result) & (result["drift"].values > result["drift"].values[pair])
    numbers: dict[str, int] = {}
    for i, j in np.argwhere(is_larger).tolist():
        verdict = _verdict(result, i, j)[0]
        word = DOUBTFUL if verdict.code == DIFFERENT else verdict.word
        numbers[word] = numbers.get(word, 0) + 1
    return dict(sorted(numbers.items()))


def _outlier(results: Results) -> Tile:
    """Answer which model is farthest from the others, and whether it stands out."""
    question, result = "Odd one out", results.drifts.get("model")
    enough = np.empty(0, bool) if result is None else ~result["few"].values
    if result is None or enough.sum() < FEWEST_FOR_OUTLIER:
        number = int((results.db.models["filters"].values >= FEW).sum())
        answer = f"This needs {FEWEST_FOR_OUTLIER} models of at least 1,000 filters; there {_are(number)}."
        if number >= FEWEST_FOR_OUTLIER:
            note = results.notes.get("model", "is not compared here")
            answer = f"Models are not compared: the grouping by model {note}."
        return Tile("outlier", question, "unknown", CANNOT_TELL, answer)
    values = result["drift"].values[np.ix_(enough, enough)]
    other = ~np.eye(len(values), dtype=bool)
    rows = np.array([np.sort(row[keep]) for row, keep in zip(values, other, strict=True)])
    medians = np.median(rows, axis=1)
    most, typical = int(np.argmax(medians)), int(np.argsort(medians)[len(medians) // 2])
    low, high = np.quantile(medians, (0.25, 0.75))
    is_far = bool(medians[most] > high + 1.5 * (high - low))
    stands_out = is_far and _mostly_beyond_chance(result, int(np.flatnonzero(enough)[most]))
    name = visible(result["group"].values[enough][most])
    few = int((~enough).sum())
    notes = [f"Among the {enough.sum():,} models of at least 1,000 filters; {_left_out(few)}."] if few else []
    notes += ["Chance explains most of its drifts."] if is_far and not stands_out else []
    notes.append("Each cell is the D to another model; yellow is far.")
    cells = np.unique(np.linspace(0, rows.shape[1] - 1, min(CELLS, rows.shape[1])).round().astype(int))
    return Tile(
        "outlier",
        question,
        "warn" if stands_out else "good",
        "stands out" if stands_out else "none stands out",
        f"{'Far' if is_far else 'Farthest, but not by much,'} from the others: median D {medians[most]:.2g}; "
        f"for a typical model it is {np.median(medians):.2g}.",
        names=(name,),
        are_models=True,
        note=" ".join(notes),
        link=("See all models", address("drift", by="model")),
        picture={
            "rows": [[float(f"{value:.4g}") for value in rows[i, cells]] for i in (most, typical)],
            "largest": float(np.nanmax(values)),
        },
    )


def _mostly_beyond_chance(result: xr.Dataset, model: int) -> bool:
    """Return whether most of a model's drifts are larger than chance explains; True where no noise was computed."""
    if "verdict" not in result:
        return True
    codes = np.delete(result["verdict"].values[model].astype(str), model)
    codes = codes[~np.isin(codes, ["", TOO_FEW])]
    return not len(codes) or bool(np.isin(codes, [DIFFERENT, BY_FILTERS]).mean() > 0.5)


def _are(number: int) -> str:
    return f"is {number:,}" if number == 1 else f"are {number:,}"


def _trust(results: Results, by: str | None) -> Tile:
    """Answer how far the numbers of the page can be trusted: noise, sizes, basis, what was not read."""
    lines = [_size_line(results, by), _basis_line(results), _unread_line(results)]
    words = dict.fromkeys((verdict.word for verdict in VERDICTS), 0)
    total = 0
    if by is not None and "verdict" in results.drifts[by]:
        codes = pairs(results.drifts[by]["verdict"].values)
        total = len(codes)
        for verdict in VERDICTS:
            words[verdict.word] += int((codes == verdict.code).sum())
    judgeable = total - words[verdict_of(None).word]
    groups = "groups" if by is None else MANY[by]
    if not judgeable:
        state: State = "unknown"
        word, answer = "these filters only", f"For these filters, not for {groups} in general."
        reason = f"Too few models or filters for a verdict on any pair of {groups}"
        if by is not None and "verdict" not in results.drifts[by]:
            reason = "No noise was computed, so it is unknown which drifts chance explains"
        lines.insert(0, Line(reason, "unknown"))
    else:
        if not judged(results.drifts[by or ""]).any():
            lines.insert(0, Line("Judged by the number of filters alone: too few models to generalise", "warn"))
        state = "warn" if any(line.state == "warn" for line in lines) else "good"
        word = "yes" if state == "good" else "with care"
        share = f"All {counted(total, 'pair')}" if judgeable == total else f"{judgeable:,} of {counted(total, 'pair')}"
        differ = words[verdict_of(DIFFERENT).word]
        outcome = "none differs" if not differ else "all differ" if differ == judgeable else f"{differ:,} differ"
        answer = f"{share} of {groups} can be judged: {outcome}."
        if judgeable < total:
            answer = f"For these filters, yes. In general, {share} of {groups} can be judged: {outcome}."
    return Tile(
        "trust",
        "Can I trust the numbers?",
        state,
        word,
        answer,
        lines=tuple(line for line in lines if line.text),
        link=("How it was judged", address("drift", by=by or "")),
        picture={"words": [[word, number] for word, number in words.items() if number]},
    )


def _size_line(results: Results, by: str | None) -> Line:
    counts = results.db.counts
    result = results.drifts.get(by or "")
    few = 0 if result is None else int(result["few"].sum())
    if result is not None and few:
        have = "has" if few == 1 else "have"
        return Line(f"{few:,} of {result.sizes['group']:,} {MANY[by or '']} {have} fewer than 1,000 filters", "warn")
    return Line(f"{counts['filters']:,} filters in {counted(counts['layers'], 'layer')}", "good")


def _basis_line(results: Results) -> Line:
    warning = next(filter(None, (result.attrs.get("basis_warning", "") for result in results.drifts.values())), "")
    if warning:
        return Line("The basis is stale; see the warning above", "warn")
    ratios = np.cumsum(results.basis["explained_variance_ratio"].values[0])
    if not ratios[-1] > 0:
        return Line("The filters have no variance, so there are no components", "warn")
    need = int(np.searchsorted(ratios, 0.9)) + 1
    return Line(
        f"Basis: {need} of {len(ratios)} components hold {ratios[need - 1]:.0%} of the variance",
        href=address("basis"),
    )


def _unread_line(results: Results) -> Line:
    number = results.unread.sizes["skipped"]
    if number:
        return Line(f"{counted(number, 'convolution')} could not be read", "warn", href=address("contents"))
    return Line("No convolution was unreadable", "good")
