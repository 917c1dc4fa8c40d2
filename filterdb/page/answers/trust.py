"""Answer how far the numbers can be trusted."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.page.answers.tile import Line, State, Tile
from filterdb.page.highlights import MANY, address
from filterdb.page.pair_verdicts import judged
from filterdb.page.results import Results
from filterdb.plotting.box_numbers import pairs
from filterdb.verdicts import DIFFERENT, RELATED, TOO_FEW, VERDICTS
from filterdb.wording import counted


def trust_tile(results: Results, by: str | None) -> Tile:
    """Answer how far the numbers of the page can be trusted: noise, sizes, basis, what was not read."""
    result = results.drifts.get(by or "")
    groups = MANY.get(by or "", "groups")
    doubts, unread = _basis_lines(results), _unread_line(results)
    lines = [*_size_lines(results, result, groups), *doubts, unread]
    words = dict.fromkeys((verdict.word for verdict in VERDICTS), 0)
    codes, by_models = np.empty(0, str), np.empty(0, bool)
    if result is not None and "verdict" in result:
        codes, by_models = pairs(result["verdict"].values), pairs(judged(result))
        for verdict in VERDICTS:
            words[verdict.word] += int((codes == verdict.code).sum())
    is_sound = not doubts and unread.state == "good"
    sure = "Yes" if is_sound and (len(codes) or result is None) else "With care"
    if not by_models.any():
        state: State = "unknown"
        word, answer = "these models only", f"{sure}, for these models, but not for {_others(by)}."
    else:
        state = "warn" if any(line.state == "warn" for line in lines) else "good"
        word = "yes" if state == "good" else "in part" if is_sound else "with care"
        answer = _judgement(codes, by_models, groups)
        if not by_models.all():
            answer = f"{sure}, for these models. For {_others(by)}, {_judgement(codes, by_models, '')}"
    return Tile(
        "trust",
        "Can I trust the numbers?",
        state,
        word,
        answer,
        lines=tuple(lines),
        link=("How it was judged", address("drift", by=by or "")),
        picture={"words": [[word, number] for word, number in words.items() if number]},
    )


def _judgement(codes: np.ndarray, by_models: np.ndarray, groups: str) -> str:
    """Say how many pairs can be judged by their models, and what the verdicts are."""
    number = int(by_models.sum())
    share = f"{number:,} of {counted(len(codes), 'pair')}" if number < len(codes) else f"All {counted(number, 'pair')}"
    share = f"{'The one pair' if len(codes) == 1 else share}{groups and f' of {groups}'} can be judged"
    differ, related = (int((by_models & (codes == code)).sum()) for code in (DIFFERENT, RELATED))
    if number == 1:
        outcome = "it differs" if differ else "it is related" if related else "it is not shown to differ or to be alike"
        return f"{share}: {outcome}."
    outcome = f"{differ:,} differ{'s' if differ == 1 else ''}"
    if differ in {0, number}:
        outcome = "all differ" if differ else "none is shown to differ"
    if related:
        outcome += f", {related:,} {'is' if related == 1 else 'are'} related"
    return f"{share}: {outcome}{'' if differ or related else ' or to be alike'}."


def _others(by: str | None) -> str:
    """Return the models that verdicts are about."""
    if by in {None, "model", "depth_decile"}:
        return "other models like these"
    return f"other models of these {MANY[by or '']}"


def _size_lines(results: Results, result: xr.Dataset | None, groups: str) -> list[Line]:
    """Say how many pairs cannot be judged and why, or else how much there is."""
    if result is None:
        return [Line(f"There are no two {groups} to compare", "unknown")]
    few = int(result["few"].sum())
    small = f"{few:,} of {result.sizes['group']:,} {groups} {'has' if few == 1 else 'have'} fewer than 1,000 filters"
    if "verdict" not in result:
        lines = [Line("No noise was computed, so it is unknown which drifts chance explains", "unknown")]
        return [*lines, Line(small, "warn")] if few else lines
    codes, by_models = pairs(result["verdict"].values), pairs(judged(result))
    by_numbers = ~by_models & ~np.isin(codes, [TOO_FEW, RELATED, ""])
    reasons = [
        (codes == TOO_FEW, f"be judged: {small}"),
        (by_numbers, "be judged for other models: too few models"),
        (codes == "", "be judged: their noise was not computed"),
    ]
    lines = [
        Line(f"{counted(int(which.sum()), 'pair')} cannot {reason}", "warn") for which, reason in reasons if which.any()
    ]
    counts = results.db.counts
    return lines or [Line(f"{counts['filters']:,} filters in {counted(counts['layers'], 'layer')}", "good")]


def _basis_lines(results: Results) -> list[Line]:
    """Return what is wrong with the basis, if anything."""
    if any(result.attrs.get("basis_warning") for result in results.drifts.values()):
        return [Line("The basis is stale; see the warning above", "warn")]
    if not results.basis["explained_variance_ratio"].values[0].sum() > 0:
        return [Line("The filters have no variance, so there are no components", "warn")]
    return []


def _unread_line(results: Results) -> Line:
    number = results.unread.sizes["skipped"]
    if number:
        return Line(f"{counted(number, 'convolution')} could not be read", "warn", href=address("contents"))
    return Line("No convolution was unreadable", "good")
