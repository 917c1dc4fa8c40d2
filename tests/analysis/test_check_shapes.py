"""A check of layers of every kernel shape: faults planted in each are found, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import xarray as xr
from onnx import helper
from scipy.stats import chi2, entropy, percentileofscore

import filterdb as fdb
from filterdb.analysis.findings import findings, summary
from filterdb.commands.check_answer import to_answer as checked
from filterdb.commands.junit import junit
from filterdb.commands.sarif import sarif
from filterdb.errors import UsageError
from tests.commands.running import run
from tests.filters import trained
from tests.models import chain, conv, model, save, tensor
from tests.numerics import oracles

SHAPES = {
    "5x5, depthwise": (128, 1, 5, 5),
    "7x7": (32, 8, 7, 7),
    "1x9": (32, 16, 1, 9),
    "1x9, one-dimensional": (32, 16, 9),
    "2x2": (32, 16, 2, 2),
    "1x3": (32, 32, 1, 3),
    "16x16": (192, 3, 16, 16),
    "17x17": (96, 3, 17, 17),
    "1x1": (64, 32, 1, 1),
    "1x1, one-dimensional": (64, 32, 1),
}
"""Shapes of weights, by the name of their kernel."""

BANKED = [name for name in SHAPES if not name.startswith(("1x1", "17x17"))]


def weight_like(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A weight whose filters are mixtures of low cosines and some noise; a 1×1 one has unequal input channels."""
    rng = np.random.default_rng([seed, *shape])
    out, into, *kernel = shape
    size = int(np.prod(kernel))
    if size == 1:
        return (rng.laplace(0, 1, shape[:2]) * rng.lognormal(0, 0.5, into)).reshape(shape).astype(np.float32)
    sides = [np.cos(np.pi * np.outer(np.arange(n), np.arange(n) + 0.5) / n) for n in kernel]
    waves = sides[0] if len(sides) == 1 else np.einsum("ui,vj->uvij", *sides).reshape(size, size)
    order = np.argsort(np.add.outer(*map(np.arange, kernel)).ravel(), kind="stable") if len(kernel) > 1 else slice(None)
    waves = waves[order][: min(6, size)]
    filters = (rng.laplace(0, 1, (out * into, len(waves))) * np.linspace(2, 1, len(waves))) @ waves
    noise = 0.1 * filters.std() * rng.normal(size=filters.shape)
    return (0.05 * (filters + noise)).reshape(shape).astype(np.float32)


def faulty(fault: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of this shape with a fault."""
    rng, weight = np.random.default_rng([7, *shape]), weight_like(shape, 99)
    size = int(np.prod(shape[2:]))
    filters = weight.reshape(-1, size)
    if fault == "dead":
        filters[:] = 0
    if fault == "nonfinite":
        filters[3, 0], filters[5, 0] = np.nan, np.inf
    if fault == "sparse":
        filters[rng.random(len(filters)) < 0.7] *= 1e-4
    if fault == "duplicate":
        parts = weight.reshape(shape[0], -1) if size == 1 else filters
        parts[len(parts) // 2 :] = parts[:1]
    if fault == "collapsed":
        filters[:] = rng.laplace(0, 1, (len(filters), 1)) * np.linspace(1, 2, size)
        filters += rng.normal(0, 0.01, filters.shape)
    if fault == "random":
        filters[:] = rng.normal(0, 0.05, filters.shape)
    return weight


def rules_of(result: xr.Dataset) -> dict[str, set[str]]:
    """The rules of the findings of each layer, or of a file."""
    listed: dict[str, set[str]] = {}
    for finding in findings(result):
        listed.setdefault(finding.layer, set()).add(finding.rule)
    return listed


def expected(name: str) -> list[str]:
    """The faults that are found in layers of a shape."""
    if name.startswith("1x1"):
        return ["dead", "nonfinite", "duplicate"]
    if name == "17x17":
        return ["dead", "nonfinite", "duplicate", "sparse"]
    # Three weights of a filter may be equal by chance.
    return ["dead", "nonfinite", "sparse", "collapsed", "random", *([] if name == "1x3" else ["duplicate"])]


@pytest.mark.parametrize("name", SHAPES)
def test_faults_in_layers_of_a_shape_are_found_and_nothing_else(name: str, tmp_path: Path) -> None:
    shape, kernel = SHAPES[name], name.partition(",")[0]
    faults = ["dead", "nonfinite", "sparse", "collapsed", "random", "duplicate"]
    weights = [w for i, fault in enumerate(faults) for w in (faulty(fault, shape), weight_like(shape, i))]
    result = fdb.check(chain(tmp_path / "m.onnx", *weights))
    assert rules_of(result) == {f"conv{2 * faults.index(fault)}": {fault} for fault in expected(name)}
    assert set(result["kernel"].values) == {kernel}
    assert set(result["rank"].values) == {len(shape) - 2}
    judged = result.isel(layer=[1, 3, 5, 7])
    has_entropy = np.isfinite(judged["variance_entropy"].values)
    assert has_entropy.all() == has_entropy.any() == (name in BANKED)
    assert (np.isfinite(judged["p_value"].values) == has_entropy).all()
    assert (np.isnan(result["threshold"].values) == (np.prod(shape[2:]) != 9)).all()
    assert int(result["parameters"].sum()) == sum(weight.size for weight in weights)
    for finding in findings(result):
        assert finding.kernel == tuple(int(side) for side in kernel.split("x"))


def test_the_numbers_of_a_layer_equal_numpy_and_scipy(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    weights = [weight_like((64, 8, 5, 5)), rng.normal(size=(128, 128, 5, 5)).astype(np.float32)]
    result = fdb.check(chain(tmp_path / "m.onnx", *weights))
    for i, weight in enumerate(weights):
        filters = weight.reshape(-1, 25)
        _, _, ratio = oracles.svd_pca(filters)
        assert float(result["variance_entropy"][i]) == pytest.approx(entropy(ratio, base=10), rel=1e-9)
        sparse = np.abs(filters).max(axis=1) < float(np.abs(filters).max()) / 100
        assert float(result["sparsity"][i]) == sparse.mean()
    # The test of the second layer, with the fourth moments of its own filters.
    scaled = weights[1].reshape(-1, 25).astype(np.float64)
    scaled /= np.abs(scaled).max(axis=1, keepdims=True)
    squares = scaled**2
    mean, mixed = squares.mean(), (squares.T @ squares / len(squares))[~np.eye(25, dtype=bool)].mean()
    second = scaled.T @ scaled / len(scaled)
    departure = second / np.trace(second) - np.eye(25) / 25
    diagonal = (np.diagonal(departure) ** 2).sum()
    off_variance, diagonal_variance = mixed / mean**2, ((squares**2).mean() - mixed) / (2 * mean**2)
    q = len(scaled) * 625 / 2 * (((departure**2).sum() - diagonal) / off_variance + diagonal / diagonal_variance)
    assert float(result["p_value"][1]) == pytest.approx(chi2.sf(q, 324), abs=0.02)
    assert float(result["p_value"][0]) < 1e-9


def mixed_file(path: Path) -> Path:
    """A model with layers of several shapes, of which the 3×3 ones have faults."""
    zero = np.zeros((16, 16, 3, 3), np.float32)
    noise = np.random.default_rng(0).normal(size=(16, 16, 3, 3)).astype(np.float32)
    small = trained(16, 16, 4)
    small.reshape(-1, 9)[:60] *= 1e-3
    return chain(
        path, trained(16, 16, 1), faulty("dead", (64, 32, 1, 1)), zero, faulty("collapsed", (64, 1, 5, 5)), noise, small
    )


def test_one_shape_has_the_answer_of_a_file_without_the_others(tmp_path: Path) -> None:
    """Apart from depths, which all convolutions of a file have in common."""
    only = ("w0", "w2", "w4", "w5")
    path = mixed_file(tmp_path / "a" / "m.onnx")
    proto = onnx.load(path)
    kept = [node for node in proto.graph.node if node.input[1] in only]
    for i, node in enumerate(kept):
        node.input[0], node.output[0] = ("x" if i == 0 else f"k{i}"), ("y" if i == 3 else f"k{i + 1}")
    tensors = [t for t in proto.graph.initializer if t.name in only]
    alone = save(tmp_path / "b" / "m.onnx", model(kept, tensors))
    answers = [checked(fdb.check(file, kernel=kernel)) for file, kernel in ((path, "3x3"), (alone, None))]
    for answer in answers:
        assert [file.pop("skipped") for file in answer["files"]] in ([{"kernel": 2}], [{}])
        del answer["kernel"]
        for row in [*answer["rows"], *answer["findings"], *answer["files"]]:
            for key in ("conv_depth", "conv_depth_norm", "percentile", "percentile_peers", "peers", "message",
                        "sparsity_percentile", "ratio_percentile", "file"):  # fmt: skip
                row.pop(key, None)
        for row in answer["prunable"]["layers"]:
            del row["file"]
    first, second = (json.dumps(answer, sort_keys=True, default=str) for answer in answers)
    assert first == second
    assert answers[0]["kernels"] == {"3x3": 4} and answers[0]["filters"] == 4 * 256
    assert {(row["layer"], row["rule"]) for row in answers[0]["findings"]} == {("conv2", "dead"), ("conv4", "random")}


def test_the_kernel_is_in_every_form_of_the_answer(tmp_path: Path) -> None:
    path = mixed_file(tmp_path / "m.onnx")
    result = fdb.check(path)
    answer = checked(result)
    kernels = ["3x3", "1x1", "3x3", "5x5", "3x3", "3x3"]
    assert [row["kernel"] for row in answer["rows"]] == kernels
    assert [row["rank"] for row in answer["rows"]] == [2] * 6
    assert answer["kernels"] == {"3x3": 4, "5x5": 1, "1x1": 1} and answer["kernel"] == "all"
    assert answer["rows"][1]["prunable_filters"] is None and answer["rows"][3]["prunable_filters"] == 0
    assert {(row["layer"], row["kernel"]) for row in answer["findings"]} == {
        ("conv1", "1x1"), ("conv2", "3x3"), ("conv3", "5x5"), ("conv4", "3x3"),
    }  # fmt: skip
    messages = {row["layer"]: row["message"] for row in answer["findings"]}
    assert messages["conv1"] == "all 2,048 weights are zero"
    assert messages["conv3"].startswith("its 64 5×5 filters use 1.0")
    cases = ElementTree.fromstring(junit(result)).iter("testcase")
    shown = {case.get("name"): [p.get("value") for p in case.iter("property")] for case in cases}
    assert [shown[f"conv{i}"] for i in range(6)] == [[kernel] for kernel in kernels] and shown["is trained"] == []
    results = json.loads(sarif(result))["runs"][0]["results"]
    assert [entry["properties"]["kernel"] for entry in results] == ["1x1", "3x3", "5x5", "3x3"]
    assert answer["reference"]["kernels"] == ["3x3"]
    # Filters of 1×1 layers are not counted as such, nor what could be pruned of them.
    assert answer["filters"] == 4 * 256 + 64 and answer["layers"] == 6
    assert answer["prunable"]["of_parameters"] == 4 * 2_304 + 1_600


@pytest.mark.slow
def test_what_is_printed_of_several_shapes(tmp_path: Path) -> None:
    lines = run("check", mixed_file(tmp_path / "m.onnx"), code=1).stdout.splitlines()
    assert "layers by kernel: 3×3: 4, 5×5: 1, 1×1: 1 (1×1: only peak, sparsity and duplicates are checked)" in lines
    assert "no percentiles for 5×5: the reference has only layers of 3×3" in lines
    assert any("conv3" in line and "5×5" in line and "collapsed" in line for line in lines)
    only = run("check", tmp_path / "m.onnx", "--kernel", "5x5").stdout
    assert "not checked: 5 convolutions without a 5×5 weight (5 kernel)" in only
    assert only.splitlines()[-1] == "passed: 1 model, 1 layer, 64 filters · 1 warning"
    done = run("check", tmp_path / "m.onnx", "--kernel", "1x1", code=2)
    assert "expected a shape of 2 to 256 weights, got 1x1" in done.stderr


def test_a_file_with_only_1x1_layers(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx", *(weight_like((64, 32, 1, 1), i) for i in range(3)))
    answer = checked(fdb.check(path))
    assert (answer["status"], answer["layers"], answer["filters"]) == ("passed", 3, 0)
    for row in answer["rows"]:
        assert row["verdict"] == [] and row["parameters"] == 2_048 and row["sparsity"] > 0
        assert np.isnan(row["variance_entropy"]) and np.isnan(row["p_value"])
    none = checked(fdb.check(path, kernel=(3, 3)))
    assert none["status"] == "nothing-checked"
    assert none["findings"][0]["message"] == "none of its 3 convolutions has a 3×3 weight (3 kernel)"
    with pytest.raises(UsageError, match="a shape of 2 to 256 weights"):
        fdb.check(path, kernel="1x1")


def test_1x1_layers_that_share_a_weight_or_have_it_again(tmp_path: Path) -> None:
    """The heads of a detector use one weight at several scales; that is no duplicate."""
    weight = weight_like((64, 32, 1, 1))
    nodes = [conv("x", "w", "a", "one"), conv("a", "w", "b", "two"), conv("b", "again", "y", "three")]
    result = fdb.check(save(tmp_path / "m.onnx", model(nodes, [tensor("w", weight), tensor("again", weight)])))
    assert result["shared_with"].values.tolist() == ["", "one", ""]
    assert result["duplicate_of"].values.tolist() == ["", "", "one"]
    assert result["parameters"].values.tolist() == [2_048, 0, 2_048]
    (finding,) = findings(result)
    assert finding.message == "its 2,048 weights duplicate those of one"


def test_equal_numbers_in_layers_of_different_shapes_are_no_duplicates(tmp_path: Path) -> None:
    weight = trained(16, 16, 1)
    layers = [weight, weight.reshape(16, 16, 1, 9), weight.reshape(144, 16, 1, 1)]
    assert rules_of(fdb.check(chain(tmp_path / "m.onnx", *layers))) == {}


def test_few_weights_of_eight_bits_may_be_equal(tmp_path: Path) -> None:
    """Filters of two or three weights, and 1×1 channels of as many, are not compared with each other."""
    rng = np.random.default_rng(0)
    shapes = [(64, 64, 1, 2), (64, 64, 1, 3), (2_048, 2, 1, 1), (64, 64, 2, 2)]
    levels = [
        (np.round(weight_like(shape) / np.abs(weight_like(shape)).max() * 127)).astype(np.float32) for shape in shapes
    ]
    levels[2] = np.round(rng.laplace(0, 12, shapes[2])).astype(np.float32)
    result = fdb.check(chain(tmp_path / "m.onnx", *levels))
    assert (result["duplicate_filters"].values[[0, 2]] > [400, 204]).all()
    assert all("duplicate" not in rules for rules in rules_of(result).values())


def separable(seed: int, *, frozen: bool = False, wide: int = 0) -> list[np.ndarray]:
    """The layers of a network of depthwise and 1×1 convolutions as they are initialised."""
    rng = np.random.default_rng(seed)
    shapes = [(32, 3, 3, 3)]
    for kernel, into, out in ((3, 32, 96), (5, 96, 128), (5, 128, 128), (7, 128, 160)):
        shapes += [(into, 1, kernel, kernel), (into // 4, into, 1, 1), (into, into // 4, 1, 1), (out, into, 1, 1)]
    layers = [rng.normal(0, np.sqrt(2 / (s[0] * np.prod(s[2:]))), s).astype(np.float32) for s in shapes]
    if frozen:
        layers[-1] = weight_like(shapes[-1])
    return layers + ([rng.normal(size=(160, wide, 17, 17)).astype(np.float32)] if wide else [])


def test_an_untrained_network_of_separable_convolutions(tmp_path: Path) -> None:
    """Its 1×1 layers have most weights: only together with them is it untrained."""
    moved = separable(2)
    moved[1] = weight_like(moved[1].shape)
    files = [
        chain(tmp_path / "new.onnx", *separable(1)),
        chain(tmp_path / "depthwise-trained.onnx", *moved),
        chain(tmp_path / "random-depthwise.onnx", *separable(3, frozen=True)),
        chain(tmp_path / "pointwise-only.onnx", *(layer for layer in separable(4) if layer.shape[2] == 1)),
        chain(tmp_path / "mostly-too-large.onnx", *separable(5, wide=4)),
    ]
    result = fdb.check(files)
    assert result["untrained"].values.tolist() == [True, False, False, False, False]
    said = next(finding for finding in findings(result) if finding.rule == "untrained")
    assert (
        said.message
        == "none of its 4 layers of at least 64 filters and 10 1×1 layers can be distinguished from isotropic noise"
    )
    assert not fdb.check(files[0], kernel="5x5")["untrained"].item()


@pytest.mark.slow
def test_no_trained_model_of_the_demo_is_untrained(demo_catalog: Path) -> None:
    """Nor does one of their layers of any shape, or 1×1 layer, look like noise."""
    result = fdb.check(demo_catalog.parent)
    assert not result["untrained"].values.any()
    assert not result["verdict"].sel(rule="random").values.any()
    tested = np.isfinite(result["channel_p_value"].values)
    assert tested.sum() > 80 and (result["channel_p_value"].values[tested] < 1e-6).mean() > 0.7
    assert {finding.rule for finding in findings(result) if finding.level == "error"} == {"nothing-checked"}


def test_peers_are_layers_of_the_same_shape(tmp_path: Path) -> None:
    shapes = [(32, 8, 5, 5), (16, 16, 3, 3), (64, 32, 1, 1), (64, 32, 1, 1)]
    for i in range(3):
        chain(tmp_path / f"{i}.onnx", *(weight_like(shape, 10 * i + j) for j, shape in enumerate(shapes)))
    db = fdb.ingest(tmp_path / "db", [tmp_path / f"{i}.onnx" for i in range(2)], kernels="all").database
    weights = [weight_like(shapes[0], 0), weight_like(shapes[1], 77), weight_like(shapes[2], 2)]
    query = chain(tmp_path / "q.onnx", *weights, weight_like((16, 16, 7, 7)))
    result = fdb.check(query, db=db)
    assert result["peers"].values.tolist()[:2] == [2, 2] and result["peers"].values.tolist()[2:] == [0, 0]
    assert np.isnan(result["sparsity_percentile"].values).tolist() == [False, False, True, True]
    stored = [fdb.degeneration(db, kernel=name) for name in ("5x5", "3x3")]
    for i, layers in enumerate(stored):
        among, value = layers["variance_entropy"].values, float(result["variance_entropy"][i])
        # What is equal in the store is equal to rounding here.
        assert float(result["percentile"][i]) == pytest.approx(percentileofscore(among, value, kind="mean"), abs=25.1)
    assert [bool(name) for name in result["stored_in"].values] == [True, False, False, False]
    assert str(result["stored_in"].values[0]).endswith("0.onnx/conv0")
    reference = json.loads(result.attrs["reference"])
    assert (reference["models"], reference["layers"], reference["kernels"]) == (2, 4, ["3x3", "5x5"])
    view = fdb.check(query, db=db.bank("5x5").select(model=db.bank("5x5").models["model"].values[:1]))
    assert view["peers"].values.tolist() == [1, 0, 0, 0]


def test_a_reference_of_another_shape(tmp_path: Path) -> None:
    chain(tmp_path / "m.onnx", weight_like((32, 8, 5, 5)), weight_like((16, 16, 3, 3)))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "m.onnx"], kernels="all").database
    fdb.write_reference(db.bank("5x5"), tmp_path / "five.json")
    result = fdb.check(tmp_path / "m.onnx", reference=tmp_path / "five.json")
    assert result["peers"].values.tolist() == [1, 0]
    assert json.loads(result.attrs["reference"])["kernels"] == ["5x5"]


def test_layers_are_in_the_order_of_the_network(tmp_path: Path) -> None:
    shapes = [(8, 8, 1, 1), (8, 8, 3, 3), (8, 8, 17, 17), (8, 8, 5, 5), (8, 8, 1, 1)]
    result = fdb.check(chain(tmp_path / "m.onnx", *(weight_like(shape, i) for i, shape in enumerate(shapes))))
    assert result["layer_name"].values.tolist() == [f"conv{i}" for i in range(5)]
    assert summary(result)["prunable"]["of_parameters"] == 64 * (9 + 25)


def test_three_dimensional_convolutions_are_not_checked(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="c")]
    weight = np.zeros((4, 4, 3, 3, 3), np.float32)
    answer = checked(fdb.check(save(tmp_path / "m.onnx", model(nodes, [tensor("w", weight)]))))
    assert answer["status"] == "nothing-checked" and answer["kernels"] == {}
