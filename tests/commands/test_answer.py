"""JSON that is printed in pieces is the JSON of the whole answer, byte for byte."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest

from filterdb.commands import answer as answers
from filterdb.commands.answer import plain, print_answer, to_json

VALUES: list[Any] = [
    {},
    {"a": 1, "b": [1.5, float("nan"), None, True], "c": {"d": np.float64("inf"), 3: "x"}},
    {"matrix": np.array([[0.1, np.nan], [1e-300, -np.inf]]), "cube": np.arange(24).reshape(2, 3, 4)},
    {"none": np.zeros((0, 3)), "thin": np.zeros((3, 0)), "scalar": np.array(2.5), "empty": np.zeros(0)},
    {"words": np.array(["a × b", "\u2028\x7f\x85", '"\\']), "objects": np.array(["\ud800", None], object)},
    {"flags": np.array([[True, False]]), "small": np.array([1.1, 2.2], np.float32), "key\x9f": "\x1b[31m"},
    {"rows": [{"i": i, "values": np.arange(i % 3) / 7, "name": f"r{i}\x80"} for i in range(2_501)]},
    {"nested": [[{"matrix": np.eye(2)}], (np.int64(4), np.bool_(1))], "large": list(range(1_001))},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_pieces_are_the_whole(value: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.dumps(plain(value), allow_nan=False, ensure_ascii=False)
    expected = answers._CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", whole)
    assert to_json(value) == expected
    monkeypatch.setattr(answers, "_BATCH", 7)
    with redirect_stdout(io.StringIO()) as stdout:
        print_answer(value, True, lambda _: None)
    assert stdout.getvalue() == expected + "\n"


def test_long_rows_of_floats_are_written_as_json_writes_them() -> None:
    """Any size of number, on both sides of where the two differ in form."""
    rng = np.random.default_rng(0)
    edges = [0.0, -0.0, 1.0, 2.5, np.nan, np.inf, 1e-4, np.nextafter(1e-4, 0), 1e9, 1e9 - 0.25, 1e16, 5e-324]
    values = 10 ** rng.uniform(-320, 308, 3_000) * rng.choice([-1, 1], 3_000)
    rows = (values, rng.exponential(1, 3_000), np.array(edges * 200), rng.random(3_000).astype(np.float32))
    for row in rows:
        assert to_json({"row": row}) == json.dumps({"row": plain(row)}, allow_nan=False)
