"""Hostile models: files that lie, hang, blow up, or reach for what lies outside their folder.

`write_corpus` writes them all, in seconds and with little disk: what is big is sparse or the same bytes many times. A
case says how its ingest should end. Each name is `family/kind`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.hostile import bombs, checkpoints, external, files, graphs, openvino_files, safetensors_files, tensors
from tests.hostile.case import CANARY, CANARY_FLOATS, MIB, Case, Family, W, Writer
from tests.models import chain, weights

__all__ = ["BOMBS", "CANARY", "CANARY_FLOATS", "MIB", "Case", "W", "healthy", "write_corpus"]

BOMBS = (*bombs.BOMBS, *safetensors_files.BOMBS, *checkpoints.BOMBS)
"""The cases that are to be run alone."""

_FAMILIES: tuple[Family, ...] = (
    *external.FAMILIES,
    *files.FAMILIES,
    *tensors.FAMILIES,
    *graphs.FAMILIES,
    *bombs.FAMILIES,
    *safetensors_files.FAMILIES,
    *checkpoints.FAMILIES,
    *openvino_files.FAMILIES,
)


def write_corpus(folder: Path) -> dict[str, Case]:
    """Write every hostile model below `folder`; gives the cases by name."""
    writer = Writer(folder)
    for write in _FAMILIES:
        write(writer)
    assert {name for name, case in writer.cases.items() if case.bomb} == set(BOMBS)
    return writer.cases


def healthy(path: Path, seed: int = 1) -> dict[str, np.ndarray]:
    """A sound model at `path`; gives its weights by layer name."""
    layers = [weights(8, 3, seed), weights(16, 8, seed + 1)]
    chain(path, *layers)
    return {f"conv{i}": layer for i, layer in enumerate(layers)}
