"""Pass the words of verdicts on pairs to the scripts of a page, which refer to them by their positions."""

from __future__ import annotations

from typing import Any

from filterdb.verdicts import ABOVE, JUDGED_BY, UNCLEAR, VERDICTS, sentence, verdict_of


def verdict_words() -> list[dict[str, Any]]:
    """Return the verdicts on pairs: code, word, symbol, tone, and the sentence for each of JUDGED_BY.

    `above` has the sentences for drifts like noise that are ABOVE their noise, and UNCLEAR.
    """
    return [
        {
            **{name: getattr(verdict, name) for name in ("code", "word", "symbol", "tone")},
            "sentences": [sentence(verdict.code, judged_by) for judged_by in JUDGED_BY],
            "above": [sentence(verdict.code, standing=standing) for standing in (ABOVE, UNCLEAR)],
        }
        for verdict in VERDICTS
    ]


def verdict_place(code: str | None, judged_by: str) -> list[int]:
    """Return the positions of a verdict, and of what it was judged by, in these lists."""
    return [VERDICTS.index(verdict_of(code)), JUDGED_BY.index(judged_by) if judged_by in JUDGED_BY else 0]
