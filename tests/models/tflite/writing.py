"""Write TensorFlow Lite models with flatbuffers' own builder, which shares no code with the reader.

The numbers of fields and operators are from TensorFlow's schema.fbs. They are written down here a second time, so that
a slip in the reader's table shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

FLOAT32, FLOAT16, INT32, UINT8, INT64, INT16, INT8, INT4, BFLOAT16, INT2, UINT4 = 0, 1, 2, 3, 4, 7, 9, 17, 18, 19, 20
TYPES = {
    "float32": 0,
    "float16": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "bool": 6,
    "int16": 7,
    "int8": 9,
    "float64": 10,
}
CODES = {
    **{"ADD": 0, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "DEQUANTIZE": 6, "MUL": 18, "RELU": 19, "RESHAPE": 22},
    **{"CUSTOM": 32, "PAD": 34, "TRANSPOSE": 39, "SUB": 41, "CAST": 53, "TRANSPOSE_CONV": 67, "DENSIFY": 124},
    **{"CONV_3D": 132, "RANDOM_UNIFORM": 148, "STABLEHLO_CONVOLUTION": 171},
}


@dataclass
class T:
    """A tensor. `values` are stored as they are; `raw` are bytes instead of them. Without both, it is computed."""

    name: str | bytes
    shape: tuple[int, ...]
    values: np.ndarray | None = None
    kind: int | None = None
    scale: list[float] | None = None
    zero: list[int] | None = None
    axis: int = 0
    details: int = 0
    raw: bytes | None = None
    variable: bool = False
    external: int = 0
    buffer: int | None = None
    """The number of the buffer, instead of one of its own."""
    sparsity: S | None = None

    def data(self) -> bytes | None:
        return self.raw if self.values is None else np.ascontiguousarray(self.values).tobytes()

    def type(self) -> int:
        return self.kind if self.kind is not None else 0 if self.values is None else TYPES[self.values.dtype.name]


@dataclass
class S:
    """A sparse layout. A level is an int (dense) or a pair of arrays (segments, indices) of one dtype."""

    order: list[int]
    levels: list[int | tuple[np.ndarray, np.ndarray]]
    blocks: list[int] = field(default_factory=list)


@dataclass
class Op:
    """An operator by name, with the names of its tensors (or their numbers, or None), and its options by field."""

    name: str
    inputs: list[str | bytes | int | None]
    outputs: list[str | bytes]
    options: dict[int, tuple[str, int]] = field(default_factory=dict)
    options_type: int = 0
    code: int | None = None


@dataclass
class G:
    """A graph."""

    tensors: list[T]
    ops: list[Op]
    inputs: list[str | bytes] = field(default_factory=lambda: ["x"])


def conv(weight: str, x: str = "x", y: str = "y", bias: str | None = None, **kwargs: Any) -> Op:
    """A CONV_2D: strides and dilations are (height, width)."""
    stride, dilation = kwargs.pop("stride", (1, 1)), kwargs.pop("dilation", (1, 1))
    options = {
        **{1: ("Int32", stride[1]), 2: ("Int32", stride[0]), 3: ("Int8", kwargs.pop("activation", 0))},
        **{4: ("Int32", dilation[1]), 5: ("Int32", dilation[0])},
    }
    return Op("CONV_2D", [x, weight, bias], [y], options, 1, **kwargs)


def depthwise(weight: str, x: str = "x", y: str = "y", multiplier: int = 1, **kwargs: Any) -> Op:
    """A DEPTHWISE_CONV_2D."""
    stride, dilation = kwargs.pop("stride", (1, 1)), kwargs.pop("dilation", (1, 1))
    options = {
        **{1: ("Int32", stride[1]), 2: ("Int32", stride[0]), 3: ("Int32", multiplier), 4: ("Int8", 0)},
        **{5: ("Int32", dilation[1]), 6: ("Int32", dilation[0])},
    }
    return Op("DEPTHWISE_CONV_2D", [x, weight, kwargs.pop("bias", None)], [y], options, 2, **kwargs)


class Writer:
    """A model in the making. `repeat`: how often each graph is listed; `behind`: bytes come behind the FlatBuffer."""

    def __init__(self, graphs: list[G], **facts: Any) -> None:
        self.graphs = graphs
        self.facts = facts
        self.builder = flatbuffers.Builder(1 << 16)
        self.buffers: list[bytes] = [b""]
        self.codes: list[str] = []
        self.indices: dict[bytes, int] = {}

    def finish(self) -> bytes:
        """Return the file."""
        graphs = [self._graph(graph) for graph in self.graphs] * self.facts.get("repeat", 1)
        codes = [self._code(name) for name in self.codes]
        described = self._text(self.facts.get("description", "tests"))
        metadata = []
        for name, data in self.facts.get("metadata", {}).items():
            self.buffers.append(data)
            metadata.append(self._table({0: ("o", self._text(name)), 1: ("Uint32", len(self.buffers) - 1)}))
        fields = {
            0: ("Uint32", self.facts.get("version", 3)),
            1: ("o", self._offsets(codes)),
            2: ("o", self._offsets(graphs)),
            3: ("o", described),
            6: ("o", self._offsets(metadata)),
        }
        behind = self.facts.get("behind", False)
        # The places behind the end are known only when the FlatBuffer is finished: they are filled in afterwards.
        marks = [0x7B00_0000_0000_0000 + i for i in range(len(self.buffers))]
        fields[4] = (
            "o",
            self._offsets(
                [self._buffer(data, mark if behind else 0) for data, mark in zip(self.buffers, marks, strict=True)]
            ),
        )
        self.builder.Finish(self._table(fields), file_identifier=b"TFL3")
        whole = bytes(self.builder.Output())
        if behind:
            for data, mark in zip(self.buffers, marks, strict=True):
                if data:
                    whole = whole.replace(mark.to_bytes(8, "little"), len(whole).to_bytes(8, "little")) + data
        return whole

    def _graph(self, graph: G) -> int:
        index = {tensor.name: number for number, tensor in reversed(list(enumerate(graph.tensors)))}
        tensors = self._offsets([self._tensor(tensor) for tensor in graph.tensors])
        ops = []
        for op in graph.ops:
            if op.name not in self.codes:
                self.codes.append(op.name)
            options = self._table(op.options) if op.options_type else 0
            fields = {
                0: ("Uint32", self.codes.index(op.name) if op.code is None else op.code),
                1: ("o", self._shared([_number(name, index) for name in op.inputs])),
                2: ("o", self._shared([index[name] for name in op.outputs])),
            }
            if op.options_type:
                fields |= {3: ("Uint8", op.options_type), 4: ("o", options)}
            ops.append(self._table(fields))
        outputs = graph.ops[-1].outputs if graph.ops else []
        fields = {
            0: ("o", tensors),
            1: ("o", self._numbers([index[name] for name in graph.inputs], "<i4")),
            2: ("o", self._numbers([index[name] for name in outputs], "<i4")),
            3: ("o", self._offsets(ops)),
        }
        return self._table(fields)

    def _tensor(self, tensor: T) -> int:
        data, number = tensor.data(), tensor.buffer or 0
        if data is not None:
            self.buffers.append(data)
            number = len(self.buffers) - 1
        fields = {
            0: ("o", self._numbers(tensor.shape, "<i4")),
            1: ("Int8", tensor.type()),
            2: ("Uint32", number),
            3: ("o", self._text(tensor.name)),
            5: ("Bool", tensor.variable),
            10: ("Uint32", tensor.external),
        }
        if tensor.scale is not None or tensor.details:
            quantization = {2: ("o", self._numbers(tensor.scale or [], "<f4")), 6: ("Int32", tensor.axis)}
            if tensor.zero is not None:
                quantization[3] = ("o", self._numbers(tensor.zero, "<i8"))
            if tensor.details:
                quantization |= {4: ("Uint8", tensor.details), 5: ("o", self._table({}))}
            fields[4] = ("o", self._table(quantization))
        if tensor.sparsity is not None:
            fields[6] = ("o", self._sparsity(tensor.sparsity))
        return self._table(fields)

    def _sparsity(self, sparsity: S) -> int:
        levels = []
        for level in sparsity.levels:
            if isinstance(level, int):
                levels.append(self._table({0: ("Int8", 0), 1: ("Int32", level)}))
                continue
            fields: dict[int, tuple[str, int]] = {0: ("Int8", 1)}
            for first, indices in zip((2, 4), level, strict=True):
                kind = {"int32": 1, "uint16": 2, "uint8": 3}[indices.dtype.name]
                vector = self._table({0: ("o", self._numbers(indices, indices.dtype.str))})
                fields |= {first: ("Uint8", kind), first + 1: ("o", vector)}
            levels.append(self._table(fields))
        parts = {0: ("o", self._numbers(sparsity.order, "<i4")), 2: ("o", self._offsets(levels))}
        if sparsity.blocks:
            parts[1] = ("o", self._numbers(sparsity.blocks, "<i4"))
        return self._table(parts)

    def _code(self, name: str) -> int:
        number = CODES.get(name, CODES["CUSTOM"])
        fields = {0: ("Int8", min(number, 127)), 3: ("Int32", number)}
        if name not in CODES:
            fields[1] = ("o", self._text(name.removeprefix("custom:")))
        return self._table(fields)

    def _buffer(self, data: bytes, mark: int) -> int:
        if not data:
            return self._table({})
        if mark:
            return self._table({1: ("Uint64", mark), 2: ("Uint64", len(data))})
        return self._table({0: ("o", self._numbers(np.frombuffer(data, np.uint8), "u1"))})

    def _table(self, fields: dict[int, tuple[str, Any]]) -> int:
        """A table of these fields: the builder's name of the type ("o": an offset) and the value."""
        self.builder.StartObject(max(fields, default=-1) + 1)
        for number, (kind, value) in fields.items():
            if kind == "o":
                self.builder.PrependUOffsetTRelativeSlot(number, value, 0)
            else:
                getattr(self.builder, f"Prepend{kind}Slot")(number, value, None)  # None: also where it is the default
        return int(self.builder.EndObject())

    def _offsets(self, tables: list[int]) -> int:
        self.builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self.builder.PrependUOffsetTRelative(table)
        return int(self.builder.EndVector())

    def _numbers(self, values: Any, dtype: str) -> int:
        array = np.asarray(values, dtype)
        if not array.size:  # CreateNumpyVector takes no empty array of some types
            self.builder.StartVector(array.itemsize, 0, array.itemsize)
            return int(self.builder.EndVector())
        return int(self.builder.CreateNumpyVector(array))

    def _shared(self, indices: list[int]) -> int:
        """A vector of indices, which is written once however often it is used."""
        key = np.array(indices, np.int32).tobytes()
        if key not in self.indices:
            self.indices[key] = self._numbers(indices, "<i4")
        return self.indices[key]

    def _text(self, text: str | bytes) -> int:
        return int(self.builder.CreateString(text))


def _number(name: str | bytes | int | None, index: dict[str | bytes, int]) -> int:
    """The number of a tensor that an operator names."""
    return -1 if name is None else name if isinstance(name, int) else index[name]


def write(path: Path, *graphs: G, **facts: Any) -> Path:
    """Write a model of these graphs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(Writer(list(graphs), **facts).finish())
    return path


def ohwi(weight: np.ndarray) -> np.ndarray:
    """A weight (out, in, height, width) as CONV_2D has it."""
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1))


def plain(weight: np.ndarray, channels: int | None = None, **kwargs: Any) -> G:
    """A graph of one CONV_2D with this weight (out, in, height, width)."""
    out, into = weight.shape[:2]
    tensors = [
        T("x", (1, 8, 8, channels or into)),
        T("w", ohwi(weight).shape, ohwi(weight)),
        T("b", (out,), np.zeros(out, np.float32)),
        T("y", (1, 8, 8, out)),
    ]
    return G(tensors, [conv("w", bias="b", **kwargs)])
