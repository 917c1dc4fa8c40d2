"""Read the graphs of a TensorFlow Lite model: operators, tensors, and which of them depend on an input."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from filterdb.errors import ModelError
from filterdb.models.convolutions import longest_paths
from filterdb.models.parse_errors import shortened
from filterdb.models.tflite import schema
from filterdb.models.tflite.flatbuffer import (
    INT8,
    INT32,
    UINT8,
    UINT32,
    UINT64,
    FlatBuffer,
    FlatBufferError,
    Span,
    Table,
)

NO_TENSOR = -1
"""The index of an optional input that an operator does not have."""

MAX_RANK = 8
"""Most dimensions of a tensor, as in TensorFlow Lite's own kernels."""

SOURCES = {"RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL", "STABLEHLO_RNG_BIT_GENERATOR", "READ_VARIABLE"}
"""Operators whose results are not constant even if all their inputs are."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How numbers are computed from the stored integers: scale · (integer − zero point), for each index of `axis`."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    is_supported: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor. `data` is where its values are, if it has any; `sparsity` describes their layout if it is sparse."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Span | None
    quantization: Quantization | None
    sparsity: Table | None
    is_variable: bool
    is_external: bool


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: its name, and the indices of the tensors that it reads and writes."""

    name: str
    inputs: list[int]
    outputs: list[int]
    table: Table = field(repr=False)

    def input(self, position: int) -> int:
        """Return the index of an input, or NO_TENSOR."""
        return self.inputs[position] if position < len(self.inputs) else NO_TENSOR

    def options(self) -> Table | None:
        """Return the options of a convolution; None if it has none, or those of another operator."""
        expected = schema.OPTIONS.get(self.name)
        if self.table.number(schema.Operator.OPTIONS_TYPE, UINT8) != expected:
            return None
        return self.table.table(schema.Operator.OPTIONS)


@dataclass
class Graph:
    """A graph (in the schema, a subgraph) with its operators in the order of execution."""

    model: ModelTables = field(repr=False)
    index: int
    table: Table
    operators: list[Operator]
    _tensors: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def tensor(self, index: int) -> Tensor:
        """Return a tensor. Raises FlatBufferError if its tables are invalid."""
        if index not in self._tensors:
            self._tensors[index] = self.model.tensor(self.table.tables(schema.Subgraph.TENSORS)[index])
        return self._tensors[index]

    def tensor_name(self, index: int) -> str:
        """Return the name of a tensor; empty if there is none, or if it cannot be read."""
        try:
            return self.table.tables(schema.Subgraph.TENSORS)[index].text(schema.Tensor.NAME)
        except FlatBufferError:
            return ""

    @cached_property
    def inputs(self) -> set[int]:
        """The tensors that are inputs of the graph."""
        return set(self.table.integers(schema.Subgraph.INPUTS))

    @cached_property
    def producers(self) -> dict[int, list[int]]:
        """The positions of the operators that write each tensor. A valid model has one for each."""
        writers: dict[int, list[int]] = {}
        for position, operator in enumerate(self.operators):
            for tensor in operator.outputs:
                writers.setdefault(tensor, []).append(position)
        return writers

    @cached_property
    def consumers(self) -> dict[int, list[int]]:
        """The positions of the operators that read each tensor."""
        readers: dict[int, list[int]] = {}
        for position, operator in enumerate(self.operators):
            for tensor in dict.fromkeys(operator.inputs):
                readers.setdefault(tensor, []).append(position)
        return readers

    @cached_property
    def live(self) -> set[int]:
        """The tensors that depend on an input of the graph, or on an operator without inputs."""
        pending = [tensor for tensor in self.inputs if tensor != NO_TENSOR]
        for operator in self.operators:
            if operator.name in SOURCES or not any(tensor != NO_TENSOR for tensor in operator.inputs):
                pending += [tensor for tensor in operator.outputs if tensor != NO_TENSOR]
        live = set(pending)
        while pending:
            for position in self.consumers.get(pending.pop(), ()):
                fresh = set(self.operators[position].outputs) - live - {NO_TENSOR}
                live |= fresh
                pending += fresh
        return live

    @cached_property
    def lengths(self) -> list[int | None]:
        """The operators on the longest path from an input to each operator; None if no input reaches it.

        An operator that only computes a constant, such as one that converts a weight to float32, is not counted.
        """
        moving = [not self.live.isdisjoint(operator.inputs) for operator in self.operators]
        first = {tensor: writers[0] for tensor, writers in self.producers.items() if tensor in self.live}
        sources = [
            [first[tensor] for tensor in operator.inputs if tensor in first and moving[first[tensor]]] if moves else []
            for operator, moves in zip(self.operators, moving, strict=True)
        ]
        paths = longest_paths(sources)
        return [length if moves else None for length, moves in zip(paths, moving, strict=True)]


@dataclass
class ModelTables:
    """The root table of a file, and what its parts share. `file_size` counts what is behind the FlatBuffer, too."""

    buffer: FlatBuffer
    file_size: int
    root: Table = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.buffer.root()
        version = self.root.number(schema.Model.VERSION, UINT32)
        if version != schema.VERSION:
            raise ModelError(f"{self.path}: not a readable model: expected schema version 3, got {version}")
        self._buffers = self.root.tables(schema.Model.BUFFERS)

    @property
    def path(self) -> Path:
        """The file's path, for messages."""
        return self.buffer.path

    @cached_property
    def operator_names(self) -> list[str]:
        """The names of the kinds of operators that the file lists: builtin names, and those of custom operators."""
        return [_operator_name(code) for code in self.root.tables(schema.Model.OPERATOR_CODES)]

    def graphs(self) -> list[Graph]:
        """Return the graphs. Raises ModelError if they name operators or tensors that the file does not have."""
        tables = self.root.tables(schema.Model.SUBGRAPHS)
        if not len(tables):
            raise ModelError(f"{self.path}: not a readable model: expected a graph, got none")
        return [self._graph(index, table) for index, table in enumerate(tables)]

    def _graph(self, index: int, table: Table) -> Graph:
        tensors = len(table.tables(schema.Subgraph.TENSORS))
        graph = Graph(self, index, table, [])
        self._check(graph.inputs, tensors, f"graph {index}")
        for position, entry in enumerate(table.tables(schema.Subgraph.OPERATORS)):
            place = f"operator {position} of graph {index}"
            code = entry.number(schema.Operator.OPCODE_INDEX, UINT32)
            if code >= len(self.operator_names):
                got = f"kind {code} of {len(self.operator_names)}"
                raise ModelError(f"{self.path}: not a readable model: {place} is of {got}")
            inputs = entry.integers(schema.Operator.INPUTS)
            outputs = entry.integers(schema.Operator.OUTPUTS)
            self._check([*inputs, *outputs], tensors, place)
            graph.operators.append(Operator(self.operator_names[code], inputs, outputs, entry))
        return graph

    def _check(self, indices: list[int] | set[int], tensors: int, place: str) -> None:
        """Raise ModelError unless the indices are those of tensors, or NO_TENSOR."""
        if indices and not NO_TENSOR <= min(indices) <= max(indices) < tensors:
            got = next(index for index in indices if not NO_TENSOR <= index < tensors)
            raise ModelError(f"{self.path}: not a readable model: {place} has tensor {got} of {tensors}")

    def tensor(self, table: Table) -> Tensor:
        """Read a tensor's description. Raises FlatBufferError if its tables are invalid."""
        kind = table.number(schema.Tensor.TYPE, INT8)
        quantization = table.table(schema.Tensor.QUANTIZATION)
        return Tensor(
            table.text(schema.Tensor.NAME),
            tuple(table.integers(schema.Tensor.SHAPE)),
            schema.DTYPES.get(kind, f"unknown ({kind})"),
            self.data(table.number(schema.Tensor.BUFFER, UINT32)),
            None if quantization is None else _quantization(quantization),
            table.table(schema.Tensor.SPARSITY),
            bool(table.number(schema.Tensor.IS_VARIABLE, UINT8)),
            bool(table.number(schema.Tensor.EXTERNAL_BUFFER, UINT32)),
        )

    def data(self, index: int) -> Span | None:
        """Return where the bytes of a buffer are; None if it is empty. Buffer 0 always is."""
        if not index:
            return None
        buffer = self._buffers[index]
        start = buffer.number(schema.Buffer.OFFSET, UINT64)
        if start > 1:  # 0 and 1 say that the bytes are in the FlatBuffer
            return self._behind(start, buffer.number(schema.Buffer.SIZE, UINT64))
        span = buffer.span(schema.Buffer.DATA)
        return span if span is not None and span.length else None

    def _behind(self, start: int, length: int) -> Span | None:
        if start + length > self.file_size:
            raise FlatBufferError(f"{length:,} bytes at {start:,} are outside the file's {self.file_size:,} bytes")
        return Span(start, length) if length else None

    def producer(self) -> str:
        """Return what the file says about its converter: a description, and the oldest runtime that can run it."""
        described = shortened(self.root.text(schema.Model.DESCRIPTION))
        runtime = self._metadata("min_runtime_version")
        return f"{described} (runtime {runtime} or newer)" if runtime else described

    def _metadata(self, name: str) -> str:
        """Return a text of the metadata; empty if it is missing."""
        for entry in self.root.tables(schema.Model.METADATA):
            if entry.text(schema.Metadata.NAME) == name:
                span = self.data(entry.number(schema.Metadata.BUFFER, UINT32))
                if span is not None and span.start + span.length <= self.buffer.size:
                    text = self.buffer.data[span.start : span.start + min(span.length, 64)]
                    return bytes(text).split(b"\0")[0].decode("utf-8", "replace")
        return ""


def _operator_name(code: Table) -> str:
    """Return the name of a kind of operator."""
    number = max(
        code.number(schema.OperatorCode.DEPRECATED_BUILTIN_CODE, INT8),
        code.number(schema.OperatorCode.BUILTIN_CODE, INT32),
    )
    if number == schema.CUSTOM:
        name = shortened(code.text(schema.OperatorCode.CUSTOM_CODE)) or "CUSTOM"
        return f"custom {name}" if name in schema.OPERATORS else name
    return schema.OPERATORS[number] if 0 <= number < len(schema.OPERATORS) else f"builtin {number}"


def _quantization(table: Table) -> Quantization | None:
    """Read the parameters of quantisation; None if there is no scale, as for tensors of floats."""
    scale = table.numbers(schema.Quantization.SCALE, "<f4")
    has_details = bool(table.number(schema.Quantization.DETAILS_TYPE, UINT8))
    if not len(scale) and not has_details:
        return None
    zero_point = table.numbers(schema.Quantization.ZERO_POINT, "<i8")
    return Quantization(scale, zero_point, table.number(schema.Quantization.DIMENSION, INT32), not has_details)


def operator_counts(graphs: list[Graph]) -> dict[str, int]:
    """Count the operators of all graphs by name."""
    return dict(sorted(Counter(operator.name for graph in graphs for operator in graph.operators).items()))
