"""Small OpenVINO models for tests, built layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

NAMES = {"float32": "f32", "float16": "f16", "float64": "f64", "int64": "i64", "int8": "i8", "uint8": "u8"}
"""OpenVINO's names of NumPy's types."""


@dataclass
class Net:
    """A model while it is built. Layers are numbered from 0; each has one output, whose port comes after its inputs."""

    layers: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    outputs: list[int] = field(default_factory=list)

    def add(self, kind: str, inputs: Sequence[int] = (), /, name: str = "", inside: str = "", **data: Any) -> int:
        """Add a layer that reads the layers `inputs`; gives its number. `inside`: further XML of the layer."""
        number = len(self.layers)
        attributes = " ".join(f"{key}={quoteattr(str(value))}" for key, value in data.items())
        ports = "".join(f'<port id="{place}"/>' for place in range(len(inputs)))
        head = f'id="{number}" name={quoteattr(name or f"{kind}_{number}")} type={quoteattr(kind)} version="opset1"'
        self.layers.append(
            f"<layer {head}>"
            f'<data {attributes}/><input>{ports}</input><output><port id="{len(inputs)}"/></output>{inside}</layer>'
        )
        for place, source in enumerate(inputs):
            self.edge(source, self.outputs[source], number, place)
        self.outputs.append(len(inputs))
        return number

    def edge(self, start: int, output: int, end: int, port: int) -> None:
        self.edges.append(f'<edge from-layer="{start}" from-port="{output}" to-layer="{end}" to-port="{port}"/>')

    def input(self) -> int:
        return self.add("Parameter", shape="1,3,8,8", element_type="f32")

    def const(self, values: np.ndarray, **data: Any) -> int:
        """Add a constant; `data` replaces what is stated of it."""
        facts: dict[str, Any] = {
            "element_type": NAMES.get(values.dtype.name, values.dtype.name),
            "shape": ", ".join(map(str, values.shape)),
            "offset": len(self.data),
            "size": values.nbytes,
        }
        self.data += values.tobytes()
        return self.add("Const", **facts | data)

    def conv(self, source: int, weight: int, name: str = "conv", kind: str = "Convolution") -> int:
        return self.add(kind, [source, weight], name=name, strides="1, 1", dilations="1, 1")

    def text(self, version: object = 11, more: str = "") -> str:
        """The XML."""
        return f'<?xml version="1.0"?>\n<net name="m" version="{version}">\n{self.body()}{more}</net>\n'

    def body(self) -> str:
        """The layers and edges, as a body has them too."""
        return f"<layers>{''.join(self.layers)}</layers><edges>{''.join(self.edges)}</edges>"

    def write(self, path: Path, version: object = 11, more: str = "") -> Path:
        """Write the XML at `path`, and the constants beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text(version, more))
        path.with_suffix(".bin").write_bytes(self.data)
        return path


def chain(path: Path, *layers: np.ndarray) -> Path:
    """A model with these weights one after the other, its layers named conv0, conv1, …"""
    net = Net()
    value = net.input()
    for number, weight in enumerate(layers):
        value = net.conv(value, net.const(weight), f"conv{number}")
    net.add("Result", [value])
    return net.write(path)
