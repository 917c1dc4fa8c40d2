"""Planted faults are found, healthy models have none but those that the numbers show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from onnx import TensorProto, helper
from scipy.stats import entropy, percentileofscore

import filterdb as fdb
from filterdb.analysis.findings import findings, summary
from filterdb.analysis.rules import Rules, as_rules, as_settings
from filterdb.commands.check_answer import to_answer as checked
from filterdb.errors import UsageError
from filterdb.models.model import filters_hash
from filterdb.models.sandbox import Limits
from filterdb.numerics.percentiles import percentiles
from tests import hostile
from tests.filters import trained
from tests.models import chain, conv, model, save, tensor, weights
from tests.numerics import oracles


def verdicts(result: xr.Dataset) -> dict[str, set[str]]:
    """The verdicts of the layers that have any."""
    names = result["rule"].values
    pairs = zip(result["layer_name"].values, result["verdict"].values, strict=True)
    return {str(layer): set(names[hits]) for layer, hits in pairs if hits.any()}


def planted() -> dict[str, np.ndarray]:
    """Weights with a fault each, by its name; all of 32 output channels."""
    rng = np.random.default_rng(5)
    sparse, repeated, nonfinite = trained(32, 32, 1), trained(32, 32, 2), trained(32, 32, 3)
    sparse.reshape(-1, 9)[:600] *= 1e-4
    repeated.reshape(-1, 9)[100:400] = repeated.reshape(-1, 9)[:1]
    nonfinite[0, 0, 0, 0], nonfinite[1, 1, 1, 1] = np.nan, -np.inf
    line = rng.laplace(0, 1, (1_024, 1)) * np.linspace(1, 2, 9) + rng.normal(0, 0.01, (1_024, 9))
    return {
        "dead": np.zeros((32, 32, 3, 3), np.float32),
        "sparse": sparse,
        "collapsed": line.reshape(32, 32, 3, 3).astype(np.float32),
        "random": rng.normal(0, 0.05, (32, 32, 3, 3)).astype(np.float32),
        "nonfinite": nonfinite,
        "duplicate": repeated,
    }


def test_planted_faults_are_found_and_nothing_else(tmp_path: Path) -> None:
    faults = planted()
    weights = [weight for fault in faults.values() for weight in (fault, trained(32, 32, 50 + len(faults)))]
    healthy = [trained(32, 32, 100 + i) for i in range(len(faults))]
    weights[1::2] = healthy
    result = fdb.check(chain(tmp_path / "m.onnx", *weights))
    found = verdicts(result)
    assert set(found) == {f"conv{2 * i}" for i in range(6)}
    for i, fault in enumerate(faults):
        assert fault in found[f"conv{2 * i}"], fault
    assert found["conv0"] == {"dead", "sparse", "collapsed"}  # what its numbers say as well
    assert [found[f"conv{i}"] for i in (2, 4, 6, 8, 10)] == [
        {"sparse"}, {"collapsed"}, {"random"}, {"nonfinite"}, {"duplicate"},
    ]  # fmt: skip
    said = {f.layer: f for f in findings(result)}
    assert [said[f"conv{2 * i}"].rule for i in range(6)] == list(faults)  # dead is told once
    assert [said[f"conv{2 * i}"].level for i in range(6)] == [
        "error",
        "warning",
        "warning",
        "warning",
        "error",
        "warning",
    ]
    assert "2 of 9216 weights are NaN or infinite" in said["conv8"].message
    assert np.isnan(result["sparsity"][8]) and result["filters"][8] == 1_024
    whole = summary(result)
    assert (whole["ok"], whole["errors"], whole["warnings"]) == (False, 2, 4)
    pruned = {row["layer"]: row["filters"] for row in whole["prunable"]["layers"]}
    assert pruned["conv0"] == 1_024
    # Of 600 filters 576 stand in 18 channels that are small as a whole, and are not small beside their channel.
    assert 24 <= pruned["conv2"] < 200 and result["small_filters"][2] >= 550 and result["small_channels"][2] == 18
    # Filters that repeat are counted, and are none that could be left out.
    assert pruned.get("conv10", 0) < 10 and result["duplicate_filters"][10] == 300
    assert (whole["prunable"]["channels"], whole["prunable"]["small_channels"]) == (32, 18)
    assert whole["prunable"]["parameters"] == 9 * sum(pruned.values())
    assert whole["prunable"]["of_parameters"] == 12 * 9_216


def test_duplicate_layers_within_and_across_files(tmp_path: Path) -> None:
    one, two = trained(16, 16, 1), trained(16, 16, 2)
    first = chain(tmp_path / "a.onnx", one, two, one, np.zeros_like(one), np.zeros_like(one))
    second = chain(tmp_path / "b.onnx", trained(16, 16, 3), two)
    result = fdb.check([first, second])
    twins = dict(zip(result["layer_name"].values, result["duplicate_of"].values, strict=True))
    assert list(result["duplicate_of"].values) == ["", "", "conv0", "", "", "", f"{first}:conv1"], twins
    alone = fdb.check(second)
    assert verdicts(alone) == {}


def test_a_weight_that_layers_share_is_stored_once(tmp_path: Path) -> None:
    nodes = [conv("x", "w", "a", "one"), conv("a", "w", "b", "two"), conv("b", "other", "y", "three")]
    weight = trained(16, 16, 1)
    weight.reshape(-1, 9)[:100] = 0
    path = save(tmp_path / "m.onnx", model(nodes, [tensor("w", weight), tensor("other", weight)]))
    result = fdb.check(path)
    assert list(result["shared_with"].values) == ["", "one", ""]
    assert list(result["duplicate_of"].values) == ["", "", "one"]
    assert result["parameters"].values.tolist() == [2_304, 0, 2_304]
    assert result["prunable_parameters"].values.tolist()[:2] == [9 * result["prunable_filters"].values[0], 0]
    prunable = summary(result)["prunable"]
    assert [row["layer"] for row in prunable["layers"]] == ["one", "three"]
    assert prunable["parameters"] == 9 * prunable["filters"] > 0 and prunable["channels"] == 12


def test_an_untrained_model_is_called_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(16, 16, 3, 3)).astype(np.float32) for _ in range(3)]
    wide = np.ones((256, 256, 1, 1), np.float32)
    files = [
        chain(tmp_path / "new.onnx", *noise),
        chain(tmp_path / "half.onnx", *noise[:2], trained(16, 16)),
        chain(tmp_path / "short.onnx", *noise[:2]),
        chain(tmp_path / "wide.onnx", *noise, wide),
    ]
    result = fdb.check(files)
    assert result["untrained"].values.tolist() == [True, False, False, False]
    listed = [(f.file, f.level, f.message) for f in findings(result) if f.rule == "untrained"]
    message = "none of its 3 layers of at least 64 filters can be distinguished from isotropic noise"
    assert listed == [(str(files[0]), "error", message)]
    assert [file["status"] for file in checked(result)["files"]] == ["failed", "passed", "passed", "passed"]
    db = fdb.ingest(tmp_path / "db", files).database
    stored = fdb.degeneration(db)
    assert stored["untrained"].values.tolist() == [True, False, False, False]
    filters = result["kernel"].values == "3x3"
    np.testing.assert_allclose(stored["p_value"], result["p_value"][filters], rtol=1e-6)
    assert fdb.degeneration(db, mode="paper")["untrained"].values.tolist() == [True, False, True, True]


def test_filters_that_are_nearly_equal_are_collapsed(tmp_path: Path) -> None:
    """Also where their small differences are noise."""
    noise = np.random.default_rng(0).normal(size=(16, 16, 3, 3))
    layers = [(1 + 0.05 * noise).astype(np.float32), (1 + 0.5 * noise).astype(np.float32)]
    result = fdb.check(chain(tmp_path / "m.onnx", *layers))
    assert verdicts(result) == {"conv0": {"collapsed"}}
    assert (result["variance_entropy"] > 0.9).all() and (result["p_value"] < 1e-9).all()
    filters = layers[0].reshape(-1, 9).astype(np.float64)
    spread = np.sqrt(filters.var(axis=0).sum()) / np.linalg.norm(filters.mean(axis=0))
    assert result["relative_spread"][0] == pytest.approx(spread, rel=1e-9)
    assert findings(result)[0].message == (
        f"its 256 filters are nearly equal: they differ by {spread:.1%} of their mean (at least 10% expected); "
        "entropy above all 5 layers of this shape and depth"
    )


def test_an_unknown_scale_has_no_verdict(tmp_path: Path) -> None:
    node = helper.make_node("ConvInteger", ["x", "q"], ["y"], name="ci")
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, None)
    y = helper.make_tensor_value_info("y", TensorProto.INT32, None)
    weight = np.random.default_rng(0).integers(0, 255, (16, 16, 3, 3)).astype(np.uint8)
    graph = helper.make_graph([node], "g", [x], [y], [tensor("q", weight)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    answer = checked(fdb.check(save(tmp_path / "m.onnx", proto)))
    (row,) = answer["rows"]
    assert row["verdict"] is None and row["scale_known"] is False and np.isnan(row["sparsity"])
    assert answer["ok"]


@pytest.mark.slow
def test_real_models_are_healthy_but_for_two_layers(demo_catalog: Path, real_db: fdb.Database) -> None:
    """The numbers are those of a database; two layers use fewer than two of nine directions, by their filters' SVD."""
    result = fdb.check(sorted(demo_catalog.parent.rglob("*.onnx")), kernel="3x3")
    assert result.attrs["models"] == 23 and not any(result["reason"].values)
    assert verdicts(result) == {"p2o.Conv.11": {"collapsed"}, "Conv__580": {"collapsed"}}
    assert {f.rule for f in findings(result)} == {"collapsed", "nothing-checked"}
    assert summary(result)["unread"] == 0 and not summary(result)["ok"]
    with_layers = [file for file in result["file"].values if (result["layer_file"] == file).any()]
    assert len(with_layers) == 8
    assert summary(fdb.check([demo_catalog.parent / file for file in with_layers], kernel=(3, 3)))["status"] == "passed"
    stored = fdb.degeneration(real_db)
    hashes = real_db.layers["hash"].values.astype(str)
    for i, content in enumerate(result["hash"].values):
        (j,) = np.flatnonzero(hashes == content)
        for name in ("filters", "sparsity", "variance_entropy", "threshold", "peak"):
            assert float(result[name][i]) == pytest.approx(float(stored[name][j]), rel=1e-9, abs=1e-12)
    ends = np.cumsum(real_db.layers["row_size"].values)
    for i in np.flatnonzero(result["verdict"].values.any(axis=1)).tolist():
        (j,) = np.flatnonzero(hashes == result["hash"].values[i])
        rows = real_db.dataset.filters[ends[j] - int(result["filters"][i]) : ends[j]].values
        _, _, ratio = oracles.svd_pca(rows)
        assert 1 < 10 ** entropy(ratio, base=10) < 2


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    good = chain(tmp_path / "good.onnx", trained(16, 16))
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    result = fdb.check([tmp_path / "bad.onnx", good, tmp_path / "absent.onnx"])
    assert [bool(reason) for reason in result["reason"].values] == [True, False, True]
    assert [(f.rule, f.level, Path(f.file).name) for f in findings(result)] == [
        ("unreadable", "error", "bad.onnx"),
        ("unreadable", "error", "absent.onnx"),
    ]
    answer = checked(result)
    assert [row["verdict"] for row in answer["rows"]] == [[], ["unreadable"], ["unreadable"]]
    assert "expected a protobuf ModelProto" in answer["rows"][1]["reason"]


@pytest.mark.slow
def test_hostile_files_are_findings(tmp_path: Path) -> None:
    """Each costs itself and nothing else, as at ingest; what lies outside their folders is not looked at."""
    cases = {name: case for name, case in hostile.write_corpus(tmp_path).items() if not case.bomb and not case.or_else}
    assert len(cases) > 100
    result = fdb.check([case.path for case in cases.values()])
    reasons = dict(zip(cases, result["reason"].values, strict=True))
    shown = dict(zip(cases, result["file"].values, strict=True))
    good = filters_hash(hostile.case.GOOD.reshape(-1, 9))
    for name, case in cases.items():
        assert bool(reasons[name]) == (case.end == "rejected"), (name, reasons[name])
        assert len(str(reasons[name])) < 2_500
        rows = result["layer_file"].values == shown[name]
        if case.end != "rejected" and len(case.kept) == 1 and case.kept[0] is hostile.case.GOOD:
            assert good in result["hash"].values[rows], name
    outside = filters_hash(np.resize(hostile.CANARY_FLOATS, (12, 9)))
    assert outside not in result["hash"].values


def test_a_layer_that_takes_too_much_is_a_finding(tmp_path: Path) -> None:
    """Constants that are packed need more memory than their file: the layer is not passed over in silence."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        conv("x", "w", "h", "large"),
        conv("h", "small", "y", "small"),
    ]
    tensors = [
        tensor("q", np.ones((1024, 1024, 3, 3), np.int8)),
        tensor("s", np.ones((), np.float32)),
        tensor("small", trained(16, 16)),
    ]
    path = save(tmp_path / "m.onnx", model(nodes, tensors))
    result = fdb.check(path, limits=Limits(memory=60 * 2**20))
    assert [(f.layer, f.rule, f.level) for f in findings(result)] == [("large", "unread", "error")]
    answer = checked(result)
    assert [(row["layer"], row["verdict"]) for row in answer["rows"]] == [("small", []), ("large", ["unread"])]
    assert not answer["ok"] and "more memory" in answer["rows"][1]["reason"]


@pytest.mark.parametrize("suffix", [".toml", ".yaml"])
def test_a_file_of_rules(tmp_path: Path, suffix: str) -> None:
    settings = {
        ".toml": 'sparse = 0.7\nfail = ["sparse", "random"]\nignore = ["conv2", "*m.onnx:conv*1"]\n',
        ".yaml": "sparse: 0.7\nfail: [sparse, random]\nignore:\n- conv2\n- '*m.onnx:conv*1'\n",
    }
    (tmp_path / f"rules{suffix}").write_text(settings[suffix])
    assert as_rules(tmp_path / f"rules{suffix}") == Rules(
        sparse=0.7, fail=("sparse", "random"), ignore=("conv2", "*m.onnx:conv*1")
    )
    faults = planted()
    path = chain(tmp_path / "m.onnx", faults["sparse"], faults["random"], faults["random"], faults["dead"])
    result = fdb.check(path, rules=tmp_path / f"rules{suffix}")
    assert {f.layer: (f.rule, f.level) for f in findings(result)} == {
        "conv1": ("random", "ignored"),
        "conv2": ("duplicate", "ignored"),
        "conv3": ("dead", "warning"),
    }
    assert summary(result)["ok"]
    strict = fdb.check(path, rules={"sparse": 0.5, "fail": ["sparse"]})
    assert [f.layer for f in findings(strict) if f.level == "error"] == ["conv0"]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (
            {"sparsity": 1},
            "expected one of the keys sparse, collapsed, constant, random, random_p, smallest, duplicate",
        ),
        ({"dead_channels": 2}, "dead_channels: expected a number from 0 to 1, got 2"),
        ({"outlier": "big"}, "outlier: expected a number, got 'big'"),
        ({"sparse": "much"}, "sparse: expected a number, got 'much'"),
        ({"sparse": 2}, "sparse: expected a number from 0 to 1, got 2"),
        ({"random_p": 2}, "random_p: expected a number from 0 to 1, got 2"),
        ({"random": -1}, "random: expected a number of at least 0"),
        ({"smallest": 1.5}, "smallest: expected a whole number"),
        ({"collapsed": float("nan")}, "collapsed: expected a number from 0 to 9"),
        ({"fail": "dead"}, "fail: expected a list of texts"),
        ({"fail": ["ugly"]}, "fail: expected a list out of dead, sparse"),
        ("sparse: [", "expected rules in TOML"),
        ("- sparse", "expected keys with values, got a list"),
    ],
)
def test_rules_that_do_not_fit_are_one_line(tmp_path: Path, rules: Any, says: str) -> None:
    if isinstance(rules, str):
        (tmp_path / "rules.yaml").write_text(rules)
        rules = tmp_path / "rules.yaml"
    with pytest.raises(UsageError, match=says) as caught:
        fdb.check(tmp_path / "never-read.onnx", rules=rules)
    assert "\n" not in str(caught.value)


def test_the_rules_of_a_result_are_rules() -> None:
    """So that an answer's rules can be used for the next check."""
    for rules in (Rules(), Rules(random=0.9, random_p=0.01)):
        assert as_rules(json.loads(json.dumps(as_settings(rules)))) == rules


def test_thresholds_move_the_verdicts(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx", trained(16, 16), planted()["random"])
    measured = fdb.check(path)
    ratios, p, spread = (measured[name].values for name in ("ratio", "p_value", "relative_spread"))
    assert verdicts(fdb.check(path, rules={"random_p": float(p[0])})).keys() == {"conv0", "conv1"}
    assert verdicts(fdb.check(path, rules={"random_p": float(p[1]) * 1.001})) == {}
    assert verdicts(fdb.check(path, rules={"random": float(ratios[1])})) == {"conv1": {"random"}}
    assert verdicts(fdb.check(path, rules={"random": float(ratios[1]) * 1.001})) == {}
    assert verdicts(fdb.check(path, rules={"smallest": 257})) == {"conv1": {"random"}}
    assert verdicts(fdb.check(path, rules={"collapsed": 9, "random": 9})).keys() == {"conv0", "conv1"}
    assert verdicts(fdb.check(path, rules={"constant": spread.max() * 1.001, "random": 9})).keys() == {"conv0", "conv1"}


def test_places_among_the_layers_of_a_database(real_db: fdb.Database, demo_catalog: Path) -> None:
    model_file = next(demo_catalog.parent.glob("rapidocr*/**/*det*.onnx"))
    result = fdb.check(model_file, db=real_db, kernel="3x3")
    stored = fdb.degeneration(real_db)

    def kind(depth: float, size: int) -> tuple[int, int]:
        # Deciles are closed on the right; the first has both ends.
        return max(int(np.ceil(round(depth * 10, 9))) - 1, 0), int(np.floor(np.log(size) / np.log(16) + 1e-12))

    pairs = [("sparsity", "sparsity_percentile"), ("ratio", "ratio_percentile")]
    kinds = [kind(float(d), int(n)) for d, n in zip(stored["conv_depth_norm"], stored["filters"], strict=True)]
    seen = set()
    for i in range(result.sizes["layer"]):
        mine = kind(float(result["conv_depth_norm"][i]), int(result["filters"][i]))
        like = [j for j, other in enumerate(kinds) if other == mine]
        assert int(result["peers"][i]) == len(like)
        for name, place in pairs:
            values = stored[name].values[like]
            expected = percentileofscore(values[np.isfinite(values)], float(result[name][i]), kind="mean")
            # What is equal in the store is equal to rounding here.
            assert float(result[place][i]) == pytest.approx(expected, abs=100 / len(like))
            seen.add(float(result[place][i]))
    assert len(seen) > 5
    assert (result.attrs["snapshot"], result.attrs["corpus"]) == (real_db.snapshot, "all")


def test_percentiles_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    among, values = rng.integers(0, 20, 200) / 10, np.array([-1.0, 0.0, 0.5, 0.55, 1.9, 7.0, np.nan])
    expected = [percentileofscore(among, value, kind="mean") for value in values[:-1]]
    np.testing.assert_allclose(percentiles(values, among), [*expected, np.nan])
    assert np.isnan(percentiles(values, among[:0])).all()


def test_a_folder_without_layers_of_the_kernel(tmp_path: Path) -> None:
    chain(tmp_path / "m.onnx", np.ones((4, 4, 5, 5), np.float32))
    result = fdb.check(tmp_path, kernel="3x3")
    assert result.sizes == {"layer": 0, "rule": 10, "file": 1}
    assert json.loads(result["skipped"].values[0]) == {"kernel": 1}
    answer = checked(result)
    assert (answer["ok"], answer["layers"], answer["models"], answer["snapshot"]) == (False, 0, 1, None)
    (row,) = answer["rows"]
    assert (row["layer"], row["verdict"], row["filters"]) == (None, ["nothing-checked"], None)


def test_a_file_that_is_named_twice_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chain(tmp_path / "m" / "a.onnx", trained(16, 16, 1))
    chain(tmp_path / "m" / "b.onnx", trained(16, 16, 2))
    monkeypatch.chdir(tmp_path)
    result = fdb.check([tmp_path / "m", path, "m/a.onnx", path])
    assert [Path(name).name for name in result["file"].values] == ["a.onnx", "b.onnx"]
    assert not findings(result) and summary(result)["ok"]


def test_layers_that_cannot_be_read_are_ignored_as_others_are(tmp_path: Path) -> None:
    short = tensor("w", trained(16, 16, 1))
    short.raw_data = short.raw_data[:-4]
    nodes = [conv("x", "w", "a", "broken"), conv("a", "v", "y", "sound")]
    path = save(tmp_path / "m.onnx", model(nodes, [short, tensor("v", trained(16, 16, 2))]))
    for ignore, level in (((), "error"), (("bro*",), "ignored")):
        result = fdb.check(path, rules={"ignore": list(ignore)})
        (finding,) = findings(result)
        assert summary(result)["status"] == "incomplete" and summary(result)["ok"] == bool(ignore)
        assert (finding.layer, finding.rule, finding.level) == ("broken", "unread", level)


def test_a_constant_in_a_function_is_stored_once_however_often_it_is_called(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=tensor("", trained(16, 16, 1)))
    domains = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    function = helper.make_function("own", "F", ["a"], ["b"], [constant, conv("a", "w", "b", "c")], domains[1:])
    calls = [helper.make_node("F", [one], [two], domain="own") for one, two in (("x", "h"), ("h", "y"))]
    proto = model(calls, functions=[function], opset_imports=domains)
    result = fdb.check(save(tmp_path / "m.onnx", proto))
    assert result.sizes["layer"] == 2 and list(result["duplicate_of"].values) == ["", ""]
    assert result["parameters"].values.tolist() == [2_304, 0]


def test_a_relative_path_means_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the process that reads, which lives on from one folder to the next."""
    for name, out in (("a", 4), ("b", 6)):
        chain(tmp_path / name / "m.onnx", weights(out, 3))
    for name, filters in (("a", 12), ("b", 18), ("a", 12)):
        monkeypatch.chdir(tmp_path / name)
        assert fdb.check("m.onnx").attrs["filters"] == filters
