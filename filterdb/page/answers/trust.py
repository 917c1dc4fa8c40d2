"""Answer how far the numbers can be trusted."""

from __future__ import annotations

import numpy as np

from filterdb.page.answers.tile import Line, State, Tile
from filterdb.page.highlights import MANY, address, judged
from filterdb.page.results import Results
from filterdb.plotting.box_numbers import pairs
from filterdb.verdicts import DIFFERENT, VERDICTS, verdict_of
from filterdb.wording import counted


def trust_tile(results: Results, by: str | None) -> Tile:
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
