"""The memory that an ingest may use for scanned filters: a bound, given back, and never sent to another process."""

from __future__ import annotations

import pickle

import numpy as np

from filterdb.models.spool import Spool


def test_room_is_bounded_and_given_back() -> None:
    spool = Spool(100 * 36)
    first, second = spool.reserve(60), spool.reserve(40)
    assert first is not None and second is not None
    assert first.shape == (60, 9) and first.dtype == np.float32
    assert spool.room == 0
    assert spool.reserve(1) is None
    spool.keep("a", ["x"], [first])
    del first
    assert spool.room == 0
    spool.drop(["a", "unknown"])
    assert spool.room == 60 * 36
    assert spool.layers("a") is None


def test_a_layer_that_no_memory_can_hold_is_not_kept() -> None:
    spool = Spool(2**62)
    assert spool.reserve(2**55) is None
    assert spool.room == 2**62


def test_a_copy_in_another_process_is_empty_and_keeps_nothing() -> None:
    spool = Spool(3600)
    rows = spool.reserve(1)
    assert rows is not None
    spool.keep("a", ["x"], [rows])
    copy = pickle.loads(pickle.dumps(spool))
    assert copy.layers("a") is None
    assert copy.reserve(1) is None
    assert len(pickle.dumps(spool)) < 100
