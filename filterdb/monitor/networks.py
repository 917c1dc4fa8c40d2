"""List the layers of a network in memory whose filters a database would store, and read each as a NumPy array."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from filterdb.errors import UsageError
from filterdb.models.frameworks import is_keras, is_torch, keras_convolutions, torch_convolutions
from filterdb.schema import Kernel, has_bank

SINGLE = ("float32", "float64")
"""Types with at least the precision of single numbers. Updates below the last digit of others are lost by rounding."""


@dataclass(frozen=True, slots=True)
class NetworkLayer:
    """A layer of a network in memory."""

    name: str
    kernel: Kernel
    trainable: bool
    """False if the training leaves it as it is, by its own settings."""
    dtype: str
    """The type of its weight, as NumPy or ml_dtypes name it."""
    read: Callable[[], NDArray[np.float32]] = field(repr=False)
    """Return its filters (n, weights); a view of the tensor where it is in the memory of the CPU."""


def list_layers(network: Any) -> list[NetworkLayer]:
    """Return the layers of a torch module, a Keras model, or a mapping of names to arrays (out, in, height, width).

    Convolutions that are transposed or have three dimensions, and kernels of a single weight, are left out, as in
    files. Raises UsageError if there is no layer, or for any other object.
    """
    if is_keras(network):
        layers = list(_of_keras(network))
    elif is_torch(network):
        layers = list(_of_torch(network))
    elif isinstance(network, Mapping):
        layers = list(_of_arrays(network))
    else:
        expected = "a torch.nn.Module, a keras.Model or a mapping of names to arrays"
        raise UsageError(f"model: expected {expected}, got {type(network).__name__}")
    if not layers:
        raise UsageError("model: expected a convolution with filters of 2 to 256 weights, got none; check the model")
    return layers


def _kernel(shape: tuple[int, ...]) -> Kernel | None:
    """Return the kernel of a weight (out, in, …) if a database stores its filters; 1×k for one dimension."""
    if len(shape) not in {3, 4} or min(shape) < 1:
        return None
    kernel = (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2])
    return kernel if has_bank(kernel) else None


def _flat(weight: NDArray[Any], kernel: Kernel) -> NDArray[np.float32]:
    with np.errstate(over="ignore", under="ignore"):
        return weight.reshape(-1, kernel[0] * kernel[1]).astype(np.float32, copy=False)


def _of_torch(module: Any) -> Iterator[NetworkLayer]:
    with sys.modules["torch"].no_grad():  # the weight may be computed, as with weight normalisation
        for name, part in torch_convolutions(module):
            weight = part.weight
            kernel = None if part.transposed else _kernel(tuple(weight.shape))
            if kernel is not None:
                trainable = any(parameter.requires_grad for parameter in _weight_parameters(part))
                dtype = str(weight.dtype).removeprefix("torch.")
                yield NetworkLayer(f"{name}.weight", kernel, trainable, dtype, partial(_read_torch, part, kernel))


def _weight_parameters(module: Any) -> Iterator[Any]:
    """Yield the parameters of a module but its bias: the weight, or what it is computed from."""
    for name, parameter in module.named_parameters():
        if name != "bias":
            yield parameter


def _read_torch(module: Any, kernel: Kernel) -> NDArray[np.float32]:
    torch = sys.modules["torch"]
    with torch.no_grad():
        # One copy at most: from the device, or to single precision.
        weight = module.weight.detach().to("cpu", torch.float32)
    return _flat(weight.numpy(), kernel)


def _of_keras(model: Any) -> Iterator[NetworkLayer]:
    for name, layer, role in keras_convolutions(model):
        # A depthwise layer of Keras 3 calls its kernel `kernel`, one of Keras 2 by its role.
        variable = getattr(layer, role.role) if hasattr(layer, role.role) else layer.kernel
        kernel = _kernel(role.shape(tuple(variable.shape)))
        if kernel is not None:
            trainable = bool(layer.trainable and variable.trainable)
            dtype = str(variable.dtype)
            yield NetworkLayer(name, kernel, trainable, dtype, partial(_read_keras, variable, role, kernel))


def _read_keras(variable: Any, role: Any, kernel: Kernel) -> NDArray[np.float32]:
    return _flat(role.values(variable.numpy()), kernel)


def _of_arrays(arrays: Mapping[Any, Any]) -> Iterator[NetworkLayer]:
    for name, array in arrays.items():
        weight = np.asarray(array)
        kernel = _kernel(weight.shape)
        if kernel is not None:
            yield NetworkLayer(str(name), kernel, True, weight.dtype.name, partial(_flat, weight, kernel))
