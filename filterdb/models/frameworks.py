"""Recognise models of PyTorch and Keras in memory, and list their convolutions, without importing either.

Whoever passes such a model has imported its framework, so `sys.modules` has it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Protocol

from filterdb.models.keras.kernels import KERNELS, Kernel, refusal


class TorchModule(Protocol):
    """A `torch.nn.Module`, as far as it is used."""

    def named_modules(self, memo: Any = ..., prefix: str = ..., remove_duplicate: bool = ...) -> Iterator[Any]:
        """Yield the names and modules below it."""

    def state_dict(self) -> Any:
        """Return its parameters and buffers by name."""


class KerasModel(Protocol):
    """A `keras.Model`, as far as it is used."""

    @property
    def layers(self) -> list[Any]:
        """Its layers."""

    def save(self, filepath: Any) -> None:
        """Write it to a file."""


def is_keras(model: object) -> bool:
    """Return whether a model is a `keras.Model`. With PyTorch as Keras' backend it is a torch module too."""
    return any(
        isinstance(model, getattr(sys.modules.get(name), "Model", ())) for name in ("keras", "tf_keras")
    )  # an empty tuple: no class at all


def is_torch(model: object) -> bool:
    """Return whether a model is a `torch.nn.Module`, and not one of Keras."""
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "nn") and isinstance(model, torch.nn.Module) and not is_keras(model)


def unwrapped(module: Any) -> Any:
    """Return the module inside the wrappers of `torch.compile`, DataParallel and DistributedDataParallel."""
    parallel = sys.modules["torch"].nn.parallel
    while True:
        if "_orig_mod" in module._modules:
            module = module._orig_mod
        elif isinstance(module, parallel.DataParallel | parallel.DistributedDataParallel):
            module = module.module
        else:
            return module


def torch_convolutions(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and modules of a torch module's convolutions, those that are transposed too.

    A module that is used under several names is yielded under its first.
    """
    conv = sys.modules["torch"].nn.modules.conv
    for name, part in unwrapped(module).named_modules():
        if isinstance(part, conv._ConvNd):
            yield name, part


def keras_convolutions(model: Any) -> Iterator[tuple[str, Any, Kernel]]:
    """Yield the names, layers and kernels of a Keras model's convolutions that filterdb reads, each layer once."""
    seen: set[int] = set()
    levels: list[Iterator[tuple[tuple[str, ...], Any]]] = [iter([((), model)])]
    while levels:
        child = next(levels[-1], None)
        if child is None:
            levels.pop()
            continue
        path, layer = child
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        kind = next((base.__name__ for base in type(layer).__mro__ if base.__name__ in KERNELS), "")
        if kind and refusal(kind, {}) is None and layer.built:
            for kernel in KERNELS[kind]:
                yield "/".join((*path, kernel.role) if len(KERNELS[kind]) > 1 else path), layer, kernel
            continue
        inner = getattr(layer, "layers", None) or getattr(layer, "_layers", [])
        levels.append(iter([((*path, part.name), part) for part in inner]))
