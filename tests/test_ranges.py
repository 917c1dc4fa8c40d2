"""Sets of byte ranges, compared with sets of single bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from filterdb.ranges import Ranges, merged, pieces

SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))


def members(ranges: list[tuple[int, int]]) -> set[int]:
    return {byte for start, stop in ranges for byte in range(start, stop)}


@given(st.lists(SPAN, max_size=12), SPAN)
def test_ranges_are_sets_of_bytes(spans: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    present = Ranges(spans)
    assert members(list(present)) == members(spans)
    assert present.bytes == len(members(spans))
    assert members(present.missing(*asked)) == members([asked]) - members(spans)
    listed = list(present)
    assert all(start < stop for start, stop in listed)
    assert all(stop < start for (_, stop), (start, _) in pairwise(listed))


@given(st.lists(SPAN.filter(lambda span: span[0] < span[1]), max_size=12), st.integers(0, 5), st.integers(1, 7))
def test_merged_ranges_and_pieces(spans: list[tuple[int, int]], gap: int, size: int) -> None:
    joined = merged(spans, gap)
    assert members(spans) <= members(joined)
    assert all(start - stop > gap for (_, stop), (start, _) in pairwise(joined))
    cut = pieces(joined, size)
    assert members(cut) == members(joined)
    assert all(0 < stop - start <= size for start, stop in cut)
