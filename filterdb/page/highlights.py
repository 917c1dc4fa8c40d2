"""Findings about a database, as sentences with numbers below the answer card of the page."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
import xarray as xr

from filterdb.analysis.noise import FLOOR_BEHIND
from filterdb.numerics.depth import depth_decile
from filterdb.numerics.significance import LEVEL
from filterdb.page.results import Results
from filterdb.plotting.box_numbers import pairs
from filterdb.plotting.drawing import short, visible
from filterdb.schema import REJECTED, kernel_text
from filterdb.verdicts import BY_FILTERS, BY_MODELS, DIFFERENT, INDISTINGUISHABLE, OF_SEVERAL, TOO_FEW, verdict_of
from filterdb.wording import counted

NAMED = 60
"""Maximum number of characters of a name in a sentence."""

MANY = {"task": "tasks", "visual_category": "categories", "training_dataset": "training sets", "family": "families",
        "model": "models", "depth_decile": "tenths of the depth"}  # fmt: skip
"""The plural of each grouping, for sentences."""


def address(section: str, **state: str) -> str:
    """Return a link to a section that sets what its figures show; empty values are left out."""
    query = urlencode({key: value for key, value in state.items() if value})
    return f"#{section}?{query}" if query else f"#{section}"


@dataclass(frozen=True, slots=True)
class Highlight:
    """A sentence of the summary: its topic, its text, and the section that shows it, with its state."""

    lead: str
    text: str
    section: str
    group: str = ""
    search: str = ""

    @property
    def href(self) -> str:
        """The link to the section, which sets what its figures show."""
        return address(self.section, by=self.group, layers=self.search)


def highlights(results: Results, shown: str | None = None) -> list[Highlight]:
    """Return the findings that the answer card does not show, of which `shown` is the grouping of its pairs."""
    named = [by for by in ("task", "family", "model") if by in results.drifts and by != shown]
    sentences: list[Highlight | None] = [_unread(results)]
    sentences += [_farthest(by, results.drifts[by]) for by in named]
    sentences += [_different(results.drifts)]
    sentences += [
        _depth(results.degeneration),
        _untrained(results.degeneration),
        _few(results.drifts),
        _skipped(results),
    ]
    return [sentence for sentence in sentences if sentence is not None]


_NOISE_OF = {"floor_q95": "sampling of filters", "layer_floor_q95": "swapping layers of the two"}
"""What the floors explain that are not about models."""


def is_telling(result: xr.Dataset) -> np.ndarray:
    """Return which pairs (group, other) can be named for their drift: those that differ, else all with enough filters.

    A pair that is named was chosen among all, so chance must not explain the largest of all drifts either. If no pair
    differs, the largest drift is named with its own verdict.
    """
    if "verdict" in result:
        differs: np.ndarray = (result["verdict"].values == DIFFERENT) & ~(result["p_value_max"].values > LEVEL)
        if differs.any():
            return differs
    few: np.ndarray = result["few"].values
    both: np.ndarray = ~(few[:, None] | few)
    return both


def farthest(result: xr.Dataset) -> tuple[int, int] | None:
    """Return the pair with the largest drift among those that can be named, or None."""
    values = np.where(is_telling(result) & comparable(result), np.nan_to_num(result["drift"].values), 0.0)
    i, j = np.unravel_index(int(np.argmax(values)), values.shape)
    return (int(i), int(j)) if values[i, j] > 0 else None


def _farthest(by: str, result: xr.Dataset) -> Highlight:
    lead = f"By {by.replace('_', ' ')}."
    pair = farthest(result)
    if pair is None:
        return Highlight(lead, "No two groups have enough filters to compare.", "drift", by)
    a, b = (short(result["group"].values[i], NAMED) for i in pair)
    of_those = " of those that differ" if larger_than(result, pair) else ""
    text = f"“{a}” and “{b}” are farthest apart{of_those}: D = {result['drift'].values[pair]:.2g}"
    floor = floor_behind(result, *pair)
    if floor is None:
        return Highlight(lead, f"{text}.", "drift", by)
    verdict = verdict_of(str(result["verdict"].values[pair]))
    what = "chance" if judged(result)[pair] else _NOISE_OF.get(_floor_name(result, *pair), "chance")
    if verdict.code == INDISTINGUISHABLE and result["drift"].values[pair] > floor:
        return Highlight(lead, f"{text}, {verdict.text}. {OF_SEVERAL}", "drift", by)
    if verdict.code != BY_FILTERS:
        return Highlight(lead, f"{text}, {verdict.text}: {what} alone explains up to {floor:.2g}.", "drift", by)
    others = "other models like these" if by == "model" else MANY[by]
    why = "each side is a single model" if by == "model" else "there are too few models"
    more = (
        f"more than the {floor:.2g} that {what} alone explains; {verdict.text} whether {others} differ, because {why}"
    )
    return Highlight(lead, f"{text}, {more}.", "drift", by)


def comparable(result: xr.Dataset) -> np.ndarray:
    """Return the pairs (group, other) of which both have enough filters, each once."""
    few = result["few"].values
    both: np.ndarray = np.triu(~(few[:, None] | few) & np.isfinite(result["drift"].values), 1)
    return both


def larger_than(result: xr.Dataset, pair: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the comparable pairs with a larger drift than a pair, the largest first."""
    drift = result["drift"].values
    larger = np.argwhere(comparable(result) & (drift > drift[pair]))
    order = np.argsort(-drift[tuple(larger.T)], kind="stable")
    return [(int(i), int(j)) for i, j in larger[order]]


def judged(result: xr.Dataset) -> np.ndarray:
    """Return the pairs (group, other) with a verdict by their models, which holds for other models of the same kind."""
    by_models = result["judged_by"].values == BY_MODELS
    judged: np.ndarray = by_models & (result["verdict"].values != TOO_FEW)
    return judged


def floor_behind(result: xr.Dataset, i: int, j: int) -> float | None:
    """Return the drift that chance alone explains in 95 % of the cases; None without noise."""
    name = _floor_name(result, i, j)
    value = float(result[name].values[i, j]) if name in result else np.nan
    return value if np.isfinite(value) else None


def _floor_name(result: xr.Dataset, i: int, j: int) -> str:
    """Return the variable of the floor behind a pair's verdict."""
    judged_by = str(result["judged_by"].values[i, j]) if "judged_by" in result else ""
    return FLOOR_BEHIND.get(judged_by, "floor_q95")


def _different(drifts: dict[str, xr.Dataset]) -> Highlight | None:
    parts = []
    for by, result in drifts.items():
        if "verdict" in result:
            by_models = pairs(judged(result))
            number = int(by_models.sum())
            differ = int((by_models & (pairs(result["verdict"].values) == DIFFERENT)).sum())
            if number:
                parts.append(f"{differ:,} of {number:,} pairs of {MANY[by]}")
    text = f"Judged by their models, {', '.join(parts)} differ."
    return Highlight("Beyond chance.", text, "drift") if parts else None


def _depth(result: xr.Dataset) -> Highlight | None:
    decile = depth_decile(result["conv_depth_norm"].values)
    entropy = result["variance_entropy"].values
    first, last = entropy[decile == 0], entropy[decile == 9]
    first, last = first[np.isfinite(first)], last[np.isfinite(last)]
    if not (first.size and last.size):
        return None
    start, end = f"{first.mean():.2f}", f"{last.mean():.2f}"
    word = "falls" if last.mean() < first.mean() else "rises"
    change = (
        f"{word} from {start} in the first tenth of the depth to {end} in the last"
        if start != end
        else f"is {start} in both the first and the last tenth of the depth"
    )
    return Highlight("Depth.", f"Mean variance entropy {change}.", "depth")


def _untrained(result: xr.Dataset) -> Highlight | None:
    names = [short(name, NAMED) for name in result["model"].values[result["untrained"].values]]
    if not names:
        return None
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return Highlight(
        "Untrained.",
        f"Hardly moved from their initialisation: {', '.join(names[:5])}{more}.",
        "layers",
        search="random",
    )


def _few(drifts: dict[str, xr.Dataset]) -> Highlight | None:
    parts = [
        f"{int(result['few'].sum()):,} of {result.sizes['group']:,} {MANY[by]}"
        for by, result in drifts.items()
        if result["few"].any()
    ]
    return (
        Highlight("Few filters.", f"Fewer than 1,000, so chance has a large effect: {', '.join(parts)}.", "drift")
        if parts
        else None
    )


def _unread(results: Results) -> Highlight | None:
    ledger = results.unread
    if not ledger.sizes["skipped"]:
        return None
    number, models = ledger.sizes["skipped"], len(np.unique(ledger["skipped_model"].values.astype(str)))
    layers = f"{counted(number, 'convolution')} of {counted(models, 'model')}"
    return Highlight(
        "Not read.", f"{layers} could not be read. They are not part of any result on this page.", "contents"
    )


def _skipped(results: Results) -> Highlight | None:
    codes = results.skipped["skipped_code"].values.astype(str)
    names, counts = np.unique(codes[codes != REJECTED], return_counts=True)
    without = int((results.db.models["filters"].values == 0).sum())
    rejected = int((codes == REJECTED).sum())
    parts = []
    if len(names):
        kinds = ", ".join(f"{count:,} {visible(name)}" for name, count in zip(names, counts, strict=True))
        parts.append(f"{counted(int(counts.sum()), 'convolution')} ({kinds})")
    if without:
        parts.append(f"{counted(without, 'model')} without any {kernel_text(results.db.kernel)} filters")
    if rejected:
        parts.append(f"{counted(rejected, 'file')} not readable as a model")
    return (
        Highlight("Not stored.", f"{'; '.join(parts)}. “filterdb layers” lists the reasons.", "contents")
        if parts
        else None
    )
