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
                self.inner.send({"filters": 1})
                if self.inner.receive()["send"]:
                    self.inner.send_array(np.ones((1, 9), np.float32))
        self.inner.send({"filters": -1} if self.stem == "negative" and "filters" in message else message)

    def send_array(self, array: np.ndarray) -> None:
        self.inner.send_array(array * np.float32(np.nan) if self.stem == "nan" else array)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def serve(channel: Channel) -> None:
    """As the real one, but for the fault."""
    reading.serve(_Faulty(channel))  # type: ignore[arg-type]
