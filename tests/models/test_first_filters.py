"""The first filters that a child sends: only what the layer can have is believed."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from filterdb.models.answers import first_filters

ROW = {"kernel": "3x3", "row_size": 5}


def encoded(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def test_filters_arrive_as_they_were_sent() -> None:
    values = np.arange(18, dtype=np.float32).reshape(2, 9)
    np.testing.assert_array_equal(first_filters(encoded(values), ROW, 6), values)
    assert first_filters("", ROW, 6).shape == (0, 9)


@pytest.mark.parametrize(
    "sent",
    [
        encoded(np.zeros((6, 9))),  # more than the layer has
        encoded(np.zeros(10)),  # no whole filters
        encoded(np.full((1, 9), np.nan)),
        encoded(np.full((1, 9), np.inf)),
        "AA",
        "no base64!",
        None,
        [0.0] * 9,
    ],
)
def test_nothing_else_is_believed(sent: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        first_filters(sent, ROW, 6)


def test_no_more_than_were_asked_for() -> None:
    with pytest.raises(ValueError, match="cannot have"):
        first_filters(encoded(np.zeros((3, 9))), ROW, 2)
