"""Weights that are no constant, or take too much to compute, are not stored, for the right reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from filterdb.models.onnx.layers import read_model
from filterdb.models.parse_errors import NotStoredError
from tests.models import model, save, tensor, weights
from tests.models.onnx.test_expressions import CONV, Arrays, W, branch, i64, node


def reason_of(
    tmp_path: Path, nodes: list[onnx.NodeProto], constants: Arrays, skip_others: bool = False, **more: Any
) -> tuple[str, str]:
    proto = model([*nodes, CONV], [tensor(name, values) for name, values in constants.items()], **more)
    read = read_model(save(tmp_path / "m.onnx", proto))
    skipped = [(skip.code, skip.reason) for skip in read.skipped if skip.layer == "c" or not skip_others]
    for layer in read.layers:
        with pytest.raises(NotStoredError) as caught:
            layer.weight()
        skipped.append((caught.value.code, caught.value.reason))
    (entry,) = skipped
    return entry


OWN = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
LOOP = helper.make_graph(
    [node("Identity", "go", "on"), node("Neg", "state", "next")], "loop",
    [helper.make_tensor_value_info(n, t, None) for n, t in (("i", 7), ("go", 9), ("state", 1))],
    [helper.make_tensor_value_info(n, t, None) for n, t in (("on", 9), ("next", 1))],
)  # fmt: skip
REASONS: dict[str, tuple[list[onnx.NodeProto], str, str]] = {
    "of the input": ([node("Mul", "a x")], "computed", "a graph input"),
    "of the input, far behind": ([node("Relu", "x", "r"), node("Abs", "r", "b"), node("Mul", "a b")], "computed", ""),
    "of the input and of what cannot be read": (
        [node("Strange", "a", "s", domain="own"), node("Mul", "s x")], "computed", "a graph input"),
    "random": ([node("RandomNormalLike", "a")], "computed", "at random by RandomNormalLike"),
    "random beside a parameter": ([node("RandomUniformLike", "a", "r"), node("Mul", "a r")], "computed", "at random"),
    "an operator of somebody's own": ([node("Strange", "a", domain="own")], "unsupported", "own.Strange"),
    "a loop": ([node("Loop", "n - a", body=LOOP)], "unsupported", "Loop"),
    "a name that nothing defines": ([node("Neg", "nowhere")], "missing", "a name that nothing defines"),
    "shapes that do not fit": ([node("MatMul", "a b")], "unreadable", "MatMul cannot be folded"),
    "an opset without the operator": ([node("Gelu", "a")], "unreadable", "Gelu cannot be folded"),
    "filled": ([node("ConstantOfShape", "s")], "generated", "ConstantOfShape"),
    "filled and reshaped": ([node("ConstantOfShape", "s", "f"), node("Reshape", "f s")], "generated", ""),
    "filled and scaled": ([node("ConstantOfShape", "s", "f"), node("Mul", "f k")], "generated", ""),
    "a condition of the input": (
        [node("Cast", "x", "d", to=9),
         helper.make_node("If", ["d"], ["w"], then_branch=branch("t", node("Neg", "a", "w")),
                          else_branch=branch("e", node("Abs", "a", "w")))],
        "computed", "a graph input"),
    "more outputs than it has": ([node("Neg", "a", "u v w")], "unreadable", "Neg cannot be folded"),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_what_is_no_constant_says_why(tmp_path: Path, name: str) -> None:
    nodes, code, words = REASONS[name]
    opset = 9 if name == "an opset without the operator" else 21
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    constants: Arrays = {
        "a": W, "b": weights(5, 5, kernel=(2, 7)), "s": i64(4, 3, 3, 3), "k": np.float32(2), "n": np.array(3),
    }  # fmt: skip
    got = reason_of(tmp_path, nodes, constants, opset_imports=opsets)
    assert got[0] == code, got
    assert words in got[1]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Expand", "a s", "e"), node("Tile", "e r")],
        [node("MatMul", "big big", "m"), node("Reshape", "m t")],
        [node("Einsum", "big big big", equation="ab,cd,ef->abcdef")],
        [node("Conv", "x4 x4", "k"), node("Reshape", "k t")],
    ],
    ids=["tiles", "product", "einsum", "convolution"],
)
def test_expressions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: list[onnx.NodeProto]) -> None:
    monkeypatch.setattr("filterdb.models.onnx.constants.MAX_OPERATIONS", 2**22)
    monkeypatch.setattr("filterdb.models.onnx.constants.MAX_WEIGHTS", 2**24)
    constants = {
        "a": W[:1], "s": i64(2**14, 3, 3, 3), "r": i64(2**4, 1, 1, 1), "t": i64(-1, 1, 3, 3),
        "big": np.ones((400, 400), np.float32), "x4": np.ones((1, 1, 90, 90), np.float32),
    }  # fmt: skip
    code, reason = reason_of(tmp_path, nodes, constants, skip_others=True)
    assert code == "unreadable"
    assert "operations" in reason or "numbers" in reason
