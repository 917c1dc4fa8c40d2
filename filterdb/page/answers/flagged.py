"""Answer which layers are flagged."""

from __future__ import annotations

import numpy as np

from filterdb.analysis.findings import MEANINGS
from filterdb.analysis.rules import Rules, fewest_directions
from filterdb.page.answers.tile import CANNOT_TELL, Line, Tile
from filterdb.page.first_filters import read_filters
from filterdb.page.highlights import address
from filterdb.page.results import Results
from filterdb.plotting.drawing import visible
from filterdb.wording import counted

SEVERITY = ("dead", "collapsed", "random", "sparse")
"""Verdicts of layers, the most severe first."""

MODELS_SHOWN, FILTERS_SHOWN = 3, 10
"""Flagged models with a picture, and filters in it."""


def flagged_tile(results: Results) -> Tile:
    """Answer which layers have a verdict: by model, the most severe first."""
    result, question = results.degeneration, "What is flagged?"
    rules, hits = result["rule"].values.astype(str), result["verdict"].values.astype(bool)
    rank = np.array([_severity(rule) for rule in rules])
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
    shown = _examples(ranked, worst)
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
    number_of = dict(zip(rules.tolist(), hits.sum(axis=0).tolist(), strict=True))
    kinds = [(rule, number_of[rule]) for rule in sorted(number_of, key=_severity) if number_of[rule]]
    (worst_rule, number), *others = kinds
    answer = f"{counted(number, 'layer')} {'is' if number == 1 else 'are'} {worst_rule}"
    has_several = bool((hits.sum(axis=1) > 1).any())
    several = "; some have several verdicts" if has_several else ""
    scope = (
        f"{len(flagged):,} of {counted(len(models), 'layer')}, in {len(ranked):,} of "
        f"{counted(len(np.unique(models)), 'model')}{several}."
    )
    left = len(ranked) - len(shown)
    return Tile(
        "flagged",
        question,
        "warn",
        counted(len(flagged), "layer"),
        ", ".join([answer, *(f"{number:,} {rule}" for rule, number in others)])
        + (f"; {len(flagged):,} in all." if has_several else "."),
        lines=tuple(lines),
        note=f"{scope} {_meanings(rules[hits.any(axis=0)].tolist(), left)}",
        link=("See the layers", address("layers")),
        picture={"filters": _filters(results, [layers[0] for _, layers in shown])},
    )


def _severity(rule: str) -> int:
    return SEVERITY.index(rule) if rule in SEVERITY else len(SEVERITY)


def _examples(ranked: list[tuple[str, list[int]]], worst: np.ndarray) -> list[tuple[str, list[int]]]:
    """Return a model for each verdict, then the next ones; all in the order of `ranked`, of which they are a part."""
    kinds = [int(worst[layers[0]]) for _, layers in ranked]
    first = [kinds.index(kind) for kind in sorted(set(kinds))]
    more = [place for place in range(len(ranked)) if place not in first]
    return [ranked[place] for place in sorted([*first, *more][:MODELS_SHOWN])]


def _evidence(results: Results, layer: int, rule: str) -> str:
    """Return what is behind the most severe verdict of a layer, in parentheses."""
    result, weights = results.degeneration, results.db.weights
    entropy, sparsity, p = (float(result[name].values[layer]) for name in ("variance_entropy", "sparsity", "p_value"))
    is_narrow = 10**entropy < fewest_directions(Rules().collapsed, weights)
    texts = {
        "dead": " (drawn above: every weight is zero)",
        "collapsed": f" (uses {10**entropy:.2g} of {weights} directions)"
        if is_narrow
        else " (its filters are nearly equal)",
        "sparse": f" ({sparsity:.0%} of its filters near zero)",
        "random": f" (p = {p:.2g} in a test against noise)" if np.isfinite(p) else "",
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


def _meanings(verdicts: list[str], left: int) -> str:
    """Say what verdicts mean, in the order of severity, and how many models are not named."""
    texts = [f"Examples, the most severe first; the table has {counted(left, 'more model')}."] if left else []
    meanings = {rule: MEANINGS[rule] for rule in SEVERITY if rule in verdicts}
    texts += [f"{rule.capitalize()}: {text[0].lower()}{text[1:]}" for rule, text in meanings.items()]
    return " ".join(texts)


def _filters(results: Results, layers: list[int]) -> list[list[list[int]]]:
    """Return the first filters of some layers, each layer scaled to its largest weight, as integers up to ±99."""
    shown = []
    for filters in read_filters(results.db, np.array(layers, np.int64), FILTERS_SHOWN):
        whole = filters[np.isfinite(filters).all(axis=1)]
        largest = np.abs(whole).max(initial=0.0) or 1.0
        shown.append(np.rint(99 * whole / largest).astype(int).tolist())
    return shown
