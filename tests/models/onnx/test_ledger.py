"""Every convolution that is not stored stands in the ledger with its reason, and costs nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from filterdb.errors import ModelError
from filterdb.models.onnx import constants
from filterdb.models.onnx.layers import read_model
from filterdb.models.parse_errors import NotStoredError
from tests.models import conv, model, save, tensor, weights

GOOD = weights()


def ledger(tmp_path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> dict[str, str]:
    """Codes by layer of a model in which the given nodes stand beside one good convolution, which is kept."""
    both = [conv("x", "good", "kept", "good"), *nodes]
    found = read_model(save(tmp_path / "m.onnx", model(both, [tensor("good", GOOD), *initializers])))
    assert "good" in [layer.name for layer in found.layers]
    skipped = {skip.layer: skip.code for skip in found.skipped}
    for layer in found.layers:
        try:
            layer.weight()
        except NotStoredError as error:
            skipped[layer.name] = error.code
    assert all(skip.reason for skip in found.skipped)
    return skipped


def bad(name: str, w: str, op: str = "Conv", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, ["x", w], [f"{name}_y"], name=name, **attributes)


def test_kernels_and_ranks(tmp_path: Path) -> None:
    nodes = [bad("point", "w1"), bad("wide", "w13"), bad("line", "wl"), bad("cube", "wc")]
    inits = [
        tensor("w1", weights(kernel=(1, 1))),
        tensor("w13", weights(kernel=(1, 3))),
        tensor("wl", weights(kernel=(3,))),
        tensor("wc", weights(kernel=(3, 3, 3))),
    ]
    assert ledger(tmp_path, nodes, inits) == {"point": "kernel", "wide": "kernel", "line": "rank", "cube": "rank"}


def test_transposed_and_foreign_operators(tmp_path: Path) -> None:
    nodes = [
        bad("up", "good", "ConvTranspose"),
        bad("up_fused", "good", "FusedConvTranspose", domain="somebody"),
        bad("deformed", "good", "DeformConv"),
        bad("foreign", "good", "StrangeConv", domain="somebody"),
        bad("foreign_point", "good", "StrangeConv", domain="somebody", kernel_shape=[1, 1]),
        bad("foreign_line", "good", "StrangeConv", domain="somebody", kernel_shape=[3]),
        bad("blocked", "good", "Conv", domain="com.microsoft.nchwc", kernel_shape=[3, 3]),
        bad("torch", "good", "ATen", domain="org.pytorch.aten", operator="conv2d"),
        bad("no_convolution", "good", "ConvertLayout", domain="somebody"),
    ]
    assert ledger(tmp_path, nodes, []) == {
        "up": "transposed",
        "up_fused": "transposed",
        "deformed": "deformable",
        "foreign": "operator",
        "foreign_point": "kernel",
        "foreign_line": "rank",
        "blocked": "operator",
        "torch": "operator",
    }


def test_weights_that_are_not_trained(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
        bad("generated", "filled"),
        helper.make_node("Relu", ["x"], ["made"]),
        bad("computed", "made"),
        bad("from_input", "x"),
        bad("dangling", "nowhere"),
        helper.make_node("Conv", ["x"], ["none_y"], name="weightless"),
    ]
    shape = tensor("shape", np.array([4, 3, 3, 3], np.int64))
    assert ledger(tmp_path, nodes, [shape]) == {
        "generated": "generated",
        "computed": "computed",
        "from_input": "computed",
        "dangling": "missing",
        "weightless": "missing",
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    w = weights(seed=3)
    w[1, 2, 0, 1] = value
    assert ledger(tmp_path, [bad("hot", "w")], [tensor("w", w)]) == {"hot": "nonfinite"}


def test_float64_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    w = weights(seed=3).astype(np.float64)
    w[0, 0, 0, 0] = 1e300
    assert ledger(tmp_path, [bad("huge", "w")], [tensor("w", w)]) == {"huge": "nonfinite"}


def test_float64_below_float32_is_reported(tmp_path: Path) -> None:
    """Filters that float32 would round to zero or to few bits are lost, not dead; single small weights are no loss."""
    w = weights(seed=3).astype(np.float64)
    w[0, 0, 0, 0] = 1e-300
    assert ledger(tmp_path, [bad("fine", "w")], [tensor("w", w)]) == {}
    for scale in (1e-300, 1e-40):
        small = w.copy()
        small[2, 1] *= scale
        assert ledger(tmp_path, [bad("small", "w")], [tensor("w", small)]) == {"small": "underflow"}


@pytest.mark.parametrize(
    "places", [("raw_data", "float_data"), ("float_data", "double_data"), ("raw_data", "external")]
)
@pytest.mark.parametrize("behind", [False, True])
def test_a_tensor_with_values_in_two_places_is_ambiguous(tmp_path: Path, places: tuple[str, str], behind: bool) -> None:
    """Runtimes differ in which they read; also where the tensor is part of an expression."""
    w = TensorProto(name="w", dims=list(GOOD.shape), data_type=TensorProto.FLOAT)
    (tmp_path / "w.bin").write_bytes(GOOD.tobytes())
    for place in places:
        if place == "raw_data":
            w.raw_data = GOOD.tobytes()
        elif place == "external":
            w.data_location = TensorProto.EXTERNAL
            w.external_data.add(key="location", value="w.bin")
        else:
            getattr(w, place).extend(np.zeros(GOOD.size))
    nodes = [helper.make_node("Neg", ["w"], ["v"])] if behind else []
    assert ledger(tmp_path, [*nodes, bad("two", "v" if behind else "w")], [w]) == {"two": "ambiguous"}


@pytest.mark.parametrize(
    ("indices", "dims"),
    [
        ([108], [4, 3, 3, 3]),
        ([-1], [4, 3, 3, 3]),
        ([0, 1], [4, 3, 3, 3]),
        ([0], [2**40, 3, 3, 3]),
        ([0], [-4, 3, 3, 3]),
    ],
    ids=["beyond", "negative", "two for one value", "huge", "negative shape"],
)
def test_sparse_tensors_that_lie(tmp_path: Path, indices: list[int], dims: list[int]) -> None:
    sparse = onnx.SparseTensorProto(dims=dims, values=tensor("s", np.ones(1, np.float32)))
    sparse.indices.CopyFrom(tensor("", np.array(indices, np.int64)))
    proto = model([conv("x", "good", "y", "kept"), bad("odd", "s")], [tensor("good", GOOD)])
    proto.graph.sparse_initializer.append(sparse)
    read = read_model(save(tmp_path / "m.onnx", proto))
    assert [layer.name for layer in read.layers] == ["kept"]
    assert [(skip.layer, skip.code) for skip in read.skipped] == [("odd", "unreadable")]


def test_a_convolution_that_no_input_reaches(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["image", "good"], ["y"], name="alone")
    image = tensor("image", np.ones((1, 3, 8, 8), np.float32))
    assert ledger(tmp_path, [node], [image]) == {"alone": "unreachable"}


def test_a_tensor_that_cannot_be_read(tmp_path: Path) -> None:
    """Its head says 4·3·3·3 numbers, its body has fewer: one layer less, the model is kept."""
    short = TensorProto(name="w", dims=[4, 3, 3, 3], data_type=TensorProto.FLOAT, raw_data=b"\0" * 16)
    assert ledger(tmp_path, [bad("short", "w")], [short]) == {"short": "unreadable"}


def test_missing_external_data(tmp_path: Path) -> None:
    w = TensorProto(name="w", dims=[4, 3, 3, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    w.external_data.add(key="location", value="gone.bin")
    assert ledger(tmp_path, [bad("lost", "w")], [w]) == {"lost": "unreadable"}


def chained(count: int) -> list[onnx.NodeProto]:
    return [helper.make_node("Identity", [f"i{k}" if k else "w"], [f"i{k + 1}"]) for k in range(count)]


def doubled(count: int) -> list[onnx.NodeProto]:
    nodes = [helper.make_node("DequantizeLinear", [f"d{k}", f"d{k}"], [f"d{k + 1}"]) for k in range(count)]
    return [helper.make_node("Identity", ["big"], ["d0"]), *nodes]


ODD_FOLDS = {
    "text": ([helper.make_node("Cast", ["t"], ["v"], to=TensorProto.FLOAT)], "v"),
    "text scale": ([helper.make_node("DequantizeLinear", ["q", "t"], ["v"])], "v"),
    "text shape": ([helper.make_node("Reshape", ["w", "t"], ["v"])], "v"),
    "nan shape": ([helper.make_node("Reshape", ["w", "nan"], ["v"])], "v"),
    "nan zero point": ([helper.make_node("DequantizeLinear", ["q", "s", "nan0"], ["v"])], "v"),
    "negative block": ([helper.make_node("DequantizeLinear", ["q", "s4"], ["v"], block_size=-3)], "v"),
    "too many blocks": ([helper.make_node("DequantizeLinear", ["q", "s4"], ["v"], block_size=2)], "v"),
    "short raw data behind Identity": ([helper.make_node("Identity", ["short"], ["v"])], "v"),
    "negative dims behind Identity": ([helper.make_node("Identity", ["negative"], ["v"])], "v"),
    "negative shape": ([helper.make_node("Reshape", ["w", "minus two"], ["v"])], "v"),
    "negative transpose": ([helper.make_node("Transpose", ["w"], ["v"], perm=[-4, -3, 2, 3])], "v"),
    "a value used twice, again and again": (doubled(40), "d40"),
    "wrong transpose": ([helper.make_node("Transpose", ["w"], ["v"], perm=[0, 1])], "v"),
    "cast to nothing": ([helper.make_node("Cast", ["w"], ["v"], to=99)], "v"),
    "endless chain": (chained(3_000), "i3000"),
}


@pytest.mark.parametrize("name", ODD_FOLDS)
def test_what_cannot_be_folded_costs_its_layer_only(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "CACHEABLE_BYTES", 1_000)
    nodes, value = ODD_FOLDS[name]
    inits = [
        tensor("w", GOOD),
        tensor("t", np.array([b"a", b"b"], dtype=object)),
        tensor("nan", np.full(4, np.nan, np.float32)),
        tensor("nan0", np.array(np.nan, np.float32)),
        tensor("q", np.ones((4, 3, 3, 3), np.int8)),
        tensor("s", np.array(0.5, np.float32)),
        tensor("s4", np.ones((4, 1, 3, 3), np.float32)),
        TensorProto(name="short", dims=[5, 3, 3, 3], data_type=TensorProto.FLOAT, raw_data=GOOD.tobytes()),
        TensorProto(name="negative", dims=[-1, 3, 3, 3], data_type=TensorProto.FLOAT, raw_data=GOOD.tobytes()),
        tensor("minus two", np.array([4, -2, 3, 3])),
        tensor("big", np.ones(300, np.float32)),  # more than is kept
    ]
    assert ledger(tmp_path, [*nodes, bad("odd", value)], inits).keys() == {"odd"}


def test_a_tensor_that_lies_about_its_size(tmp_path: Path) -> None:
    huge = TensorProto(name="w", dims=[2**40, 2**40, 3, 3], data_type=TensorProto.FLOAT)
    assert ledger(tmp_path, [bad("huge", "w")], [huge]) == {"huge": "unreadable"}


@pytest.mark.parametrize("location", ["x" * 300, "a\0b", "../m.onnx", "/etc/hostname", "m.onnx/inside"])
def test_external_data_under_odd_names(tmp_path: Path, location: str) -> None:
    w = TensorProto(name="w", dims=[4, 3, 3, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    w.external_data.add(key="location", value=location)
    w.external_data.add(key="offset", value="abc")
    assert ledger(tmp_path, [bad("lost", "w")], [w]) == {"lost": "unreadable"}


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    proto = model([conv("x", "w", "y", "NAME")], [tensor("w", GOOD)])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString().replace(b"NAME", b"N\xffME"))
    (layer,) = read_model(tmp_path / "m.onnx").layers
    assert layer.name == "N�ME"


def test_an_empty_weight(tmp_path: Path) -> None:
    assert ledger(tmp_path, [bad("none", "w")], [tensor("w", np.empty((0, 3, 3, 3), np.float32))]) == {"none": "empty"}


def test_no_convolution_at_all(tmp_path: Path) -> None:
    found = read_model(save(tmp_path / "m.onnx", model([helper.make_node("Relu", ["x"], ["y"])])))
    assert (found.layers, found.skipped, found.facts["total_filters"]) == ([], [], 0)
    assert np.isnan(found.facts["share_3x3"])


@pytest.mark.parametrize(
    "data",
    [b"", b"not a model", b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", b"\x08\x08"],
    ids=["empty", "text", "lfs pointer", "head only"],
)
def test_files_that_are_no_models(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.onnx: not an ONNX model: expected .*, got ") as caught:
        read_model(path)
    assert "\n" not in str(caught.value)


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["a"])]
    with pytest.raises(ModelError, match="without cycles"):
        read_model(save(tmp_path / "m.onnx", model(nodes)))


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    again = helper.make_node("F", ["a"], ["b"], domain="own")
    function = helper.make_function("own", "F", ["a"], ["b"], [again], [helper.make_opsetid("own", 1)])
    call = helper.make_node("F", ["x"], ["y"], domain="own")
    proto = model([call], functions=[function], opset_imports=[helper.make_opsetid("own", 1)])
    with pytest.raises(ModelError, match="calls itself"):
        read_model(save(tmp_path / "m.onnx", proto))


def test_long_names_and_reasons_are_cut(tmp_path: Path) -> None:
    node = helper.make_node("Conv" + "L" * 10_000, ["x", "good"], ["z"], name="n" * 10_000)
    proto = model([conv("x", "good", "y", "n" * 9_000), node], [tensor("good", GOOD)])
    found = read_model(save(tmp_path / "m.onnx", proto))
    (layer,), (skip,) = found.layers, found.skipped
    assert (len(layer.name), len(skip.layer), len(skip.reason)) == (4_096, 4_098, 300)
    assert (layer.name[-1], skip.layer[-3:], skip.reason[-1]) == ("…", "…#2", "…")


def test_a_weight_that_stands_in_too_many_convolutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filterdb.models.model.MAX_FILTERS", 30)
    nodes = [conv("x", "good", f"y{k}", f"c{k}") for k in range(4)]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, [tensor("good", GOOD)])))
    assert [layer.name for layer in found.layers] == ["c0", "c1"]
    assert [(skip.layer, skip.code) for skip in found.skipped] == [("c2", "many"), ("c3", "many")]
    assert found.facts["total_filters"] == 48


def test_a_lying_head_does_not_count(tmp_path: Path) -> None:
    huge = TensorProto(name="w", dims=[10_000, 10_000, 5, 1], data_type=TensorProto.FLOAT, raw_data=b"1234")
    found = read_model(
        save(tmp_path / "m.onnx", model([conv("x", "good", "y"), bad("h", "w")], [tensor("good", GOOD), huge]))
    )
    assert (found.facts["total_filters"], found.facts["share_3x3"]) == (12, 1.0)


@pytest.mark.parametrize("kind", ["plain", "soft link", "hard link", "folder link", "pipe"])
def test_external_data_is_a_plain_file(tmp_path: Path, kind: str) -> None:
    """In the model's own folder, a hard link too; whatever leads out of it is not read."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "data.bin").write_bytes(GOOD.tobytes())
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    data = folder / "sub" / "data.bin"
    if kind == "plain":
        data.write_bytes(GOOD.tobytes())
    elif kind == "soft link":
        data.symlink_to(outside / "data.bin")
    elif kind == "hard link":
        data.hardlink_to(outside / "data.bin")
    elif kind == "pipe":
        os.mkfifo(data)
    else:
        data.parent.rmdir()
        data.parent.symlink_to(outside)
    w = TensorProto(name="w", dims=[4, 3, 3, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    w.external_data.add(key="location", value="sub/data.bin")
    assert ledger(folder, [bad("far", "w")], [w]) == ({} if kind in {"plain", "hard link"} else {"far": "unreadable"})
