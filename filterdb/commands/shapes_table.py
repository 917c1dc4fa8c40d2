"""`filterdb density` and `filterdb phenotypes` on a terminal."""

from __future__ import annotations

import numpy as np

from filterdb.commands.answer import Answer
from filterdb.commands.table import _say, _table, basis_warning, counts


def density(answer: Answer) -> None:
    """Where each group is densest; the counts themselves are for --json."""
    first, second = answer["components"]
    low, high = answer["range"]
    width = (high - low) / answer["bins"]
    rows = []
    for group, number, square in zip(answer["groups"], answer["count"], answer["counts"], strict=True):
        i, j = np.unravel_index(int(np.argmax(square)), square.shape)
        place = [low + (k + 0.5) * width for k in (int(i), int(j))]
        rows.append([group, int(number), *place, float(square[i, j] / number), int((square > 0).sum())])
    _table(["group", "filters", f"densest at c{first}", f"and c{second}", "share there", "bins with any"], rows)
    bins = answer["bins"]
    _say(f"{bins}×{bins} bins of {width:.3g}, mode {answer['mode']} · {counts(answer)}; --json has the counts")
    basis_warning(answer)


def phenotypes(answer: Answer) -> None:
    """A row for each group: the phenotype of every component and pair."""
    pairs = [pair["components"] for pair in answer["groups"][0]["pairs"]]
    columns = ["group", "filters", *(f"c{k}" for k in range(9)), *(f"c{first}×c{second}" for first, second in pairs)]
    _table(
        columns,
        (
            [group["group"], group["count"], *(one["phenotype"] for one in (*group["components"], *group["pairs"]))]
            for group in answer["groups"]
        ),
    )
    few = answer["bounds"]["fewest"]
    _say(f"few: under {few:,} filters (docs/explanation/phenotypes.md) · mode {answer['mode']} · {counts(answer)}")
    basis_warning(answer)
