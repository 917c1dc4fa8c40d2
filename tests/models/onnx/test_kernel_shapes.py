"""Convolutions of every kernel shape and form, against the arrays that the file was made of."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from filterdb.models.catalog import ModelSource
from filterdb.models.inputs import local_copy
from filterdb.models.model import Layer, Model
from filterdb.models.onnx.layers import read_model
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Scan, examine, reading, received, scan
from filterdb.models.spool import Spool
from filterdb.numerics.directions import direction_texts
from filterdb.schema import Kernels, parse_kernels
from tests.models import conv, model, save, tensor, weights

SHAPES: dict[str, tuple[int, ...]] = {
    "depthwise 5x5": (8, 1, 5, 5),
    "grouped 7x7": (8, 4, 7, 7),
    "1x3": (4, 8, 1, 3),
    "3x1": (4, 8, 3, 1),
    "1-D of 5": (4, 8, 5),
    "1-D depthwise of 31": (8, 1, 31),
    "1-D of 1": (4, 8, 1),
    "1-D of 257": (4, 8, 257),
    "16x16": (4, 3, 16, 16),
    "17x17": (4, 3, 17, 17),
    "1x1": (16, 8, 1, 1),
    "3x3": (4, 8, 3, 3),
    "2x2x2": (4, 8, 2, 2, 2),
    "1-D of none": (4, 8, 0),
    "0x3": (4, 8, 0, 3),
}
"""Shapes of weights by the name of their layer."""

GROUPS = {"depthwise 5x5": 8, "grouped 7x7": 2, "1-D depthwise of 31": 8}


def everything(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A model in which every convolution reads the one input, and the arrays of its weights."""
    values = {name: weights(shape[0], shape[1], i, shape[2:]) for i, (name, shape) in enumerate(SHAPES.items())}
    nodes = [conv("x", name, f"{name}_y", name, group=GROUPS.get(name, 1)) for name in SHAPES]
    outputs = tuple(f"{name}_y" for name in SHAPES)
    return save(path, model(nodes, [tensor(name, v) for name, v in values.items()], outputs=outputs)), values


def stored(read: Model) -> dict[str, Layer]:
    return {layer.name: layer for layer in (*read.layers, *read.others)}


def test_every_shape(tmp_path: Path) -> None:
    path, values = everything(tmp_path / "m.onnx")
    read = read_model(path, kernels=None)
    found = {layer.name: layer for layer in read.layers}
    others = {layer.name: layer for layer in read.others}
    assert set(others) == {"1-D of 1", "1-D of 257", "17x17", "1x1"}
    assert {skip.layer: skip.code for skip in read.skipped} == {
        "2x2x2": "rank",
        "1-D of none": "empty",
        "0x3": "empty",
    }
    assert found.keys() | others.keys() == SHAPES.keys() - {skip.layer for skip in read.skipped}
    for name, layer in {**found, **others}.items():
        shape = values[name].shape
        assert (layer.rank, layer.filters) == (len(shape) - 2, shape[0] * shape[1])
        assert layer.kernel == (shape[2:] if len(shape) == 4 else (1, shape[2]))
        filters = layer.weight().filters
        assert filters.dtype == np.float32 and filters.flags.c_contiguous
        rows = [values[name][o, i].ravel() for o in range(shape[0]) for i in range(shape[1])]
        np.testing.assert_array_equal(filters, rows)
        assert layer.row["depthwise"] == ("depthwise" in name)
        assert layer.row["groups"] == GROUPS.get(name, 1)
        assert (layer.row["strides"], layer.row["dilations"]) == (("[1]",) * 2 if len(shape) == 3 else ("[1, 1]",) * 2)


@pytest.mark.parametrize("wanted", ["3x3", "5x5,7x7", "1x5", "1x3,3x1,3x3", "16x16", "2x5"])
def test_shapes_that_are_not_asked_for_are_in_the_ledger(tmp_path: Path, wanted: str) -> None:
    """Names and rows are the same whichever shapes are asked for."""
    path, values = everything(tmp_path / "m.onnx")
    kernels = parse_kernels(wanted)
    assert kernels is not None
    read, full = read_model(path, kernels=kernels), stored(read_model(path, kernels=None))
    names = {n for n, v in values.items() if v.ndim in {3, 4} and (*(1,) * (4 - v.ndim), *v.shape[2:]) in kernels}
    assert {layer.name for layer in read.layers} == names and not read.others
    assert {layer.name: layer.row for layer in read.layers} == {name: full[name].row for name in names}
    codes = {skip.layer: skip.code for skip in read.skipped}
    assert codes.keys() == SHAPES.keys() - names
    for name, code in codes.items():
        assert code == ("empty" if name == "0x3" else "kernel" if values[name].ndim == 4 else "rank")
    assert read.facts == read_model(path, kernels=None).facts


def test_depths_of_both_series(tmp_path: Path) -> None:
    """Convolutions of one and of two dimensions are ranked apart, each among all of their own, stored or not."""
    names = ["x", *"abcdef"]
    shapes = [(3, 3, 3, 3), (3, 3, 1, 1), (3, 3, 7), (3, 3, 3, 3), (3, 3, 1), (3, 3, 7)]
    nodes = [conv(names[i], f"w{i}", names[i + 1], f"c{i}") for i in range(len(shapes))]
    inits = [tensor(f"w{i}", weights(shape[0], shape[1], i, shape[2:])) for i, shape in enumerate(shapes)]
    path = save(tmp_path / "m.onnx", model(nodes, inits, outputs=("f",)))
    for kernels, expected in {
        None: {"c0": (0, 0.0), "c1": (1, 0.5), "c2": (0, 0.0), "c3": (2, 1.0), "c4": (1, 0.5), "c5": (2, 1.0)},
        ((1, 7),): {"c2": (0, 0.0), "c5": (2, 1.0)},
        ((3, 3),): {"c0": (0, 0.0), "c3": (2, 1.0)},
    }.items():
        read = read_model(path, kernels=kernels)
        rows = {name: layer.row for name, layer in stored(read).items()}
        assert {name: (row["conv_depth"], row["conv_depth_norm"]) for name, row in rows.items()} == expected
        assert [layer.row["conv_depth"] for layer in read.layers] == sorted(
            layer.row["conv_depth"] for layer in read.layers
        )
    assert [layer.row["graph_depth"] for layer in read_model(path, kernels=((1, 7),)).layers] == [3, 6]


FORM_KERNELS = [(5, 5), (1, 3), (7,), (1, 1)]


@pytest.mark.parametrize("kernel", FORM_KERNELS, ids=str)
@pytest.mark.parametrize("form", ["QLinearConv", "ConvInteger", "DequantizeLinear", "float16", "float64", "subgraph"])
def test_forms(tmp_path: Path, form: str, kernel: tuple[int, ...]) -> None:
    """Quantised per channel, in half and double precision, and inside the body of an If."""
    values = weights(4, 3, 7, kernel)
    along = (-1, *(1,) * (1 + len(kernel)))
    levels = np.random.default_rng(0).integers(-128, 128, values.shape).astype(np.int8)
    scale, zero = np.array([0.5, 0.25, 2, 4], np.float32), np.array([1, -2, 3, 0], np.int8)
    exact = (levels.astype(np.float32) - zero.astype(np.float32).reshape(along)) * scale.reshape(along)
    one, byte = np.array(0.5, np.float32), np.array(0, np.uint8)
    inits = {"q": levels, "s": scale, "z": zero, "xs": one, "xz": byte, "s4": scale.reshape(1, 4, *along[2:])}
    inputs: tuple[str, ...] = ("x",)
    if form == "QLinearConv":
        nodes = [helper.make_node(form, ["x", "xs", "xz", "q", "s", "z", "xs", "xz"], ["y"], "c")]
        expected = exact
    elif form == "ConvInteger":
        nodes = [
            helper.make_node(form, ["x", "q", "xz", "z"], ["i"], "c"),
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "s4"], ["y"]),
        ]
        expected = exact
    elif form == "DequantizeLinear":
        nodes = [helper.make_node(form, ["q", "s", "z"], ["w"], axis=0), conv("x", "w", "y", "c")]
        expected = exact
    elif form == "subgraph":
        then = helper.make_graph([conv("x", "w", "t", "c")], "then", [], [onnx.ValueInfoProto(name="t")])
        other = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["e"])], "e", [], [onnx.ValueInfoProto(name="e")]
        )
        nodes = [helper.make_node("If", ["condition"], ["y"], then_branch=then, else_branch=other)]
        inits["w"], expected, inputs = values, values, ("x", "condition")
    else:
        nodes, expected = [conv("x", "w", "y", "c")], values.astype(form)
        inits["w"] = expected
    proto = model(nodes, [numpy_helper.from_array(v, name) for name, v in inits.items()], inputs=inputs)
    read = read_model(save(tmp_path / "m.onnx", proto), kernels=None)
    assert not read.skipped, read.skipped
    ((layer,), weight) = (*read.layers, *read.others), (*read.layers, *read.others)[0].weight()
    assert layer.rank == len(kernel) and weight.scale_known
    assert weight.filters.shape == (12, int(np.prod(kernel)))
    np.testing.assert_array_equal(weight.filters, expected.astype(np.float32).reshape(12, -1))


def test_transposed_convolutions_of_no_rank_are_stored(tmp_path: Path) -> None:
    nodes, inits = [], []
    for name, kernel in {"one": (5,), "two": (5, 5), "three": (5, 5, 5)}.items():
        nodes.append(helper.make_node("ConvTranspose", ["x", name], [f"{name}_y"], name))
        inits.append(tensor(name, weights(4, 3, 0, kernel)))
    outputs = ("one_y", "two_y", "three_y")
    read = read_model(save(tmp_path / "m.onnx", model(nodes, inits, outputs=outputs)), kernels=None)
    assert not stored(read) and {skip.code for skip in read.skipped} == {"transposed"}


@pytest.mark.parametrize(("kernel", "expected"), [((3, 3), "kernel"), ((5, 5), "operator"), (None, "operator")])
def test_an_unknown_form_is_unread_only_if_its_kernel_is_asked_for(
    tmp_path: Path, kernel: tuple[int, int] | None, expected: str
) -> None:
    node = helper.make_node("StrangeConv", ["x", "w"], ["y"], "odd", domain="com.example", kernel_shape=[5, 5])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.example", 1)]
    proto = model([node], [tensor("w", weights(4, 3, 0, (5, 5)))], opset_imports=opsets)
    read = read_model(save(tmp_path / "m.onnx", proto), kernels=None if kernel is None else (kernel,))
    assert [(skip.layer, skip.code) for skip in read.skipped] == [("odd", expected)]


def scanned(path: Path, kernels: Kernels, spool: Spool | None = None) -> Scan:
    result = scan(ModelSource("m", str(path)), None, Limits(), spool=spool, kernels=kernels)
    assert result.rejected is None and result.error is None
    return result


def test_a_scan_of_all_shapes(tmp_path: Path) -> None:
    path, values = everything(tmp_path / "m.onnx")
    spool = Spool(2**20)
    result = scanned(path, None, spool)
    kept = spool.layers("m")
    assert kept is not None and list(kept) == [row["layer_name"] for row in result.rows]
    for row in (*result.rows, *result.others):
        value = values[row["layer_name"]]
        height, width = (1, *value.shape[2:])[-2:]
        assert (row["kernel"], row["rank"]) == (f"{height}x{width}", value.ndim - 2)
        assert row["row_size"] == value.shape[0] * value.shape[1]
        assert row["peak"] == np.abs(value).max()
        assert row["hash"] == hashlib.sha256(value.tobytes()).hexdigest()
        if row["layer_name"] in kept:
            np.testing.assert_array_equal(kept[row["layer_name"]], value.reshape(row["row_size"], -1))
    sizes = Counter(len(row) for row in result.others)
    assert set(sizes) == {len(result.rows[0]) + 3}
    for row in result.others:
        assert np.isnan(row["orthogonality"]) and row["fingerprint"] == "" and row["nonfinite"] == 0
    only = scanned(path, ((3, 3),))
    assert only.rows == [row for row in result.rows if row["kernel"] == "3x3"]
    assert not only.others and len(only.skipped) == len(SHAPES) - 1


def test_others_are_counted_against_numpy(tmp_path: Path) -> None:
    """Sparse, repeated and non-finite weights of 1×1 kernels and of patches."""
    point = np.random.default_rng(0).normal(size=(7, 5, 1, 1)).astype(np.float32)
    point[0, 0], point[1], point[3], point[6], point[5, 2] = 50, point[2], 0, 0, 0.5
    point[4, :3, 0, 0] = np.nan, np.inf, -np.inf
    patch = np.random.default_rng(1).normal(size=(3, 2, 17, 17)).astype(np.float32)
    patch[0, 0], patch[1, 1], patch[2, 0], patch[2, 1, 4, 4] = 0, patch[0, 1], 1e-4, np.nan
    nodes = [conv("x", "point", "a", "point"), conv("a", "patch", "y", "patch")]
    path = save(tmp_path / "m.onnx", model(nodes, [tensor("point", point), tensor("patch", patch)]))
    for rows in (scanned(path, None).others, examine(ModelSource("m", str(path)), Limits(), None).others):
        first, second = rows
        finite = np.abs(point[np.isfinite(point)])
        assert first["peak"] == finite.max() == 50
        assert first["sparse_filters"] == (finite < finite.max() / 100).sum()
        assert first["duplicate_filters"] == 1 and first["nonfinite"] == 3
        assert second["peak"] == np.abs(patch[np.isfinite(patch)]).max()
        assert (second["sparse_filters"], second["duplicate_filters"], second["nonfinite"]) == (2, 1, 1)
        assert (second["conv_depth"], second["in_channels"], second["out_channels"]) == (1, 2, 3)


def test_a_weight_with_nan_is_rejected_where_its_filters_would_be_stored(tmp_path: Path) -> None:
    broken = weights(4, 3, 0, (5, 5))
    broken[0, 0, 0, 0] = np.nan
    path = save(tmp_path / "m.onnx", model([conv("x", "w", "y", "c")], [tensor("w", broken)]))
    result = scanned(path, None)
    assert not result.rows and [(skip.layer, skip.code) for skip in result.skipped] == [("c", "nonfinite")]


def test_a_small_file_cannot_demand_more_than_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights count, not filters alone; what is only looked at has a room of its own."""
    monkeypatch.setattr("filterdb.models.model.MAX_WEIGHTS", 700)
    nodes = [conv("x", "w", f"y{k}", f"c{k}") for k in range(3)] + [conv("x", "v", f"z{k}", f"d{k}") for k in range(3)]
    inits = [tensor("w", weights(4, 3, 0, (5, 5))), tensor("v", weights(15, 20, 0, (1, 1)))]
    read = read_model(save(tmp_path / "m.onnx", model(nodes, inits)), kernels=None)
    assert [layer.name for layer in read.layers] == ["c0", "c1"]
    assert [layer.name for layer in read.others] == ["d0", "d1"]
    assert [(skip.layer, skip.code) for skip in read.skipped] == [("c2", "many"), ("d2", "many")]


def test_an_examination_of_all_shapes(tmp_path: Path) -> None:
    """Entropies are those of a singular value decomposition, names and counts those of the arrays."""
    rng = np.random.default_rng(0)
    values = {
        "square": rng.normal(size=(32, 16, 5, 5)),
        "line": rng.normal(size=(64, 8, 9)),
        "centre": rng.normal(size=(16, 8, 7, 7)) * np.eye(49)[24].reshape(7, 7),
        "point": rng.normal(size=(16, 8, 1, 1)),
    }
    nodes = [conv("x", name, f"{name}_y", name) for name in values]
    inits = [tensor(name, v.astype(np.float32)) for name, v in values.items()]
    path = save(tmp_path / "m.onnx", model(nodes, inits, outputs=tuple(f"{name}_y" for name in values)))
    answer = examine(ModelSource("m", str(path)), Limits(), None)
    rows = {row["layer_name"]: row for row in answer.rows}
    assert {name: (row["kernel"], row["rank"]) for name, row in rows.items()} == {
        "square": ("5x5", 2), "line": ("1x9", 1), "centre": ("7x7", 2),
    }  # fmt: skip
    assert [(row["layer_name"], row["kernel"]) for row in answer.others] == [("point", "1x1")] and not answer.skipped
    for name, row in rows.items():
        filters = values[name].astype(np.float32).astype(np.float64).reshape(row["row_size"], -1)
        energy = np.linalg.svd(filters - filters.mean(axis=0), compute_uv=False) ** 2
        share = energy[energy > 1e-9 * energy.max()] / energy.sum()
        assert row["variance_entropy"] == pytest.approx(-(share * np.log10(share)).sum(), abs=1e-9)
        assert row["peak"] == np.float32(np.abs(filters).max())
    assert direction_texts((7, 7))[rows["centre"]["direction"]] == "acts as a 1×1 convolution"
    assert rows["centre"]["direction_share"] == pytest.approx(1)
    assert rows["square"]["p_value"] > 1e-6 and rows["line"]["p_value"] > 1e-6
    some = examine(ModelSource("m", str(path)), Limits(), ((1, 9),))
    np.testing.assert_equal(some.rows, [rows["line"]])
    assert [(skip.layer, skip.code) for skip in some.skipped] == [
        ("square", "kernel"), ("centre", "kernel"), ("point", "kernel"),
    ]  # fmt: skip


@pytest.mark.parametrize("kernels", [None, ((3, 3), (5, 5)), [[5, 5], [3, 3]]], ids=str)
def test_filters_of_a_bank_are_read_again(tmp_path: Path, kernels: Any) -> None:
    """As a write does. Without kernels in the request, a child has 3×3 layers only."""
    path, values = everything(tmp_path / "m.onnx")
    source = ModelSource("m", str(path))
    wanted = [("3x3", 0, 32), ("depthwise 5x5", 2, 5)]
    for asked in ({"kernels": kernels}, {}):
        with (
            local_copy(source.url) as local,
            reading(source, local, Limits(), {"do": "filters", "wanted": wanted, **asked}) as (channel, _),
        ):
            channel.send({"go": True})
            for name, first, last in wanted[: 1 + len(asked)]:
                expected = values[name].reshape(-1, values[name][0, 0].size)
                assert received(channel, local)["rows"] == len(expected)
                rows = np.empty((last - first, expected.shape[1]), np.float32)
                channel.receive_into(rows)
                np.testing.assert_array_equal(rows, expected[first:last])
            assert asked or not received(channel, local).get("rows")


def test_a_file_cannot_demand_a_bank_for_each_shape_that_there_is(tmp_path: Path) -> None:
    """Of 80 shapes 64 are stored, in the file's order; a shape that is stored already, and 1×1, are not counted."""
    shapes = [(1, 1, 1, k) for k in range(2, 82)] + [(1, 1, 1, 2), (1, 1, 1, 1), (1, 1, 1, 300)]
    nodes = [conv("x", f"w{i}", f"y{i}", f"c{i}") for i in range(len(shapes))]
    inits = [tensor(f"w{i}", np.ones(shape, np.float32)) for i, shape in enumerate(shapes)]
    read = read_model(save(tmp_path / "m.onnx", model(nodes, inits, outputs=("y0",))), kernels=None)
    assert {layer.name for layer in read.layers} == {*(f"c{i}" for i in range(64)), "c80"}
    assert {layer.name for layer in read.others} == {"c81", "c82"}
    assert {skip.layer: skip.code for skip in read.skipped} == {f"c{i}": "many" for i in range(64, 80)}
    assert len(scanned(tmp_path / "m.onnx", None).rows) == 65
