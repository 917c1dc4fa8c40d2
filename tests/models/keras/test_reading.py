"""Files of Keras 2 and 3 that are written here, against the kernels that were put in."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from filterdb.errors import ModelError
from filterdb.models.catalog import ModelSource
from filterdb.models.formats import KERAS, format_of
from filterdb.models.inputs import expand
from filterdb.models.keras.reading import KerasFile
from filterdb.models.model import Model, Request
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan
from tests.models.keras.files import (
    conv,
    depthwise_filters,
    filters,
    kernel,
    layer,
    sequential,
    tree,
    write_h5,
    write_keras,
)


def read(path: Path, **request: Any) -> Model:
    return KerasFile.parse(path, Request(path.name, 2**31, **request)).model()


def stored(model: Model) -> dict[str, np.ndarray]:
    return {layer.name: layer.weight().filters for layer in model.layers}


def skipped(model: Model) -> dict[str, str]:
    return {skip.layer: skip.code for skip in model.skipped}


def functional(*layers: tuple[dict[str, Any], list[Any]], **more: Any) -> dict[str, Any]:
    """A config of Keras 2: layers with the calls that they read."""
    first = {**layer("InputLayer", "x"), "inbound_nodes": []}
    entries = [first, *({**entry, "inbound_nodes": nodes} for entry, nodes in layers)]
    outputs = [[layers[-1][0]["name"], 0, 0]]
    return {
        "class_name": "Model",
        "config": {"name": "m", "layers": entries, "input_layers": [["x", 0, 0]], "output_layers": outputs, **more},
    }


def after(*names: str) -> list[Any]:
    return [[[name, 0, 0, {}] for name in names]]


# --- Keras 2 ---------------------------------------------------------------------------------------------------------


def test_a_model_of_keras_2(tmp_path: Path) -> None:
    """As Keras 2.0.5 wrote it in the package fer: TensorFlow made the weights' names unique."""
    one, two, deep = kernel(8, 1, 1), kernel(8, 8, 2), kernel(2, 8, 3)
    config = functional(
        (conv("conv2d_1", one), after("x")),
        (layer("BatchNormalization", "bn"), after("conv2d_1")),
        (conv("conv2d_2", two, use_bias=True), after("bn")),
        (layer("DepthwiseConv2D", "dw", kernel_size=[3, 3], depth_multiplier=2), after("conv2d_2")),
        (layer("Add", "add"), after("dw", "bn")),
        (conv("conv2d_3", two), after("add")),
    )
    path = write_h5(tmp_path / "m.h5", config, {
        "x": {},
        "conv2d_1": {"conv2d_1_1/kernel:0": one},
        "bn": {"bn_1/gamma:0": np.ones(8), "bn_1/beta:0": np.ones(8)},
        "conv2d_2": {"conv2d_2_1/kernel_1:0": two, "conv2d_2_1/bias_1:0": np.ones(8)},
        "dw": {"dw/depthwise_kernel:0": deep, "dw/bias:0": np.ones(16)},
        "add": {},
        "conv2d_3": {"conv2d_3_1/kernel:0": two},
    })  # fmt: skip
    model = read(path)
    found = stored(model)
    assert list(found) == ["conv2d_1", "conv2d_2", "dw", "conv2d_3"]
    for name, expected in (("conv2d_1", filters(one)), ("conv2d_2", filters(two)), ("dw", depthwise_filters(deep))):
        np.testing.assert_array_equal(found[name], expected)
    rows = {row.name: row.row for row in model.layers}
    assert [row["graph_depth"] for row in rows.values()] == [1, 3, 4, 6]
    assert [row["batch_norm"] for row in rows.values()] == ["unfolded", "none", "none", "none"]
    assert (rows["dw"]["in_channels"], rows["dw"]["out_channels"], rows["dw"]["groups"]) == (1, 16, 8)
    assert (model.facts["producer"], model.facts["opset"], model.facts["model_depth"]) == ("keras 2.15.0", 0, 6)


def test_tensors_in_keywords_and_constants(tmp_path: Path) -> None:
    """As TensorFlow's Keras wrote operators: the second operand is a keyword, and a call may be a single list."""
    weight = kernel(4, 4)
    config = functional(
        (conv("a", weight), after("x")),
        (conv("b", weight), after("a")),
        (layer("TFOpLambda", "plus"), [["x", 0, 0, {"y": ["b", 0, 0], "name": None}]]),
        (layer("TFOpLambda", "times"), [["plus", 0, 0, {"y": 2}], ["_CONSTANT_VALUE", -1, 3, {}]]),
        (conv("c", weight), after("times")),
    )
    path = write_h5(tmp_path / "m.h5", config, {name: {f"{name}/kernel:0": weight} for name in "abc"})
    assert {row.name: row.row["graph_depth"] for row in read(path).layers} == {"a": 1, "b": 2, "c": 5}


@pytest.mark.parametrize("as_list", [True, False], ids=["Keras 2.2", "Keras 2.15"])
def test_a_sequential_model(tmp_path: Path, as_list: bool) -> None:
    one, two = kernel(4, 3, 1), kernel(5, 4, 2)
    config = sequential(conv("one", one), layer("ReLU", "r"), conv("two", two, use_bias=True))
    if as_list:
        config["config"] = config["config"]["layers"]
    path = write_h5(tmp_path / "m.h5", config, {
        "one": {"one/kernel:0": one}, "two": {"two/kernel:0": two, "two/bias:0": np.ones(5)}})  # fmt: skip
    model = read(path)
    assert [row.row["graph_depth"] for row in model.layers] == [1, 3]
    # Without a batch normalisation in the file, one may have been folded into a weight that has a bias.
    assert [row.row["batch_norm"] for row in model.layers] == ["none", "unknown"]
    np.testing.assert_array_equal(stored(model)["two"], filters(two))


@pytest.mark.parametrize("names", ["names", "order"])
def test_kernels_of_a_nested_model_whose_weights_are_frozen_in_part(tmp_path: Path, names: str) -> None:
    """Keras 2 puts frozen weights behind the trained ones. Names that TensorFlow changed say nothing."""
    kernels = [kernel(4, 4, seed) for seed in range(3)]
    inner = functional(
        (conv("a", kernels[0], trainable=False), after("x")),
        (conv("b", kernels[1]), after("a")),
        (conv("c", kernels[2]), after("b")),
        (layer("Dense", "d"), after("c")),
    )
    nested = {**inner, "config": {**inner["config"], "name": "base"}, "name": "base"}
    order = [(1, "b"), (2, "c"), (0, "a")]
    weights = {(f"{name}/kernel:0" if names == "names" else f"conv2d_{i}/kernel:0"): kernels[i] for i, name in order}
    weights["dense/kernel:0"] = np.ones((4, 4))
    path = write_h5(tmp_path / "m.h5", functional((nested, after("x"))), {"base": weights})
    found = stored(read(path))
    assert list(found) == ["base/a", "base/b", "base/c"]
    for name, expected in zip(found, kernels, strict=True):
        np.testing.assert_array_equal(found[name], filters(expected))


def test_what_is_not_a_two_dimensional_convolution(tmp_path: Path) -> None:
    layers = [
        (layer("Conv1D", "c1", filters=4), kernel(4, 3, size=(3,))),
        (layer("Conv3D", "c3", filters=4), kernel(4, 3, size=(3, 3, 3))),
        (layer("Conv2DTranspose", "up", filters=3), kernel(4, 3)),
        (layer("ConvLSTM2D", "lstm", filters=1), kernel(4, 3)),
        (layer("Convolution2D", "old", nb_filter=4), kernel(4, 3)),
        (layer("my>Own", "own"), kernel(4, 3)),
        (layer("Conv2D", "big", filters=4, kernel_size=5, use_bias=False), kernel(4, 3, size=(5, 5))),
        (layer("Conv2D", "sound", filters=4, kernel_size=3, groups=2, strides=2, use_bias=False), kernel(4, 3)),
    ]
    weights = {entry["name"]: {f"{entry['name']}/kernel:0": weight} for entry, weight in layers}
    weights["lstm"]["lstm/recurrent_kernel:0"] = kernel(4, 1)
    weights["own"] = {"own/w:0": kernel(4, 3)}
    model = read(write_h5(tmp_path / "m.h5", sequential(*(entry for entry, _ in layers)), weights))
    assert skipped(model) == {
        "c1": "rank", "c3": "rank", "up": "transposed", "lstm": "operator", "old": "operator", "own": "operator",
        "big": "kernel",
    }  # fmt: skip
    (row,) = [found.row for found in model.layers]
    assert (row["groups"], row["strides"], row["dilations"], row["operator"]) == (2, "[2, 2]", "null", "Conv2D")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", ">f4"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_every_type_is_read_exactly(tmp_path: Path, suffix: str, dtype: str) -> None:
    numpy_type = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    values = kernel(4, 3).astype(numpy_type)
    policy = {"class_name": "DTypePolicy", "config": {"name": "bfloat16"}} if dtype == "bfloat16" else dtype
    config = sequential(conv("conv2d", kernel(4, 3), dtype=policy))
    if suffix == ".keras":
        path = write_keras(tmp_path / "m.keras", config, tree({"layers/conv2d": [values]}))
    else:
        path = write_h5(tmp_path / "m.h5", config, {"conv2d": {"conv2d/kernel:0": values}})
    (found,) = read(path).layers
    weight = found.weight()
    assert weight.source_dtype == ("float32" if dtype == ">f4" else dtype)
    np.testing.assert_array_equal(weight.filters, filters(values.astype(np.float64)).astype(np.float32))


def test_layers_without_their_weights_cost_themselves(tmp_path: Path) -> None:
    weight = kernel(4, 3)
    config = sequential(conv("a", weight), conv("b", weight), conv("c", weight, kernel_size=[3, 4]))
    path = write_h5(tmp_path / "m.h5", config, {"a": {"a/kernel:0": weight}, "c": {"c/kernel:0": weight}})
    model = read(path)
    assert list(stored(model)) == ["a"] and skipped(model) == {"b": "missing", "c": "unreadable"}


# --- Weights alone ---------------------------------------------------------------------------------------------------


def test_weights_of_keras_2_alone(tmp_path: Path) -> None:
    """What a kernel is shows in its name, the length of its bias, or that of the norm behind it."""
    path = write_h5(tmp_path / "weights.h5", None, {
        "first": {"first/kernel:0": kernel(8, 3, 1), "first/bias:0": np.ones(8)},
        "decode": {"decode/kernel:0": kernel(8, 3, 2), "decode/bias:0": np.ones(3)},
        "grow": {"grow/kernel:0": kernel(8, 3, 3)},
        "bn": {f"bn/{name}:0": np.ones(3) for name in ("gamma", "beta", "moving_mean", "moving_variance")},
        "conv2d_transpose_2": {"conv2d_transpose_2/kernel:0": kernel(8, 8, 4)},
        "up_1": {"up_1/kernel:0": kernel(8, 8, 5)},
        "sep": {"sep/depthwise_kernel:0": kernel(2, 8, 6), "sep/pointwise_kernel:0": kernel(5, 16, 7, (1, 1))},
        "dense": {"dense/kernel:0": np.ones((3, 3))},
        "last": {"last/kernel:0": kernel(5, 5, 8)},
    })  # fmt: skip
    model = read(path)
    found = stored(model)
    assert list(found) == ["first", "sep/depthwise_kernel", "last"]
    np.testing.assert_array_equal(found["sep/depthwise_kernel"], depthwise_filters(kernel(2, 8, 6)))
    np.testing.assert_array_equal(found["last"], filters(kernel(5, 5, 8)))
    assert skipped(model) == {
        "decode": "transposed", "grow": "transposed", "conv2d_transpose_2": "transposed", "up_1": "transposed?",
        "sep/pointwise_kernel": "kernel",
    }  # fmt: skip
    assert model.facts["depth_source"] == "order"
    assert [row.row["conv_depth"] for row in model.layers] == [0, 1, 3]  # the 1×1 kernel is between
    assert {row.row["groups"] for row in model.layers} == {0, 8}
    assert {row.row["batch_norm"] for row in model.layers} == {"unfolded"}


def test_names_in_several_attributes(tmp_path: Path) -> None:
    """Keras splits a list that is too long for an attribute."""
    path = write_h5(tmp_path / "weights.h5", None, {name: {f"{name}/kernel:0": kernel(4, 3)} for name in "abc"})
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"c", b"b"], [b"a"]
    assert list(stored(read(path))) == ["c", "b", "a"]


def test_weights_of_keras_1(tmp_path: Path) -> None:
    """As the weights of VGG16 are called that everybody downloaded."""
    weight = kernel(64, 3)
    tensors = {"block1_conv1_W_1:0": weight, "block1_conv1_b_1:0": np.ones(64)}
    model = read(write_h5(tmp_path / "vgg16_tf_kernels.h5", None, {"block1_conv1": tensors}))
    np.testing.assert_array_equal(stored(model)["block1_conv1"], filters(weight))


TREE = {
    "layers/conv2d": [kernel(8, 3, 1), np.ones(8)],
    "layers/conv2d_10": [kernel(8, 8, 2), np.ones(8)],
    "layers/conv2d_2": [kernel(8, 8, 3), np.ones(8)],
    "layers/conv2d_transpose": [kernel(8, 8, 4), np.ones(8)],
    "layers/depthwise_conv2d": [kernel(1, 8, 5), np.ones(8)],
    "layers/separable_conv2d": [kernel(2, 8, 6), kernel(4, 16, 7, (1, 1)), np.ones(4)],
    "layers/functional/layers/conv2d": [kernel(4, 4, 8)],
    "stem": [kernel(8, 3, 9), np.ones(8)],
    "deep": [kernel(2, 8, 10), np.ones(16)],
    "flip": [kernel(8, 3, 11), np.ones(3)],
    "doubt": [kernel(1, 8, 12), np.ones(8)],
    "optimizer": [kernel(8, 3, 1), kernel(8, 8, 2)],
}


@pytest.mark.parametrize("prefix", ["layers", "_layer_checkpoint_dependencies"])
def test_weights_of_keras_3_alone(tmp_path: Path, prefix: str) -> None:
    """Groups are called after classes, except those of a user's own attributes, where the shapes decide."""
    path = tmp_path / "m.weights.h5"
    path.write_bytes(tree({place.replace("layers", prefix): weights for place, weights in TREE.items()}))
    model = read(path)
    assert skipped(model) == {
        "conv2d_transpose": "transposed", "flip": "transposed", "doubt": "transposed?",
        "separable_conv2d/pointwise_kernel": "kernel",
    }  # fmt: skip
    found = stored(model)
    assert set(found) == {
        "deep", "conv2d", "conv2d_2", "conv2d_10", "depthwise_conv2d", "functional/conv2d",
        "separable_conv2d/depthwise_kernel", "stem",
    }  # fmt: skip
    for name, expected in (
        ("conv2d_10", filters(kernel(8, 8, 2))),
        ("deep", depthwise_filters(kernel(2, 8, 10))),
        ("separable_conv2d/depthwise_kernel", depthwise_filters(kernel(2, 8, 6))),
    ):
        np.testing.assert_array_equal(found[name], expected)
    assert model.facts["depth_source"] == "none"
    assert all(np.isnan(row.row["conv_depth_norm"]) for row in model.layers)


@pytest.mark.parametrize("prefix", ["layers", "_layer_checkpoint_dependencies"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_of_keras_2(tmp_path: Path, prefix: str, compression: int) -> None:
    """Without the layers' names: groups are counted by class. 2.12 called the list of layers otherwise."""
    kernels = [kernel(3, 3, seed) for seed in range(4)]
    inner = sequential(conv("d", kernels[3]), name="inner")
    config = sequential(
        layer("InputLayer", "x"), conv("a", kernels[0]), layer("ReLU", "r"), conv("b", kernels[1]),
        layer("SeparableConv2D", "s", filters=3), {**inner, "name": "inner"}, conv("c", kernels[2]),
    )  # fmt: skip
    weights = tree({
        f"{prefix}/conv2d": [kernels[0]],
        f"{prefix}/conv2d_1": [kernels[1]],
        f"{prefix}/separable_conv2d": [kernel(1, 3, 5), kernel(3, 3, 6, (1, 1))],
        f"{prefix}/sequential/{prefix}/conv2d": [kernels[3]],
        f"{prefix}/conv2d_2": [kernels[2]],
    })  # fmt: skip
    found = stored(read(write_keras(tmp_path / "m.keras", config, weights, compression)))
    assert list(found) == ["a", "b", "s/depthwise_kernel", "inner/d", "c"]
    for name, expected in zip(("a", "b", "c", "inner/d"), kernels, strict=True):
        np.testing.assert_array_equal(found[name], filters(expected))


def test_an_order_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    path.write_bytes(tree({"layers/conv2d": [kernel(4, 3)], "layers/conv2d_1": [kernel(4, 4)]}))
    model = read(path, order=("conv2d_1", "relu", "conv2d"))
    assert [(row.name, row.row["conv_depth"]) for row in model.layers] == [("conv2d_1", 0), ("conv2d", 1)]
    assert model.facts["depth_source"] == "order"


# --- What is not read ------------------------------------------------------------------------------------------------


def test_files_that_are_not_models(tmp_path: Path) -> None:
    def rejected(path: Path) -> str:
        with pytest.raises(ModelError) as caught:
            read(path)
        return str(caught.value)

    other, published = tmp_path / "other.h5", tmp_path / "dataset.h5"
    with h5py.File(other, "w") as file:
        file["a/values"] = np.ones(3)
    with h5py.File(published, "w") as file:
        file["meta"], file["filters"] = np.ones(3), np.ones((2, 3, 3))
    assert "expected a model or weights that Keras saved, got an HDF5 file" in rejected(other)
    assert "got the published data set; use `filterdb import-hdf5`" in rejected(published)
    dense = sequential(layer("Dense", "d"))
    assert "no convolution found" in rejected(
        write_h5(tmp_path / "d.h5", dense, {"d": {"d/kernel:0": np.ones((3, 3))}})
    )
    assert "no convolution found" in rejected(write_h5(tmp_path / "e.h5", None, {"d": {"d/kernel:0": np.ones((3, 3))}}))
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(dense))
        archive.writestr("model.weights.npz", b"")
    assert "expected a Keras archive with model.weights.h5, got none" in rejected(tmp_path / "m.keras")
    for path in (other, published):
        found = scan(ModelSource("m", str(path)), None, Limits())
        assert found.rejected is not None and "import-hdf5" in found.rejected


def test_folders_are_searched_by_content(tmp_path: Path) -> None:
    """An `.h5` file is a model only if Keras wrote it."""
    weights = {"c": {"c/kernel:0": kernel()}}
    models = [
        write_h5(tmp_path / "a.h5", sequential(conv("c", kernel())), weights),
        write_h5(tmp_path / "b.hdf5", None, weights),
        write_keras(tmp_path / "c.keras", sequential(conv("c", kernel())), tree({"layers/conv2d": [kernel()]})),
        tmp_path / "d.weights.h5",
    ]
    models[-1].write_bytes(tree({"layers/conv2d": [kernel()]}))
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["table"] = np.ones(3)
    with h5py.File(tmp_path / "dataset.h5", "w") as file:
        file["meta"], file["filters"] = np.ones(3), np.ones((2, 3, 3))
    assert expand(str(tmp_path)) == [str(path) for path in models]
    assert {format_of(path) for path in models} == {KERAS}
    hashes = {scan(ModelSource(path.name, str(path)), None, Limits()).rows[0]["hash"] for path in models}
    assert len(hashes) == 1  # the same filters in all four
