"""The memory that an ingest may use for scanned filters: a bound, given back, and never sent to another process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from filterdb.models import spool
from filterdb.models.spool import Spool


@pytest.mark.parametrize("slab", [1, 40 * 36, 2**25])
def test_room_is_bounded_and_given_back(slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_SLAB", slab)
    kept = Spool(100 * 36)
    first, second = kept.reserve(60, 9), kept.reserve(40, 9)
    assert first is not None and second is not None
    assert first.shape == (60, 9) and first.dtype == np.float32
    first[:], second[:] = 1, 2
    assert first.sum() == 540
    assert kept.reserve(1, 9) is None
    kept.keep("a", ["x", "y"], [first, second])
    del first, second
    assert kept.reserve(1, 9) is None
    kept.drop(["a", "unknown"])
    assert kept.layers("a") is None
    assert kept.reserve(36, 25) is not None


def test_a_layer_that_no_memory_can_hold_is_not_kept() -> None:
    kept = Spool(2**62)
    assert kept.reserve(2**55, 9) is None
    assert kept.room == 2**62


def test_a_copy_in_another_process_is_empty_and_keeps_nothing() -> None:
    kept = Spool(3600)
    rows = kept.reserve(1, 9)
    assert rows is not None
    kept.keep("a", ["x"], [rows])
    copy = pickle.loads(pickle.dumps(kept))
    assert copy.layers("a") is None
    assert copy.reserve(1, 9) is None
    assert len(pickle.dumps(kept)) < 100
