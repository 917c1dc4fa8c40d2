"""Files that OpenVINO 2026.4.1 wrote, against the weights that its reference implementation computes of them.

`exporters/openvino_ir.py` wrote them, with a hash of the float32 values of each 3×3 weight.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from filterdb.models.model import Model, Request, filters_hash
from filterdb.models.openvino.reading import OpenVinoFile

WRITTEN = Path(__file__).parent / "written"
EXPECTED = {name: json.loads((WRITTEN / f"{name}.json").read_text()) for name in ("every_form", "bodies")}


def read(name: str, folder: Path) -> Model:
    (folder / f"{name}.bin").write_bytes((WRITTEN / f"{name}.bin").read_bytes())
    path = folder / f"{name}.xml"
    path.write_bytes(gzip.decompress((WRITTEN / f"{name}.xml.gz").read_bytes()))
    file = OpenVinoFile.parse(path, Request("m.xml", 2**31))
    needed = file.external_files()
    assert needed == {f"{name}.bin": (folder / f"{name}.bin").stat().st_size}
    return file.model()


@pytest.fixture(scope="module")
def every_form(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read("every_form", tmp_path_factory.mktemp("written"))


@pytest.mark.parametrize("name", EXPECTED["every_form"])
def test_weights_are_those_that_openvino_computes(every_form: Model, name: str) -> None:
    layer = next(layer for layer in every_form.layers if layer.name == name)
    assert filters_hash(layer.weight().filters) == EXPECTED["every_form"][name]


def test_every_convolution_is_stored_or_in_the_ledger(every_form: Model) -> None:
    assert {layer.name for layer in every_form.layers} == EXPECTED["every_form"].keys()
    assert {skip.layer: skip.code for skip in every_form.skipped} == {
        "1x1": "kernel",
        "1d": "rank",
        "transposed": "transposed",
        "group_transposed": "transposed",
        "deformable": "deformable",
        "binary": "operator",
    }
    assert every_form.facts["source_format"] == "OpenVINO" and every_form.facts["depth_source"] == "graph"
    assert json.loads(every_form.facts["operators"])["Convolution"] == 25


def test_layers_are_in_the_order_of_the_graph(every_form: Model) -> None:
    """The forms follow one another; every 3×3 convolution but the one beside the deformable is on the only path."""
    order = [layer.name for layer in every_form.layers]
    assert order == list(EXPECTED["every_form"])
    depths = [layer.row["conv_depth"] for layer in every_form.layers]
    assert depths[:-1] == list(range(len(depths) - 1)) and depths[-1] == depths[-2] + 2  # 1×1 is between


def test_rows_say_how_the_weight_is_stored(every_form: Model) -> None:
    rows = {layer.name: layer for layer in every_form.layers}
    u4 = rows["u4"].weight()
    assert u4.source_dtype == "uint4"
    assert u4.path == ("Const", "Convert(f16)", "Subtract", "Multiply", "Convert(f32)")
    assert rows["f32"].row["strides"] == rows["f32"].row["dilations"] == "[2, 2]"
    assert {n: rows[n].row["batch_norm"] for n in ("f16", "f32", "scale_shift", "bias", "group")} == {
        "f16": "none",
        "f32": "unfolded",
        "scale_shift": "unfolded",
        "bias": "unknown",
        "group": "none",
    }
    assert (rows["group"].row["groups"], rows["group"].row["in_channels"], rows["group"].row["out_channels"]) == (
        2,
        2,
        4,
    )
    assert rows["depthwise"].row["groups"] == 4 and rows["depthwise"].row["depthwise"]
    # OpenVINO writes equal constants once.
    assert rows["f32"].stored_weight not in {rows["bias"].stored_weight, rows["f16"].stored_weight}


def test_bodies(tmp_path: Path, every_form: Model) -> None:
    """An If: the weight of one branch comes from outside, and the convolution after it is deeper than both."""
    model = read("bodies", tmp_path)
    weight = next(layer for layer in every_form.layers if layer.name == "f32").weight().filters
    layers = {layer.name: layer for layer in model.layers}
    assert [(name, layer.row["graph_depth"]) for name, layer in sorted(layers.items())] == [
        ("after", 5),  # ReLU, If, convolution, ReLU of the other branch, convolution
        ("else", 3),
        ("then", 3),
    ]
    for name, factor in (("then", 4), ("else", 5), ("after", 6)):
        np.testing.assert_array_equal(layers[name].weight().filters, factor * weight)
    assert filters_hash(layers["after"].weight().filters) == EXPECTED["bodies"]["after"]
