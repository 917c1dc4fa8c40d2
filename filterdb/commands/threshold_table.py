"""`filterdb randomness-threshold` on a terminal."""

from __future__ import annotations

from filterdb.commands.answer import Answer
from filterdb.commands.table import _say, _table

SYMBOLS = {"span": "L", "rate": "k", "centre": "x0", "offset": "b"}


def randomness_threshold(answer: Answer) -> None:
    """The sizes, then the constants beside P1's."""
    names = ["filters", "smallest_entropy", "threshold", "paper_threshold"]
    _table(
        ["filters", "smallest H", "fitted T_H", "P1's T_H"], ([row[name] for name in names] for row in answer["rows"])
    )
    constants = [
        [f"{symbol} ({name})", *(answer[of][name] for of in ("constants", "scatter", "paper"))]
        for name, symbol in SYMBOLS.items()
    ]
    _table(["constant", "fitted", "± over repetitions", "P1's"], constants)
    _say(f"{answer['init']}: {answer['repeats']} × {answer['draws']:,} layers of each size, seed {answer['seed']}")
