"""Every kernel shape in Keras, TensorFlow Lite, OpenVINO and safetensors, against the arrays that were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from filterdb.models.keras.reading import KerasFile
from filterdb.models.model import Model, Request
from filterdb.models.openvino.reading import OpenVinoFile
from filterdb.models.safetensors.reading import SafetensorsFile
from filterdb.models.tflite.reading import TfliteFile
from filterdb.schema import Kernels, has_bank
from tests.models import weights
from tests.models.keras.files import kernel, layer, sequential, tree, write_h5, write_keras
from tests.models.openvino import Net
from tests.models.tflite.writing import G, T, conv, depthwise, ohwi, write

SHAPES: dict[str, tuple[int, ...]] = {
    "five": (4, 3, 5, 5), "wide": (4, 3, 1, 7), "high": (4, 3, 7, 1), "point": (4, 3, 1, 1), "patch": (4, 3, 17, 17),
    "three": (4, 3, 3, 3), "line": (4, 3, 9), "dot": (4, 3, 1),
}  # fmt: skip
"""Shapes of weights (out, in, …) by the name of their layer."""

VALUES = {name: weights(shape[0], shape[1], seed, shape[2:]) for seed, (name, shape) in enumerate(SHAPES.items())}


def keras_order(values: np.ndarray) -> np.ndarray:
    """The weight (out, in, …) as Keras has it: (…, in, out)."""
    return np.ascontiguousarray(np.moveaxis(values, (1, 0), (-2, -1)))


def write_keras_2(folder: Path) -> Callable[[Request], Model]:
    """A model in which each layer is called after its class, and has a config."""
    layers = [
        layer(f"Conv{v.ndim - 2}D", name, filters=4, kernel_size=list(v.shape[2:]), use_bias=False)
        for name, v in VALUES.items()
    ]
    path = write_h5(
        folder / "m.h5", sequential(*layers), {n: {f"{n}/kernel:0": keras_order(v)} for n, v in VALUES.items()}
    )
    return lambda request: KerasFile.parse(path, request).model()


def write_keras_weights(folder: Path) -> Callable[[Request], Model]:
    """Weights alone, whose names say what they are of; attention has weights of rank 3 and a bias too."""
    tensors = {
        f"{n}_conv": {f"{n}_conv/kernel:0": keras_order(v), f"{n}_conv/bias:0": np.ones(4)} for n, v in VALUES.items()
    }
    tensors["attention"] = {"attention/kernel:0": np.ones((3, 5, 4)), "attention/bias:0": np.ones(4)}
    path = write_h5(folder / "m.h5", None, tensors)
    return lambda request: KerasFile.parse(path, request).model()


def write_openvino(folder: Path) -> Callable[[Request], Model]:
    net = Net()
    value = net.input()
    for name, values in VALUES.items():
        ones = ", ".join("1" for _ in values.shape[2:])
        inputs = [value, net.const(values)]
        net.add("Result", [net.add("Convolution", inputs, name=name, strides=ones, dilations=ones)])
    path = net.write(folder / "m.xml")
    return lambda request: OpenVinoFile.parse(path, request).model()


def write_tflite(folder: Path) -> Callable[[Request], Model]:
    """Without a convolution of one dimension, which TensorFlow Lite writes as one of two."""
    two = {name: v for name, v in VALUES.items() if v.ndim == 4}
    tensors = [T("x", (1, 32, 32, 3)), *(T(f"{n}_y", (1, 32, 32, 4)) for n in two)]
    tensors += [T(name, ohwi(values).shape, ohwi(values)) for name, values in two.items()]
    path = write(folder / "m.tflite", G(tensors, [conv(name, y=f"{name}_y") for name in two]))
    return lambda request: TfliteFile.parse(path, request).model()


def write_safetensors(folder: Path) -> Callable[[Request], Model]:
    head, data = {}, b""
    for name, values in VALUES.items():
        span = [len(data), len(data) + values.nbytes]
        head[f"{name}.conv.weight"] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": span}
        data += values.tobytes()
    text = json.dumps(head).encode()
    path = folder / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return lambda request: SafetensorsFile.parse(path, request).model()


WRITERS = {
    "Keras 2": write_keras_2,
    "weights of Keras 2": write_keras_weights,
    "OpenVINO": write_openvino,
    "TensorFlow Lite": write_tflite,
    "safetensors": write_safetensors,
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("kernels", [None, ((3, 3),), ((1, 7), (1, 9), (5, 5)), ((7, 1),)], ids=str)
def test_every_shape(form: str, kernels: Kernels, tmp_path: Path) -> None:
    read = WRITERS[form](tmp_path)
    model, everything = (read(Request("m", 2**30, kernels=asked)) for asked in (kernels, None))
    found = {layer.name.split(".")[0].split("_")[0]: layer for layer in (*model.layers, *model.others)}
    full = {layer.name.split(".")[0].split("_")[0]: layer for layer in (*everything.layers, *everything.others)}
    present = {name for name, v in VALUES.items() if v.ndim == 4 or form != "TensorFlow Lite"}
    shape = {name: (1, *VALUES[name].shape[2:])[-2:] for name in present}
    assert found.keys() == {name for name in present if kernels is None or shape[name] in kernels}
    for name, one in found.items():
        values = VALUES[name]
        assert (one.rank, one.kernel, one.filters) == (values.ndim - 2, shape[name], 12)
        np.testing.assert_array_equal(one.weight().filters, values.reshape(12, -1))
        np.testing.assert_equal(one.row, full[name].row)
    assert {one.name for one in model.others} == {one.name for one in found.values() if not has_bank(one.kernel)}
    assert (model.facts == everything.facts and kernels is not None) or not model.skipped
    assert {skip.code for skip in model.skipped} <= {"kernel", "rank"}
    depths = [one.row["conv_depth"] for one in model.layers]
    assert depths == sorted(depths)


DEPTHWISE = np.random.default_rng(3).standard_normal((5, 5, 4, 2)).astype(np.float32)


def test_depthwise_kernels_of_keras(tmp_path: Path) -> None:
    """Of two dimensions and one, alone and as the first part of a separable one; channel c, multiplier m: c · 2 + m."""
    line, point, dot = DEPTHWISE[0], kernel(6, 8, 1, (1, 1)), kernel(6, 8, 2, (1,))
    layers = [
        layer("DepthwiseConv2D", "d2", kernel_size=[5, 5], depth_multiplier=2),
        layer("SeparableConv2D", "s2", kernel_size=[5, 5], depth_multiplier=2, filters=6),
        layer("DepthwiseConv1D", "d1", kernel_size=[5], depth_multiplier=2, strides=[3]),
        layer("SeparableConv1D", "s1", kernel_size=5, depth_multiplier=2, filters=6),
    ]
    stored = tree({
        "layers/depthwise_conv2d": [DEPTHWISE], "layers/separable_conv2d": [DEPTHWISE, point],
        "layers/depthwise_conv1d": [line], "layers/separable_conv1d": [line, dot],
    })  # fmt: skip
    paths = [write_keras(tmp_path / "m.keras", sequential(*layers), stored), tmp_path / "m.weights.h5"]
    paths[1].write_bytes(stored)
    two = [DEPTHWISE[:, :, c, m].ravel() for c in range(4) for m in range(2)]
    one = [line[:, c, m] for c in range(4) for m in range(2)]
    for path in paths:
        model = KerasFile.parse(path, Request("m", 2**30, kernels=None)).model()
        assert not model.skipped
        for found in model.layers:
            np.testing.assert_array_equal(found.weight().filters, two if found.rank == 2 else one)
            assert (found.kernel, found.row["depthwise"]) == ((5, 5) if found.rank == 2 else (1, 5), True)
        assert [found.rank for found in model.layers].count(1) == 2 == len(model.layers) - 2
        for found in model.others:
            expected = (point if found.rank == 2 else dot).reshape(8, 6).T
            np.testing.assert_array_equal(found.weight().filters.reshape(6, 8), expected)
        assert [found.rank for found in model.others] == [2, 1]


def test_depthwise_kernels_of_tflite(tmp_path: Path) -> None:
    stored = np.random.default_rng(1).standard_normal((1, 5, 7, 6)).astype(np.float32)
    tensors = [T("x", (1, 8, 8, 6)), T("w", stored.shape, stored), T("y", (1, 8, 8, 6))]
    path = write(tmp_path / "m.tflite", G(tensors, [depthwise("w")]))
    (found,) = TfliteFile.parse(path, Request("m", 2**30, kernels=((5, 7),))).model().layers
    assert found.kernel == (5, 7) and found.row["depthwise"]
    np.testing.assert_array_equal(found.weight().filters, [stored[0, :, :, c].ravel() for c in range(6)])


def test_groups_of_one_dimension_in_openvino(tmp_path: Path) -> None:
    """The groups are a dimension of the weight, so that this one has rank 4."""
    net, values = Net(), weights(2, 4, 0, (3, 9))
    inputs = [net.input(), net.const(values)]
    net.add("Result", [net.add("GroupConvolution", inputs, name="g", strides="2", dilations="1")])
    path = net.write(tmp_path / "m.xml")
    (found,) = OpenVinoFile.parse(path, Request("m", 2**30, kernels=((1, 9),))).model().layers
    assert (found.kernel, found.rank, found.row["groups"], found.row["strides"]) == ((1, 9), 1, 2, "[2]")
    np.testing.assert_array_equal(found.weight().filters, values.reshape(-1, 9))
