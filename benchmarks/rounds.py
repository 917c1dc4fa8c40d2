"""Interleaved rounds: every contender once a round, the first round thrown away; medians and ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """What is timed, and how many filters (or whatever the unit is) it handles."""

    name: str
    units: int
    work: Callable[[], object]
    after: Callable[[], object] | None = None
    """Run after each round, outside the time taken."""


def interleave(contenders: list[Contender], rounds: int) -> dict[str, list[float]]:
    """Nanoseconds per unit of each round, by name. The first round warms caches, buffers and compiled code."""
    times: dict[str, list[float]] = {one.name: [] for one in contenders}
    for turn in range(rounds + 1):
        for one in contenders:
            start = time.perf_counter()
            one.work()
            taken = time.perf_counter() - start
            if one.after is not None:
                one.after()
            if turn:
                times[one.name].append(taken / one.units * 1e9)
    return times


def table(
    times: dict[str, list[float]],
    reference: str,
    *,
    ratio: str,
    inverse: bool = False,
    peaks: dict[str, int] | None = None,
) -> str:
    """A Markdown table: median and range in ns, the ratio of the reference's median to each (or its inverse), peaks."""
    base = statistics.median(times[reference])
    rows = [f"| contender | ns per filter, median (min–max) | {ratio} |{' peak |' if peaks else ''}"]
    rows.append(f"|---|---|---|{'---|' if peaks else ''}")
    for name, taken in times.items():
        middle = statistics.median(taken)
        share = f"{middle / base:.1f}×" if inverse else f"{base / middle:.0%}"
        held = f" {peaks[name] / 2**20:,.0f} MiB |" if peaks else ""
        rows.append(f"| {name} | {middle:,.1f} ({min(taken):,.1f}–{max(taken):,.1f}) | {share} |{held}")
    return "\n".join(rows)
