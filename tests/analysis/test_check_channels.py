"""Output channels judged by a check: what may be pruned, outliers, dead channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import filterdb as fdb
from filterdb.analysis.findings import findings, summary
from filterdb.commands.check_answer import to_answer as checked
from tests.filters import trained
from tests.models import chain, conv, model, save, tensor


def rules_of(path: Path, rules: dict[str, object] | None = None) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in findings(fdb.check(path, rules=rules)):
        found.setdefault(finding.layer, set()).add(finding.rule)
    return found


@pytest.mark.parametrize(
    ("shape", "dead"),
    [((32, 16), range(15)), ((32, 16), [31]), ((16, 1), [3, 7]), ((8, 4), range(7)), ((256, 64), [0])],
    ids=["15 of 32", "the last", "depthwise", "all but one", "one of 256"],
)
def test_dead_channels_are_counted(shape: tuple[int, int], dead: range | list[int], tmp_path: Path) -> None:
    weight = trained(*shape, 1)
    weight[list(dead)] = 0
    group = shape[0] if shape[1] == 1 else 1
    path = save(tmp_path / "m.onnx", model([conv("x", "w", "y", "c", group=group)], [tensor("w", weight)]))
    result = fdb.check(path)
    (finding,) = (finding for finding in findings(result) if finding.rule == "dead-channels")
    assert finding.level == "warning"
    assert finding.message == f"{len(dead)} of {shape[0]} output channels are all zero"
    assert summary(result)["prunable"]["channels"] == len(dead) == int(result["zero_channels"][0])
    assert int(result["prunable_filters"][0]) >= len(dead) * shape[1]
    share = len(dead) / shape[0]
    assert "dead-channels" in rules_of(path, {"dead_channels": share * 0.99})["c"]
    assert "dead-channels" not in rules_of(path, {"dead_channels": share}).get("c", set())


def test_a_dead_layer_and_a_living_one_have_no_dead_channels(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx", np.zeros((16, 16, 3, 3), np.float32), trained(16, 16, 1))
    assert rules_of(path) == {"conv0": {"dead"}}


@pytest.mark.parametrize("kind", ["channel", "weight", "input channel of one output"])
def test_outliers(kind: str, tmp_path: Path) -> None:
    weight = trained(32, 16, 1)
    plain = chain(tmp_path / "plain.onnx", weight)
    assert rules_of(plain) == {}
    if kind == "channel":
        weight[3] *= 300
    elif kind == "weight":
        weight[3, 2, 1, 1] = 300 * np.abs(weight).max()
    else:
        weight = trained(1, 64, 1)
        weight[0, 5] *= 300
    path = chain(tmp_path / "m.onnx", weight)
    assert "outlier" in rules_of(path)["conv0"]
    result = fdb.check(path)
    assert summary(result)["ok"] and "outlier" not in rules_of(path, {"outlier": 1e6}).get("conv0", set())
    ratio = float(result["outlier_ratio"][0])
    assert "outlier" in rules_of(path, {"outlier": ratio})["conv0"]
    assert not summary(fdb.check(path, rules={"fail": ["outlier"]}))["ok"]


@pytest.mark.slow
def test_no_healthy_model_has_outliers_or_dead_channels(demo_catalog: Path) -> None:
    result = fdb.check(demo_catalog.parent, kernel="3x3")
    rules = result["rule"].values.tolist()
    for rule in ("outlier", "dead-channels"):
        assert not result["verdict"].values[:, rules.index(rule)].any()
    assert float(result["outlier_ratio"].max()) < 8


def rescaled(path: Path, *, zero: str = "") -> Path:
    """Two layers; one output channel of the first is 1,024 times as large, and its batch normalisation undoes that.

    `zero`: without the filters that are small beside their "channel" or beside the "layer".
    """
    first, second = trained(32, 8, 1), trained(16, 32, 2)
    first[:, :2] *= 1e-4
    first[5] *= 1024
    for weight in (first, second):
        peaks = np.abs(weight).max(axis=(2, 3))
        whole = peaks.max(axis=1, keepdims=True) if zero == "channel" else peaks.max()
        if zero:
            weight[peaks < whole / 100] = 0
    scale = np.ones(32, np.float32)
    scale[5] /= 1024
    parts = {"scale": scale, "shift": 0 * scale, "mean": 0 * scale, "var": np.ones(32, np.float32)}
    nodes = [
        conv("x", "w0", "a", "c0"),
        helper.make_node("BatchNormalization", ["a", *parts], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        conv("c", "w1", "y", "c1"),
    ]
    tensors = {"w0": first, "w1": second, **parts}
    return save(path, model(nodes, [tensor(name, values) for name, values in tensors.items()]))


def test_only_what_changes_nothing_is_called_prunable(tmp_path: Path) -> None:
    """Without the filters that the check counts the output stays; without those small beside the peak it goes."""
    image = np.random.default_rng(0).normal(size=(1, 8, 12, 12)).astype(np.float32)

    def output(path: Path) -> np.ndarray:
        (y,) = ReferenceEvaluator(onnx.load(path)).run(None, {"x": image})
        return np.asarray(y, np.float64)

    path = rescaled(tmp_path / "m.onnx")
    before = output(path)
    counts, changes = {}, {}
    for kind in ("channel", "layer"):
        zeroed = rescaled(tmp_path / f"{kind}.onnx", zero=kind)
        weights = [numpy_helper.to_array(stored) for stored in onnx.load(zeroed).graph.initializer[:2]]
        counts[kind] = sum(int((weight.reshape(-1, 9) == 0).all(axis=1).sum()) for weight in weights)
        changes[kind] = float(np.linalg.norm(output(zeroed) - before) / np.linalg.norm(before))
    assert changes["channel"] < 0.01 and changes["layer"] > 0.5
    result = fdb.check(path)
    prunable = summary(result)["prunable"]
    assert prunable["filters"] == counts["channel"] >= 64
    assert prunable["filters"] + prunable["small_relative_to_peak"] == counts["layer"]
    # S stays P1's: relative to the layer's peak.
    assert float(result["sparsity"][0]) > 0.9


def test_the_keys_of_the_answer(tmp_path: Path) -> None:
    answer = checked(fdb.check(rescaled(tmp_path / "m.onnx")))
    assert answer["prunable"].keys() == {
        "filters", "parameters", "of_parameters", "share", "layers",
        "channels", "small_relative_to_peak", "small_channels",
    }  # fmt: skip
    assert answer["prunable"]["layers"][0].keys() == {"file", "layer", "filters", "parameters", "channels"}
    assert answer["rows"][0].keys() >= {"prunable_filters", "small_filters", "zero_channels", "outlier_ratio"}


@pytest.mark.parametrize("key", ["dead_channels", "dead-channels"])
def test_a_rule_is_set_by_its_name_too(key: str, tmp_path: Path) -> None:
    weight = trained(8, 8, 1)
    weight[0] = 0
    path = chain(tmp_path / "m.onnx", weight)
    (tmp_path / "rules.toml").write_text(f"{key} = 0.5\n")
    assert not findings(fdb.check(path, rules=tmp_path / "rules.toml"))
