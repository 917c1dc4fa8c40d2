"""What is known of a hostile model, the writer of the corpus, and the sound convolution beside the odd one."""

from __future__ import annotations

import builtins
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper

from tests.models import conv, model, tensor, weights

End = Literal["rejected", "skipped", "stored"]

GOOD = weights(4, 3, seed=7)
"""The convolution that stands beside the odd one and has to be kept."""

W = weights(4, 3, seed=8)
"""The odd convolution's weight, where it has one."""

CANARY = b"CANARY!!"
"""Two float32 that no model of ours has: content of the files that no model may reach."""

CANARY_FLOATS = np.frombuffer(CANARY, "<f4")

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """A file and the expected end of its ingest: the file rejected, a layer skipped (the model kept), all stored."""

    path: Path
    end: End
    reason: str = ""
    """A regular expression that the reason has, ignoring case."""
    or_else: tuple[End, ...] = ()
    """Ends that are as good."""
    layer: str = "odd"
    """The layer that stands in the ledger where `end` is skipped."""
    kept: tuple[np.ndarray, ...] = (GOOD,)
    """Weights of the layers that are stored unless the file is rejected."""
    odd: tuple[np.ndarray, ...] | None = (W,)
    """Weights that are stored besides, where nothing is skipped. None: they are not judged."""
    bomb: bool = False
    """It attacks time or memory: to be run alone."""
    canary: Path | None = None
    """The file outside that it points at."""
    unread: bool = False
    """It is to be refused by its size, without reading it."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The corpus while it is written."""

    folder: Path
    cases: dict[str, Case] = field(default_factory=dict)

    def place(self, name: str) -> Path:
        """Where the model of a case goes: a folder of its own."""
        path = self.folder / "models" / name.replace(" ", "-") / "m.onnx"
        path.parent.mkdir(parents=True)
        return path

    def canary(self, name: str) -> Path:
        """A file outside every model's folder, as long as the odd weight and longer."""
        path = self.folder / "outside" / f"{name.replace(' ', '-').replace('/', '-')}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CANARY * (len(W.tobytes()) // len(CANARY)))
        return path

    def bytes(self, name: str, data: bytes, end: End, **kwargs: Any) -> None:
        """A case with these bytes."""
        path = self.place(name)
        path.write_bytes(data)
        self.cases[name] = Case(path, end, **kwargs)

    def beside(
        self,
        name: str,
        nodes: list[onnx.NodeProto],
        initializers: Iterable[onnx.TensorProto],
        end: End,
        extra: builtins.bytes = b"",
        **kwargs: Any,
    ) -> Path:
        """A case whose nodes stand beside the good convolution; `extra`: more bytes of the ModelProto."""
        self.bytes(name, beside(nodes, initializers).SerializeToString() + extra, end, **kwargs)
        return self.cases[name].path


Family = Callable[[Writer], None]
"""Writes the cases of one kind."""


def beside(nodes: list[onnx.NodeProto], initializers: Iterable[onnx.TensorProto] = ()) -> onnx.ModelProto:
    """A model of the good convolution and these nodes."""
    return model([conv("x", "good", "y", "good"), *nodes], [tensor("good", GOOD), *initializers])


def odd(weight: str = "w", op: str = "Conv", **attributes: Any) -> onnx.NodeProto:
    """The convolution that is named `odd`."""
    return helper.make_node(op, ["x", weight], ["odd_y"], name="odd", **attributes)


def sparse(path: Path, size: int, head: bytes = b"", tail: bytes = b"") -> None:
    """A file with a hole between head and tail."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
        file.seek(0, io.SEEK_END)
        file.write(tail)
