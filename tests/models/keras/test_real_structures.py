"""Configs and layouts that Keras 3.15.1 wrote (backend torch), with other weights in them.

`real_keras_3.json` has, for each file, the model's config without initialisers and the like, the shape of each dataset,
the attributes, and the datasets whose values equalled each kernel as Keras itself returned it from the model in memory.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import h5py
import networkx as nx
import numpy as np
import pytest

from filterdb.models.keras.reading import KerasFile
from filterdb.models.model import Model, Request
from tests.models.keras.files import TEXT, depthwise_filters, filters, write_keras

REAL: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("real_keras_3.json").read_text())


def fill(file: h5py.File, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """Write a recorded layout with weights of our own; gives them by dataset."""
    rng = np.random.default_rng(1)
    values = {place: rng.standard_normal(shape).astype(np.float32) for place, shape in record["datasets"].items()}
    for place, array in values.items():
        file[place] = array
    for place, attributes in record["attributes"].items():
        for name, value in attributes.items():
            text = np.array(value, TEXT) if isinstance(value, list) and value else value
            file.require_group(place).attrs[name] = np.empty(0) if value == [] else text
    return values


def write(folder: Path, name: str) -> tuple[Model, dict[str, np.ndarray]]:
    """Write a recorded file; gives the model that is read from it, and its weights by dataset."""
    path, record = folder / name, REAL[name]
    if path.suffix == ".keras":
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            values = fill(file, record)
        write_keras(path, record["config"], buffer.getvalue())
    else:
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps(record["config"])
            values = fill(file, record)
    return KerasFile.parse(path, Request(name, 2**31)).model(), values


@pytest.mark.parametrize("name", REAL)
def test_kernels_are_those_that_keras_has(tmp_path: Path, name: str) -> None:
    """By layer, dataset and value. Transposed and recurrent kernels are not stored."""
    model, values = write(tmp_path, name)
    places = {place for found in REAL[name]["kernels"].values() for place in found}
    stored: dict[str, np.ndarray] = {}
    for layer in model.layers:
        weight = layer.weight()
        stored[weight.path[0]] = weight.filters
        assert weight.source_dtype == "float32" and layer.row["operator"] != "Conv2DTranspose"
    skipped = {place for place in places if re.search("transpose|head/|lstm", place)}
    # SpectralNormalization stores its layer's kernel a second time.
    skipped |= {"layers/spectral_normalization/vars/0"}
    if name.startswith("sharednested.h5"):
        assert places == stored.keys()
    # Blocks of a user's own have further kernels than those that were recorded.
    assert places - skipped <= stored.keys() and not skipped & stored.keys()
    for place in places - skipped:
        form = depthwise_filters if re.search("depthwise|separable|/dw/", place) else filters
        np.testing.assert_array_equal(stored[place], form(values[place]), err_msg=place)


@pytest.mark.parametrize("name", [name for name in REAL if not name.startswith(("custom", "subclassed"))])
def test_layers_are_called_as_in_keras(tmp_path: Path, name: str) -> None:
    model, _ = write(tmp_path, name)
    expected = {}
    for key, places in REAL[name]["kernels"].items():
        layer, _, role = key.partition(":")
        if not re.search("transpose|lstm", key):
            expected[f"{layer}/{role}" if "separable" in layer else layer] = places
    found = {layer.name: layer.weight().path[0] for layer in model.layers if "#" not in layer.name}
    assert found.keys() == expected.keys()
    assert all(found[layer] in places for layer, places in expected.items())


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_depths_of_a_graph(tmp_path: Path, suffix: str) -> None:
    """Against networkx: the longest path in nodes, a separable convolution being two."""
    model, _ = write(tmp_path, f"branchy{suffix}")
    graph = nx.DiGraph()
    for layer in REAL[f"branchy{suffix}"]["config"]["config"]["layers"]:
        for call, node in enumerate(layer["inbound_nodes"]):
            graph.add_node((layer["name"], call))
            for source, number in re.findall(r'"keras_history": \["(\w+)", (\d+)', json.dumps(node)):
                graph.add_edge((source, int(number)), (layer["name"], call))
    lengths: dict[tuple[str, int], int] = {}
    for node in nx.topological_sort(graph):
        before = max((lengths[source] for source in graph.predecessors(node)), default=0)
        own = 0 if node[0] == "input_layer" else 2 if "separable" in node[0] else 1
        lengths[node] = before + own
    expected = {name if not call else f"{name}#{call + 1}": length for (name, call), length in lengths.items()}
    expected["separable_conv2d/depthwise_kernel"] = expected["separable_conv2d"] - 1
    assert {layer.name: layer.row["graph_depth"] for layer in model.layers} == {
        layer.name: expected[layer.name] for layer in model.layers
    }
    assert model.facts["depth_source"] == "graph" and model.facts["source_format"] == "Keras"
    assert model.facts["model_depth"] == len(
        {length for length in lengths.values() if length} | {expected["separable_conv2d/depthwise_kernel"]}
    )
    assert json.loads(model.facts["operators"])["Conv2D"] == 6  # `shared` is called twice


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_depths_in_nested_models(tmp_path: Path, suffix: str) -> None:
    """Counted by hand. `block` is called twice; it has c1, a norm, c2 and a sum. The tail has an activation inside."""
    model, _ = write(tmp_path, f"nested{suffix}")
    assert {layer.name: layer.row["graph_depth"] for layer in model.layers} == {
        "inner_outer/conv2d_2": 1,
        "inner_outer/block/c1": 2,
        "inner_outer/block/c2": 4,
        "inner_outer/block/c1#2": 6,
        "inner_outer/block/c2#2": 8,
        "inner_outer/tail/conv2d": 10,
        "inner_outer/tail/conv2d_1": 12,
        "last": 13,
    }
    ranks = [layer.row["conv_depth"] for layer in model.layers]
    assert ranks == list(range(8)) and model.layers[-1].row["conv_depth_norm"] == 1.0
    by_name = {layer.name: layer for layer in model.layers}
    one, two = by_name["inner_outer/block/c1"], by_name["inner_outer/block/c1#2"]
    assert one.stored_weight == two.stored_weight != by_name["last"].stored_weight


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_inputs_and_outputs_of_a_nested_model_are_paired(tmp_path: Path, suffix: str) -> None:
    """`ca` reads the model's input and feeds f1; cb0 reads e0, and cb behind it feeds f2."""
    model, _ = write(tmp_path, f"twoio{suffix}")
    depths = {layer.name: layer.row["graph_depth"] for layer in model.layers}
    assert depths == {"e0": 1, "two/ca": 1, "two/cb0": 2, "two/cb": 3, "f1": 2, "f2": 4}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_layer_of_two_nested_models(tmp_path: Path, suffix: str) -> None:
    """Keras stores it once in an archive, and the config says that it is shared."""
    model, _ = write(tmp_path, f"sharednested{suffix}")
    weights = {layer.name: layer.weight().path for layer in model.layers}
    assert (weights["s1/common"] == weights["s2/common"]) == (suffix == ".keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_batch_normalisation_in_a_graph(tmp_path: Path, suffix: str) -> None:
    """A linear Activation is between `stem` and its norm, a ReLU of the layer itself between conv2d and its own."""
    model, _ = write(tmp_path, f"branchy{suffix}")
    norms = {layer.name: layer.row["batch_norm"] for layer in model.layers}
    assert norms.pop("stem") == "unfolded" and set(norms.values()) == {"none"}
    rows = {layer.name: layer.row for layer in model.layers}
    assert rows["stem"]["strides"] == "[2, 2]" and rows["depthwise_conv2d"]["dilations"] == "[2, 2]"
    assert (rows["depthwise_conv2d"]["groups"], rows["depthwise_conv2d"]["depthwise"]) == (8, True)
    assert (rows["conv2d_2"]["groups"], rows["conv2d_2"]["in_channels"]) == (4, 2)


def test_a_subclassed_model_has_no_graph(tmp_path: Path) -> None:
    """Keras 2's layout keeps the order in which the layers were made; an archive does not."""
    archive, _ = write(tmp_path, "subclassed.keras")
    layered, _ = write(tmp_path, "subclassed.h5")
    assert (archive.facts["depth_source"], layered.facts["depth_source"]) == ("none", "order")
    assert {layer.row["conv_depth"] for layer in archive.layers} == {-1}
    assert [layer.name for layer in layered.layers] == ["conv2d", "conv2d_1", "depthwise_conv2d", "conv2d_2"]
    for model in (archive, layered):
        assert [(skip.code, "transpose" in skip.layer) for skip in model.skipped] == [("transposed", True)]
