"""A reader of models that crashes for files of certain names: what a hole in a parser would do."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from filterdb.models.onnx import reading
from filterdb.models.sandbox import Channel


def _memory() -> None:
    held = []
    while True:
        held.append(bytearray(2**24))


def _cpu() -> None:
    while True:
        pass


FAULTS: dict[str, Any] = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "memory": _memory,
    "cpu": _cpu,
    "sleep": lambda: time.sleep(600),
    "exit": lambda: os._exit(3),
}


SHAPES: dict[str, Any] = {
    "negative": [-1, 9],
    "number": 9,
    "point": [9, 1],
    "patch": [9, 257],
    "flag": [True, 9],
    "long": [1, 1, 9],
    "other": [3, 27],
    "much": [2**60, 256],
}
"""What a reader says of the nine filters of 3×3 that it then sends."""

ROWS: dict[str, dict[str, Any]] = {
    "five": {"kernel": "5x5"},
    "one": {"rank": 1},
    "nine": {"kernel": "1x9", "rank": 1},
    "unstored": {"kernel": "1x1"},
}
"""What a reader says of the layers, instead of the truth."""


class _Faulty:
    """A channel whose request makes the process crash."""

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.stem = ""

    def receive(self) -> Any:
        request = self.inner.receive()
        stem = Path(request["path"]).stem if "path" in request else ""
        self.stem = self.stem or stem
        if stem == "nonsense":
            self.inner._end.sendall(b"\xff" * 64)
        if stem in FAULTS:
            FAULTS[stem]()
        return request

    def send(self, message: Any) -> None:
        if self.stem == "endless" and "filters" in message:
            while True:
                self.inner.send({"filters": [1, 9]})
                if self.inner.receive()["send"]:
                    self.inner.send_array(np.ones((1, 9), np.float32))
        if "filters" in message and self.stem in SHAPES:
            message = {"filters": SHAPES[self.stem]}
        if "rows" in message and self.stem in ROWS:
            message = {**message, "rows": [row | ROWS[self.stem] for row in message["rows"]]}
        self.inner.send(message)

    def send_array(self, array: np.ndarray) -> None:
        self.inner.send_array(array * np.float32(np.nan) if self.stem == "nan" else array)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def serve(channel: Channel) -> None:
    """As the real one, but for the fault."""
    reading.serve(_Faulty(channel))  # type: ignore[arg-type]
