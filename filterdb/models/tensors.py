"""A named tensor of a file without a graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of a file.

    `container` is the path of the mapping that holds it ("" for the file's own), joined with dots; `key` is its name
    there. `dtype` is named as in NumPy and ml_dtypes. `read` returns the values in this shape, and raises
    NotStoredError or what parsers raise. `place` is equal for tensors that share stored bytes.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray] = field(repr=False)
    place: Hashable
    container: str = ""

    @property
    def path(self) -> str:
        """Its name in the file."""
        return f"{self.container}.{self.key}" if self.container else self.key
