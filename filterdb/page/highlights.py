"""Findings about a database, as sentences with numbers below the answer card of the page."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
import xarray as xr

from filterdb.numerics.depth import depth_decile
from filterdb.page.pair_verdicts import (
    DOUBTFUL,
    farthest,
    floor_behind,
    is_doubtful,
    judged,
    larger_than,
    meaning,
    noise_of,
    standings,
    verdict_at,
)
from filterdb.page.results import Results
from filterdb.plotting.box_numbers import pairs
from filterdb.plotting.drawing import short, visible
from filterdb.schema import REJECTED, kernel_text
from filterdb.verdicts import BY_FILTERS, DIFFERENT, WITHIN
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


def _farthest(by: str, result: xr.Dataset) -> Highlight:
    lead = f"By {by.replace('_', ' ')}."
    pair = farthest(result)
    if pair is None:
        return Highlight(lead, "No two groups have enough filters to compare.", "drift", by)
    a, b = (short(result["group"].values[i], NAMED) for i in pair)
    of_those = " of those that differ" if larger_than(result, pair) else ""
    text = f"“{a}” and “{b}” are farthest apart{of_those}: D = {result['drift'].values[pair]:.2g}"
    floor = floor_behind(result, pair)
    if floor is None:
        return Highlight(lead, f"{text}.", "drift", by)
    verdict = verdict_at(result, pair)
    noise = f"{noise_of(result, pair)} alone explains"
    if verdict.code == BY_FILTERS:
        few = "a single model on each side is too few" if by == "model" else "there are too few models"
        others = "other models like these differ" if by == "model" else "the two differ in general"
        return Highlight(
            lead, f"{text}, more than the {floor:.2g} that {noise}; {few} to tell whether {others} (?).", "drift", by
        )
    if standings(result, pair) != WITHIN:
        return Highlight(lead, f"{text}, {verdict.text}. {meaning(result, pair)}", "drift", by)
    if is_doubtful(result, pair):
        return Highlight(lead, f"{text}, {verdict.symbol} {DOUBTFUL}.", "drift", by)
    return Highlight(lead, f"{text}, {verdict.text}: {noise} up to {floor:.2g}.", "drift", by)


def _different(drifts: dict[str, xr.Dataset]) -> Highlight | None:
    parts = []
    for by, result in drifts.items():
        if "verdict" in result:
            by_models = pairs(judged(result))
            number = int(by_models.sum())
            differ = int((by_models & (pairs(result["verdict"].values) == DIFFERENT)).sum())
            if number:
                parts.append(f"{differ:,} of {number:,} between {MANY[by]}")
    text = f"Pairs that differ, judged by their models: {', '.join(parts)}."
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
        Highlight("Not stored.", f"{'; '.join(parts)}. “filterdb layers --skipped” lists the reasons.", "contents")
        if parts
        else None
    )
