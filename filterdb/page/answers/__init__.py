"""The answer card: a tile for each question that readers of the page ask first.

What is flagged, whether the numbers can be trusted, which pairs of groups are farthest and closest, and which model is
the odd one out.
"""

from __future__ import annotations

from filterdb.page.answers.flagged import flagged_tile
from filterdb.page.answers.outlier import outlier_tile
from filterdb.page.answers.pairs import pair_tiles
from filterdb.page.answers.tile import Tile
from filterdb.page.answers.trust import trust_tile
from filterdb.page.results import Results


def answer_tiles(results: Results, by: str | None) -> list[Tile]:
    """Return the tiles, the most urgent question first. `by` is the grouping of the pairs, as of `pairs.grouping`."""
    return [flagged_tile(results), trust_tile(results, by), *pair_tiles(results, by), outlier_tile(results)]
