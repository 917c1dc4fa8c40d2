"""Files with the layers of known networks, for tests and benchmarks of reading in parts."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
from safetensors.numpy import save


def resnet50_shapes(divisor: int = 1) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of each tensor of torchvision's ResNet-50, with all widths divided."""

    def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (width,)

    width = 64 // divisor
    yield "conv1.weight", (width, 3, 7, 7)
    yield from norm("bn1", width)
    into = width
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        inner = width * 2 ** (stage - 1)
        for block in range(blocks):
            place = f"layer{stage}.{block}"
            shapes = ((inner, into, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1))
            for number, shape in enumerate(shapes, start=1):
                yield f"{place}.conv{number}.weight", shape
                yield from norm(f"{place}.bn{number}", shape[0])
            if block == 0:
                yield f"{place}.downsample.0.weight", (4 * inner, into, 1, 1)
                yield from norm(f"{place}.downsample.1", 4 * inner)
            into = 4 * inner
    yield "fc.weight", (1000, into)
    yield "fc.bias", (1000,)


def resnet50(divisor: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random tensors with the names and shapes of ResNet-50."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in resnet50_shapes(divisor)}


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """Return the tensors as a safetensors file, as the library of that name writes it."""
    return bytes(save(tensors))


def kernels(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the 3×3 filters (n, 9) of the tensors that are 3×3 convolutions, by name."""
    return {name: w.reshape(-1, 9) for name, w in tensors.items() if w.shape[2:] == (3, 3)}


def filter_bytes(divisor: int = 1) -> int:
    """Return the bytes of ResNet-50's 3×3 filters."""
    return sum(4 * prod(shape) for _, shape in resnet50_shapes(divisor) if shape[2:] == (3, 3))
