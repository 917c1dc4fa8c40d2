"""The answers of a child process that a hostile model controls: only what tables can hold gets through."""

from __future__ import annotations

import math
from typing import Any

import pytest

from filterdb.models.answers import checked
from filterdb.models.parse_errors import PARSE_ERRORS

LAYER = {
    **{"row_size": 1, "layer_name": "a", "conv_depth": 0, "conv_depth_norm": 0.0, "graph_depth": 1, "in_channels": 1},
    **{"out_channels": 1, "groups": 1, "depthwise": False, "operator": "Conv", "strides": "", "dilations": ""},
    **{"source_dtype": "", "weight_source": "", "bn_folded": True, "scale_known": True, "hash": "", "peak": 1.0},
    **{"batch_norm": "none", "fingerprint": ""},
    **{"orthogonality": math.nan, "kernel": "3x3", "rank": 2},
}
FACTS = {
    **{"producer": "", "opset": 1, "model_depth": 1, "operators": "{}", "filter_shapes": "{}", "total_filters": 1},
    **{"share_3x3": 1, "source_format": "ONNX", "depth_source": "graph"},
}


OTHER = LAYER | {
    **{"layer_name": "c", "kernel": "1x1", "row_size": 6, "sparse_filters": 6, "duplicate_filters": 0, "nonfinite": 6},
}
ALL = {
    "facts": FACTS,
    "rows": [LAYER, LAYER | {"layer_name": "b", "kernel": "1x7", "rank": 1}],
    "checksums": [1, 2],
    "others": [OTHER, OTHER | {"layer_name": "d", "kernel": "32x32"}],
    "skipped": [],
}
LEDGER = [["b", "kernel", "r" * 10**6]]


def test_an_answer_has_nothing_besides_what_is_asked() -> None:
    """It may not say which model it is of."""
    row, facts = LAYER | {"model_index": 7}, FACTS | {"model": "another", "task": "x"}
    found = checked({"facts": facts, "rows": [row], "checksums": [1], "others": [], "skipped": LEDGER})
    assert found[:3] == (FACTS, [LAYER], [1])
    assert len(found[4][0].reason) < 10**4


@pytest.mark.parametrize(
    "lie",
    [
        {"rows": [LAYER | {"row_size": 0}]},
        {"rows": [LAYER | {"row_size": 2**40}]},
        {"rows": [LAYER | {"row_size": 2**70}]},
        {"rows": [LAYER | {"row_size": 1.5}]},
        {"rows": [LAYER | {"row_size": True}]},
        {"rows": [LAYER | {"row_size": [1]}]},
        {"rows": [LAYER | {"peak": math.nan}]},
        {"rows": [LAYER | {"peak": -1}]},
        {"rows": [LAYER | {"layer_name": 3}]},
        {"rows": [LAYER | {"layer_name": "\ud800"}]},
        {"rows": [LAYER | {"hash": "a" * 10**7}]},
        {"rows": [LAYER, LAYER], "checksums": [1, 2]},
        {"rows": [{}]},
        {"rows": [[]]},
        {"rows": {}},
        {"checksums": []},
        {"checksums": [2**64]},
        {"facts": FACTS | {"opset": None}},
        {"facts": []},
        {"rows": [LAYER | {"kernel": "5x5"}]},
        {"rows": [LAYER | {"kernel": "3×3"}]},
        {"rows": [LAYER | {"kernel": "03x3"}]},
        {"rows": [LAYER | {"kernel": "٣x٣"}]},
        {"rows": [LAYER | {"kernel": "1x1"}]},
        {"rows": [LAYER | {"kernel": "3x3" + " " * 10**6}]},
        {"rows": [LAYER | {"kernel": 3}]},
        {"rows": [LAYER | {"rank": 1}]},
        {"rows": [LAYER | {"rank": 3}]},
        {"rows": [LAYER | {"rank": True}]},
        {"others": [OTHER]},
        {"others": {}},
        {"skipped": [["a", "rejected", "r"]]},
        {"skipped": [["a", "two words", "r"]]},
        {"skipped": [["a", "kernel"]]},
        {"skipped": 3},
    ],
    ids=lambda lie: str(lie)[:60],
)
def test_an_answer_that_no_table_can_hold_is_refused(lie: dict[str, Any]) -> None:
    truth = {"facts": FACTS, "rows": [LAYER], "checksums": [1], "others": [], "skipped": []}
    assert checked(truth)[1] == [LAYER]
    with pytest.raises(PARSE_ERRORS):
        checked(truth | lie)


@pytest.mark.parametrize(
    "lie",
    [
        {"others": [LAYER | {"layer_name": "c"}]},
        {"others": [OTHER | {"kernel": "3x3"}]},
        {"others": [OTHER | {"kernel": "0x9"}]},
        {"others": [OTHER | {"kernel": "-1x-1"}]},
        {"others": [OTHER | {"kernel": "2x500", "rank": 1}]},
        {"others": [OTHER | {"layer_name": "a"}]},
        {"others": [OTHER, OTHER]},
        {"others": [OTHER | {"row_size": 0}]},
        {"others": [OTHER | {"sparse_filters": 7}]},
        {"others": [OTHER | {"duplicate_filters": -1}]},
        {"others": [OTHER | {"nonfinite": 7}]},
        {"others": [OTHER | {"nonfinite": "6"}]},
        {"others": [OTHER | {"peak": math.inf}]},
        {"others": [OTHER | {"hash": 5}]},
        {"others": [{}]},
        {"rows": [LAYER | {"kernel": "17x17"}], "checksums": [1]},
        {"rows": [LAYER | {"layer_name": str(k), "kernel": f"1x{k}"} for k in range(2, 67)], "checksums": [1] * 65},
        {"rows": [LAYER | {"kernel": "16x16", "row_size": 2**24}], "checksums": [1]},
        {"rows": [LAYER | {"kernel": "1x2", "row_size": 2**28 + 1}], "checksums": [1]},
    ],
    ids=lambda lie: str(lie)[:60],
)
def test_a_lie_about_layers_of_any_shape_is_refused(lie: dict[str, Any]) -> None:
    _, rows, _, others, _ = checked(ALL, None)
    assert (rows, others) == (ALL["rows"], ALL["others"])
    with pytest.raises(PARSE_ERRORS):
        checked(ALL | lie, None)
