"""Small ONNX models for tests, built node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21


def weights(out: int = 4, into: int = 3, seed: int = 0, kernel: tuple[int, ...] = (3, 3)) -> np.ndarray:
    """A float32 convolution weight (out, into, *kernel)."""
    return np.random.default_rng(seed).standard_normal((out, into, *kernel)).astype(np.float32)


def tensor(name: str, values: npt.ArrayLike) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def conv(x: str, w: str, y: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w], [y], name=name, **attributes)


def model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto] | None = None,
    *,
    outputs: tuple[str, ...] = ("y",),
    inputs: tuple[str, ...] = ("x",),
    **kwargs: Any,
) -> onnx.ModelProto:
    """A model of these nodes; inputs and outputs are float tensors of any shape."""

    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    graph = helper.make_graph(nodes, "g", [info(n) for n in inputs], [info(n) for n in outputs], initializers or [])
    opsets = kwargs.pop("opset_imports", [helper.make_opsetid("", OPSET)])
    return helper.make_model(graph, opset_imports=opsets, producer_name="tests", **kwargs)


def save(path: Path, proto: onnx.ModelProto) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def chain(path: Path, *layers: np.ndarray, prefix: str = "conv") -> Path:
    """A model with these convolution weights one after the other, its layers named conv0, conv1, …"""
    names = ["x", *(f"h{i}" for i in range(len(layers) - 1)), "y"]
    nodes = [conv(names[i], f"w{i}", names[i + 1], f"{prefix}{i}") for i in range(len(layers))]
    return save(path, model(nodes, [tensor(f"w{i}", w) for i, w in enumerate(layers)]))
