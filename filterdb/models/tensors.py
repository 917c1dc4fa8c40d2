"""A named tensor of a file without a graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np

Open = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens a file anew for each read, since a model has more tensors than a process may have open files."""


class Stated(NamedTuple):
    """What a file says of the convolution that a weight belongs to, such as a checkpoint that holds whole modules."""

    operator: str
    groups: int
    strides: tuple[int, ...] | None
    dilations: tuple[int, ...] | None
    is_transposed: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of a file.

    `container` is the path of the mapping that holds it ("" for the file's own), joined with dots; `key` is its name
    there. `dtype` is named as in NumPy and ml_dtypes. `read` returns the values in this shape, and raises
    NotStoredError or what parsers raise. `place` is equal for tensors that share stored bytes. `stated` is None if the
    file has the tensor without its layer.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray] = field(repr=False)
    place: Hashable
    container: str = ""
    stated: Stated | None = None

    @property
    def path(self) -> str:
        """Its name in the file."""
        return f"{self.container}.{self.key}" if self.container else self.key
