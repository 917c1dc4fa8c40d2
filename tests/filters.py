"""Filters like those of trained models, for tests: structured, of families that differ as architectures do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.models import chain


def trained(out: int, into: int, seed: int = 0, family: int = 0) -> np.ndarray:
    """A weight (out, into, 3, 3) whose filters are sparse mixtures of the family's Gabor patches, and some noise.

    `seed` is the training: it draws the mixtures and moves the patches a little; `family` draws the patches.
    """
    own, run = np.random.default_rng([family, 99]), np.random.default_rng([family, seed])
    y, x = np.mgrid[-1:2, -1:2].astype(np.float64)
    patches = []
    for _ in range(8):
        angle, frequency, phase, width = own.uniform([0, 0.2, 0, 0.7], [np.pi, 1.6, np.pi, 2.0])
        angle, phase = angle + run.normal(0, 0.03), phase + run.normal(0, 0.03)
        wave = np.cos(frequency * (x * np.cos(angle) + y * np.sin(angle)) * 2 + phase)
        patches.append((wave * np.exp(-(x**2 + y**2) / (2 * width**2))).ravel())
    share = own.dirichlet(np.full(8, 2.0)) + 0.02
    mixtures = run.laplace(0, 1, (out * into, 8)) * share
    filters: np.ndarray = mixtures @ np.array(patches) + run.normal(0, 0.03, (out * into, 9))
    return (0.05 * filters).reshape(out, into, 3, 3).astype(np.float32)


def network(path: Path, seed: int = 0, family: int = 0) -> Path:
    """A model of three layers, 5,632 filters."""
    sizes = ((16, 32), (32, 64), (64, 48))
    return chain(path, *(trained(out, into, 10 * seed + i, family) for i, (into, out) in enumerate(sizes)))


def moved(source: Path, target: Path, *, share: float, seed: int = 0) -> Path:
    """A copy, as if fine-tuned: every weight of rank 4 moved by `share` of its tensor's standard deviation."""
    proto, rng = onnx.load(source), np.random.default_rng(seed)
    for initializer in proto.graph.initializer:
        if len(initializer.dims) == 4:
            values = numpy_helper.to_array(initializer)
            tuned = values + share * values.std() * rng.standard_normal(values.shape)
            initializer.CopyFrom(numpy_helper.from_array(tuned.astype(np.float32), initializer.name))
    onnx.save(proto, target)
    return target
